//! `salve-derive`: started by `salve`, with a socket on standard input. Not for use by hand.
#![forbid(unsafe_code)]

use rustix::fd::AsFd;
use salve_derive::Mode;
use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

const USAGE: &str = "usage: salve-derive [--version] [--unsafe-no-sandbox]

Parses packages and programs for salve, which starts it with a socket on
standard input. It gives up every privilege before it reads the first foreign
byte, and refuses to work where it cannot.

  --unsafe-no-sandbox  keep everything: only for a debugger, on files you trust
";

/// Wrong usage, as everywhere in Salve.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut mode = Mode::Sandboxed;
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--unsafe-no-sandbox") => mode = Mode::UnsafeUnsandboxed,
            Some("--version") => {
                let _ = writeln!(std::io::stdout(), "salve-derive {}", env!("CARGO_PKG_VERSION"));
                return ExitCode::SUCCESS;
            }
            _ => {
                let _ = std::io::stderr().write_all(USAGE.as_bytes());
                return ExitCode::from(WRONG_USAGE);
            }
        }
    }
    let input = rustix::stdio::stdin();
    if rustix::net::sockopt::socket_domain(input).is_err() {
        let _ = std::io::stderr().write_all(USAGE.as_bytes());
        return ExitCode::from(WRONG_USAGE);
    }
    match salve_derive::serve(input.as_fd(), mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut cause: Option<&dyn Error> = Some(&error);
            while let Some(error) = cause {
                let _ = writeln!(std::io::stderr(), "salve-derive: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
