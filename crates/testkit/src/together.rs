//! Whether several processes change together, seen from outside.
//!
//! One place in the text of each is read over and over. A sample in which some are changed
//! and others are not counts as apart if one of them was at large meanwhile: it lies between
//! two readings that say the same, and a change is not undone while this looks. At large is
//! who has no tracer; and of those who have one all stand but the one whose own thread just
//! makes its writes.

use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What was seen until [`Together::end`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub samples: u64,
    /// Some changed and others not, while one of them was at large.
    pub apart: u64,
    /// How many processes were changed at the end.
    pub changed: usize,
}

/// Looks until it is told to end.
#[derive(Debug)]
pub struct Together {
    over: Arc<AtomicBool>,
    looking: JoinHandle<Result<Seen>>,
}

struct Place {
    pid: u32,
    memory: File,
    address: u64,
    before: [u8; 5],
}

impl Place {
    /// `va` in the program that a process was started from.
    fn new(pid: u32, va: u64) -> Result<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).context("no maps")?;
        let start = maps.split('-').next().and_then(|start| u64::from_str_radix(start, 16).ok());
        let address = start.context("nothing is mapped")? + va;
        let memory = File::open(format!("/proc/{pid}/mem")).context("its memory cannot be read")?;
        let mut place = Self { pid, memory, address, before: [0; _] };
        place.before = place.now()?;
        Ok(place)
    }

    fn now(&self) -> Result<[u8; 5]> {
        let mut bytes = [0; _];
        self.memory.read_exact_at(&mut bytes, self.address).with_context(|| format!("cannot read {}", self.pid))?;
        Ok(bytes)
    }

    fn is_changed(&self) -> Result<bool> {
        Ok(self.now()? != self.before)
    }

    /// How its one thread is held (`proc_pid_status(5)`, `State` and `TracerPid`).
    fn held(&self) -> Result<Held> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).context("it is gone")?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Ok(match (field("TracerPid:"), field("State:")) {
            (Some("0") | None, _) => Held::AtLarge,
            (Some(_), Some(state)) if state.starts_with('t') => Held::Stands,
            (Some(_), _) => Held::Writes,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    AtLarge,
    Stands,
    Writes,
}

impl Together {
    /// Looks at `va`, which a livepatch changes, in each of `pids`: processes with one thread.
    pub fn watch(pids: &[u32], va: u64) -> Result<Self> {
        let places = pids.iter().map(|pid| Place::new(*pid, va)).collect::<Result<Vec<_>>>()?;
        ensure!(places.len() > 1, "one process cannot be apart");
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        Ok(Self { over, looking: std::thread::spawn(move || look(&places, &told)) })
    }

    pub fn end(self) -> Result<Seen> {
        self.over.store(true, Ordering::Relaxed);
        self.looking.join().unwrap_or_else(|_| bail!("whoever looked failed"))
    }
}

fn look(places: &[Place], over: &AtomicBool) -> Result<Seen> {
    let all = || places.iter().map(Place::is_changed).collect::<Result<Vec<_>>>();
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        let first = all()?;
        let mixed = first.contains(&true) && first.contains(&false);
        if mixed {
            let held = places.iter().map(Place::held).collect::<Result<Vec<_>>>()?;
            let writers = held.iter().filter(|held| **held == Held::Writes).count();
            let at_large = held.contains(&Held::AtLarge) || writers > 1;
            seen.apart += u64::from(at_large && all()? == first);
        }
        seen.samples += 1;
        // Much less than the time from one change to the next, and not all of a processor.
        std::thread::sleep(Duration::from_micros(50));
    }
    seen.changed = all()?.iter().filter(|changed| **changed).count();
    Ok(seen)
}
