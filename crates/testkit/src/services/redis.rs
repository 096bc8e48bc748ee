//! redis: a primary with an append-only file, a replica, and three kinds of clients.
//!
//! Some count a number up over one connection and over fresh ones, and know what
//! has to come back; some call a Lua script that appends to a list and gives its
//! length; one writes and then reads from the replica. `redis-benchmark` runs
//! beside them. At the end the two servers hold the same, the append-only file
//! is sound, and a server that is started from it has every answered write.

use super::meter::{Clients, Meter, Pace};
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::haproxy::{free_port, listens};
use crate::running::{PATIENCE, Running};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct Redis;

const SUBJECTS: [Subject; 2] = [
    // The package `redis-server` has links to the one program, which is in `redis-tools`.
    Subject { title: "redis-server", packages: &["redis-tools"], own: true },
    Subject { title: "libc under it", packages: &["libc6"], own: false },
];
/// Clients of each kind.
const CLIENTS: usize = 2;
/// Pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(1);
const SCRIPT: &str = "redis.call('RPUSH', KEYS[1], ARGV[1]); return redis.call('LLEN', KEYS[1])";

impl Service for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn load(&self) -> &'static str {
        "counters over kept and fresh connections, a Lua script, reads from the replica; redis-benchmark; append-only file"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn old_as_well(&self) -> &'static [&'static str] {
        &["redis-server"]
    }

    fn also(&self) -> &'static [&'static str] {
        &["procps"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        let (primary, replica) = (free_port()?, free_port()?);
        let mut servers = vec![server(root, "primary", primary, None)?];
        servers.push(server(root, "replica", replica, Some(primary))?);
        let mut connection = Connection::open(replica)?;
        let since = Instant::now();
        while !connection.call(&["INFO", "replication"])?.text()?.contains("master_link_status:up") {
            ensure!(since.elapsed() < PATIENCE, "the replica does not find its primary");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Box::new(Pair { servers, primary, replica, counted: Arc::default(), benchmark: None }))
    }
}

/// As its unit starts it: the package's configuration, its user, and what is said on the command line.
fn server(root: &Root, name: &str, address: SocketAddr, of: Option<SocketAddr>) -> Result<Running> {
    let directory = format!("/var/lib/redis/{name}");
    root.must_run(&["install", "-d", "-o", "redis", "-g", "redis", &directory])?;
    let mut words: Vec<String> =
        ["setpriv", "--reuid=redis", "--regid=redis", "--init-groups", "redis-server"].map(str::to_owned).to_vec();
    words.push("/etc/redis/redis.conf".into());
    let port = address.port().to_string();
    let pid_file = format!("{directory}/pid");
    let settings = [
        ("--bind", "127.0.0.1"),
        ("--port", &port),
        ("--daemonize", "no"),
        ("--supervised", "no"),
        ("--dir", &directory),
        ("--pidfile", &pid_file),
        ("--logfile", ""),
        ("--appendonly", "yes"),
        ("--save", ""),
        ("--enable-debug-command", "yes"),
    ];
    words.extend(settings.iter().flat_map(|(key, value)| [(*key).to_owned(), (*value).to_owned()]));
    if let Some(of) = of {
        words.extend(["--replicaof".into(), "127.0.0.1".into(), of.port().to_string()]);
    }
    let mut running = root.start(&words, &format!("/var/log/redis-{name}"))?;
    running.wait_for("redis to listen", |_| listens(address).then_some(()))?;
    Ok(running)
}

/// A primary and its replica, as they run.
struct Pair {
    servers: Vec<Running>,
    primary: SocketAddr,
    replica: SocketAddr,
    /// What clients that ended know to be there: a key and the number it holds or its list's length.
    counted: Arc<Mutex<Vec<(String, i64)>>>,
    benchmark: Option<Running>,
}

