use anyhow::{Context as _, Result, bail, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running victim that is asked and answers.
#[derive(Debug)]
pub struct Asked {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Asked {
    /// Starts it and waits until it is ready.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().context("no output")?);
        let mut asked = Self { child, input, output: BufReader::new(output) };
        let ready = asked.line()?;
        ensure!(ready == "ready", "it began with {ready:?}");
        Ok(asked)
    }

    /// The process that was started, which may have started the victim.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("it cannot be read from")?;
        if line.is_empty() {
            bail!("it ended by itself: {}", self.child.wait().context("cannot wait for it")?);
        }
        Ok(line.trim_end().to_owned())
    }

    pub fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.input.as_mut().context("it has ended")?, "{question}").context("it does not listen")?;
        self.line()
    }

    /// Nobody asks any more: it ends in order.
    pub fn end(mut self) -> Result<()> {
        self.input = None;
        let status = self.child.wait().context("cannot wait for it")?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}