impl Live for Pair {
    fn clients(&mut self, root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        let (primary, replica) = (self.primary, self.replica);
        for index in 0..CLIENTS {
            let mut add = |kind: &str, request: Request| {
                let (meter, counted, key) = (Arc::clone(meter), Arc::clone(&self.counted), format!("{kind}:{index}"));
                clients.add(key.clone(), move || {
                    let reached = count(&meter, &key, request)?;
                    counted.lock().unwrap_or_else(PoisonError::into_inner).push((key, reached));
                    Ok(())
                });
            };
            let mut kept = Connection::open(primary)?;
            add("kept", Box::new(move |key, _| kept.number(&["INCR", key])));
            add("fresh", Box::new(move |key, _| Connection::open(primary)?.number(&["INCR", key])));
            let mut kept = Connection::open(primary)?;
            add("list", Box::new(move |key, next| kept.number(&["EVAL", SCRIPT, "1", key, &next.to_string()])));
            let (mut writer, mut reader) = (Connection::open(primary)?, Connection::open(replica)?);
            add(
                "replicated",
                Box::new(move |key, next| {
                    writer.call(&["SET", key, &next.to_string()])?;
                    ensure!(writer.number(&["WAIT", "1", "10000"])? == 1, "the replica did not get the write");
                    let there = reader.call(&["GET", key])?.text()?;
                    there.parse().with_context(|| format!("the replica has {there:?}"))
                }),
            );
        }
        let port = primary.port().to_string();
        let words = [
            "redis-benchmark",
            "-p",
            &port,
            "-c",
            "4",
            "-l",
            "-q",
            "-r",
            "10000",
            "-t",
            "set,get,lpush,lpop,hset,mset",
        ];
        if meter.pace() == Pace::Full {
            self.benchmark = Some(root.start(&words, "/var/log/redis-benchmark")?);
        }
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        if let Some(benchmark) = &mut self.benchmark {
            benchmark.must_run().context("redis-benchmark")?;
        }
        self.servers.iter_mut().try_for_each(Running::must_run)
    }

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        self.must_run(root)?;
        // Ends with its clients' connections, in the middle of requests that nobody reads.
        if self.benchmark.take().is_some() {
            root.run(&["pkill", "-x", "redis-benchmark"])?;
        }
        let counted = std::mem::take(&mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(counted.len() == 4 * CLIENTS, "only {} clients ended well", counted.len());
        let mut facts = Vec::new();

        let digests = self.digests()?;
        facts.push(format!(
            "primary and replica hold the same (DEBUG DIGEST {}…)",
            digests.get(..12).unwrap_or_default()
        ));
        for server in self.servers.drain(..) {
            Root::signal_inside(server, Signal::TERM)?;
        }
        let manifest = "/var/lib/redis/primary/appendonlydir/appendonly.aof.manifest";
        let checked = root.must_run(&["redis-check-aof", manifest])?;
        ensure!(checked.stdout.contains("are valid"), "redis-check-aof: {}", checked.stdout);
        facts.push("redis-check-aof finds the primary's append-only file valid".into());

        self.servers.push(server(root, "primary", self.primary, None)?);
        let mut connection = Connection::open(self.primary)?;
        connection.wait_until_loaded()?;
        for (key, reached) in &counted {
            let there = if key.starts_with("list") {
                connection.number(&["LLEN", key])?
            } else {
                connection.call(&["GET", key])?.text()?.parse()?
            };
            ensure!(there == *reached, "{key} was counted to {reached} and is {there} after a restart");
        }
        let writes: i64 = counted.iter().map(|(_, reached)| reached).sum();
        facts.push(format!(
            "a server started from that file has all {writes} writes that were answered to checking clients"
        ));
        Ok(facts)
    }
}

impl Pair {
    /// The digest of all data, which has to become the same on both.
    fn digests(&self) -> Result<String> {
        let since = Instant::now();
        let (mut primary, mut replica) = (Connection::open(self.primary)?, Connection::open(self.replica)?);
        loop {
            let both = (primary.call(&["DEBUG", "DIGEST"])?.text()?, replica.call(&["DEBUG", "DIGEST"])?.text()?);
            if both.0 == both.1 {
                return Ok(both.0);
            }
            ensure!(since.elapsed() < PATIENCE, "primary and replica differ: {} and {}", both.0, both.1);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Given the key and the number that has to come back, asks; gives what came back.
type Request = Box<dyn FnMut(&str, i64) -> Result<i64> + Send>;

/// Counts up until the meter ends. Gives how far it came: after a wrong answer
/// nothing further can be expected, and the client ends with the error.
fn count(meter: &Meter, key: &str, mut request: Request) -> Result<i64> {
    let mut reached = 0;
    while meter.goes_on() {
        let right = meter.time(|| {
            let got = request(key, reached + 1)?;
            ensure!(got == reached + 1, "{key}: {got} came back instead of {}", reached + 1);
            Ok(())
        });
        ensure!(right, "{key} stopped at {reached}");
        reached += 1;
        meter.pause(PAUSE);
    }
    Ok(reached)
}

/// One answer of the protocol (RESP2).
#[derive(Debug)]
enum Answer {
    Text(String),
    Number(i64),
}

impl Answer {
    fn text(self) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Number(number) => bail!("{number} instead of text"),
        }
    }
}

struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE).context("cannot connect")?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot set a timeout")?;
        stream.set_nodelay(true).context("cannot set no-delay")?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    fn call(&mut self, words: &[&str]) -> Result<Answer> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            write!(request, "${}\r\n{word}\r\n", word.len()).context("cannot write a request")?;
        }
        self.reader.get_mut().write_all(request.as_bytes()).context("cannot send")?;
        let mut line = String::new();
        ensure!(self.reader.read_line(&mut line).context("no answer")? > 0, "closed instead of an answer");
        let line = line.trim_end();
        match line.split_at_checked(1) {
            Some(("+", text)) => Ok(Answer::Text(text.to_owned())),
            Some((":", number)) => Ok(Answer::Number(number.parse().context("no number")?)),
            Some(("$", length)) => {
                let length: usize = length.parse().with_context(|| format!("nothing came back ({line})"))?;
                let mut text = vec![0; length + 2];
                self.reader.read_exact(&mut text).context("answered in part")?;
                text.truncate(length);
                Ok(Answer::Text(String::from_utf8(text).context("not text")?))
            }
            _ => bail!("{} was answered with {line}", words.join(" ")),
        }
    }

    fn number(&mut self, words: &[&str]) -> Result<i64> {
        match self.call(words)? {
            Answer::Number(number) => Ok(number),
            Answer::Text(text) => bail!("{text:?} instead of a number"),
        }
    }

    fn wait_until_loaded(&mut self) -> Result<()> {
        let since = Instant::now();
        while !self.call(&["INFO", "persistence"])?.text()?.contains("\r\nloading:0") {
            ensure!(since.elapsed() < PATIENCE, "it loads without end");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
