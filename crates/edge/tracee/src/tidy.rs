//! Cleaning up what a killed Salve left in a process.
//!
//! What can be left: a stub in the tail of a text page, a workshop, gates, descriptors, a
//! payload that nothing leads to. All of it is found by content: the stub by its code, the
//! gates by the name of their file, the workshop by its place and its first words, which
//! say what descriptor was made. Only that is closed, and only if it stands for a process's
//! memory. Payloads are the business of apply and revert.
//!
//! Threads that were on their way home are given time to get there: nothing is taken away
//! before all have been stopped once and none was seen in it or on its way back to it.

use crate::image::{Found, PAGE_BYTES};
use crate::limits::Limits;
use crate::look::{Checker, ROOM_BYTES, Space, check_all};
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::outcome::{Blocking, BlockingReason};
use crate::patcher::Patcher;
use crate::process::Process;
use crate::program::{Descriptor, Else, Program, Row};
use crate::remote::{self, CLOSE, MUNMAP, RemoteError, Target, Task};
use crate::scene::{End, Scene};
use crate::slot::{Leftover, SLOT_BYTES, Slot, leftovers};
use crate::stop::{Held, StopError};
use crate::stub::{ROW_WORDS, STUB_BYTES};
use crate::transfer;
use crate::transition::Blocked;
use crate::workshop::{self, MAGIC, MAX_BYTES, MEMORY_AT, RANGE};
use core::time::Duration;
use salve_consistency::Forbidden;
use salve_elf::RuntimeAddr;
use std::time::Instant;

/// How the path of the gates' file is shown.
pub(crate) const ROOM_NAME: &str = "salve-room";
/// Threads on their way home get there in well under this, unless their process is stopped.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks: each costs the threads some of the processor that they wait for.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The second look finds what the first could not yet see, the third that nothing is left.
const MOST_LOOKS: usize = 3;
/// Rows that fit behind a stub, each with a word for its first argument, and the end of the table.
const IN_A_SLOT: usize = 2;
const _: () = assert!(STUB_BYTES + 8 * ROW_WORDS * IN_A_SLOT + 8 + 4 * IN_A_SLOT <= SLOT_BYTES);
/// Rows that fit into the smallest workshop.
const ROWS: usize = 32;

/// All that was left behind, but payloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leftovers {
    pub(crate) stubs: Vec<Leftover>,
    pub(crate) workshops: Vec<Mapping>,
    pub(crate) rooms: Vec<Mapping>,
    pub(crate) descriptors: Vec<i32>,
}

impl Leftovers {
    pub(crate) fn find(process: &Process, memory: &Memory, mappings: &[Mapping], images: &[Found]) -> Self {
        let is_room = |mapping: &&Mapping| mapping.path == *format!("/memfd:{ROOM_NAME}");
        let workshops: Vec<Mapping> = mappings.iter().filter(|mapping| is_workshop(memory, mapping)).cloned().collect();
        Self {
            stubs: leftovers(process, memory, images),
            descriptors: workshops.iter().filter_map(|workshop| descriptor(process, memory, workshop)).collect(),
            rooms: mappings.iter().filter(is_room).cloned().collect(),
            workshops,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stubs.is_empty() && self.workshops.is_empty() && self.rooms.is_empty()
    }
}

fn is_workshop(memory: &Memory, mapping: &Mapping) -> bool {
    let perms = mapping.perms;
    let kind = mapping.inode == 0 && perms.read && perms.write && !perms.execute && !perms.shared;
    if !kind || !RANGE.contains(&mapping.start.raw()) || mapping.len_bytes() > MAX_BYTES {
        return false;
    }
    let mut start = [0; MAGIC.len()];
    memory.read_exact(mapping.start, &mut start).is_ok() && (start == *MAGIC || start == [0; MAGIC.len()])
}

/// The descriptor that a workshop says was made, if it still stands for a process's memory. All
/// others are open only while a thread is on its way that closes them itself.
fn descriptor(process: &Process, memory: &Memory, workshop: &Mapping) -> Option<i32> {
    let number = memory.half_word(RuntimeAddr::new(workshop.start.raw().wrapping_add(MEMORY_AT))).ok()?;
    let link = process.link(&format!("fd/{number}")).ok()?.to_string_lossy().into_owned();
    (number > 0 && link.starts_with("/proc/") && link.ends_with("/mem")).then_some(number)
}

/// The scene with nothing left in it of a Salve that was killed: whatever is planned from
/// it may rely on that.
///
/// A thread that was in the stub when that Salve died works through its table to the end:
/// what it makes meanwhile was not there at the first look, and is at the next.
pub(crate) fn scene(patcher: &Patcher, process: &Process) -> Result<Scene, End> {
    for _ in 1..MOST_LOOKS {
        // It holds the lock on the process: it has to end before the next look.
        let scene = Scene::read(patcher, process)?;
        if scene.leftovers.is_empty() {
            return Ok(scene);
        }
        up(&scene.target(patcher, process), &scene)?;
    }
    Scene::read(patcher, process)
}

/// Takes away what was found.
fn up(target: &Target<'_>, scene: &Scene) -> Result<(), End> {
    vacate(target, scene)?;
    // Who was still in the stub may have made more, and the workshop says what.
    let mappings = target.process.mappings(target.limits)?;
    let found = &Leftovers::find(target.process, target.memory, &mappings, &scene.images);
    let slot = Slot::take(target)?;
    let mut rows: Vec<Row> = found
        .descriptors
        .iter()
        .map(|&number| Row::new(CLOSE, [0; 6]).of(Descriptor::Is(number)))
        .chain(found.rooms.iter().map(|room| Row::new(MUNMAP, [room.start.raw(), room.len_bytes(), 0, 0, 0, 0])))
        .map(|row| Row { otherwise: Else::Next, ..row })
        .collect();
    if found.workshops.is_empty() {
        return Ok(clear(target, &found.rooms)?);
    }
    for workshop in &found.workshops {
        let rest = rows.split_off(rows.len().min(ROWS));
        let program = Program { rows: std::mem::replace(&mut rows, rest) };
        workshop::clear(target, &slot, program, workshop.start, workshop.len_bytes())?;
    }
    Ok(())
}

/// Unmaps exactly these mappings, a few in each borrowing.
pub(crate) fn clear(target: &Target<'_>, mappings: &[Mapping]) -> Result<(), RemoteError> {
    for some in mappings.chunks(IN_A_SLOT) {
        let slot = Slot::take(target)?;
        let mut program = Program::default();
        for mapping in some {
            program.push(Row::new(MUNMAP, [mapping.start.raw(), mapping.len_bytes(), 0, 0, 0, 0]));
        }
        let done = || some.iter().all(|mapping| target.memory.word(mapping.start).is_err());
        let task = Task { program: &program, table: None, tail: None, later: &[], meanwhile: None, done: &done };
        remote::run(target, &slot, &task)?.0.map_err(|failed| failed.error(&program))?;
    }
    Ok(())
}

/// Waits until no thread is in a stub or a gate or has to come back to one, and puts the
/// text back where stubs were.
fn vacate(target: &Target<'_>, scene: &Scene) -> Result<(), End> {
    let mut zones = Forbidden::default();
    let name = "the stub of a Salve that was killed";
    let slot_bytes = u64::try_from(SLOT_BYTES).unwrap_or(PAGE_BYTES);
    for stub in &scene.leftovers.stubs {
        zones.add_range(stub.at, RuntimeAddr::new(stub.at.raw().saturating_add(slot_bytes)), name);
    }
    for room in &scene.leftovers.rooms {
        zones.add_range(room.start, room.end, name);
    }
    let start = Instant::now();
    let mut pause = PAUSE;
    loop {
        let blocked = std::thread::scope(|scope| {
            let tracer = std::thread::Builder::new()
                .name("salve-tidy".to_owned())
                .spawn_scoped(scope, || once(target, scene, &zones))?;
            tracer.join().map_err(|_| std::io::Error::other("the tracing thread failed"))
        })
        .map_err(RemoteError::Thread)?;
        match blocked {
            Ok(()) => return Ok(()),
            Err(_) if start.elapsed() < PATIENCE => {
                std::thread::sleep(pause);
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
            Err(blocked) => {
                let named = |blocked: Blocked| -> Blocking { blocked.named(target.process) };
                return Err(End::Busy(blocked.into_iter().map(named).collect()));
            }
        }
    }
}

/// Who did not stop, if that is why.
fn not_stopped(process: &Process, error: &StopError) -> Vec<Blocked> {
    let (StopError::DidNotStop { tid } | StopError::Traced { tid }) = *error else { return Vec::new() };
    vec![Blocked::as_a_whole(process.pid(), tid, BlockingReason::DidNotStop)]
}

/// One look at all threads, and if none is there the text is put back.
fn once(target: &Target<'_>, scene: &Scene, zones: &Forbidden) -> Result<(), Vec<Blocked>> {
    let limits: &Limits = target.limits;
    let memory = target.memory;
    let Ok(mut space) = Space::open(target.process) else { return Ok(()) };
    let mut room = vec![1_u8; ROOM_BYTES];
    let transfers = transfer::find(target.process, memory, limits, &[]).unwrap_or_default();
    if !transfers.is_empty() {
        return Err(transfers);
    }
    let _hurried = crate::wait::hurry();
    let held = Held::stop_all(target.process, limits).map_err(|error| not_stopped(target.process, &error))?;
    for thread in &held.threads {
        if let Some(registers) = &thread.registers {
            transfer::tell(target.process, memory, thread.tid, registers);
        }
    }
    space.refresh(target.process, limits).map_err(|_| Vec::new())?;
    let tables = scene.tables();
    let main_stack = scene.main_stack();
    let checker = Checker { memory, tables: &tables, main_stack, limits, space: &space, pid: target.process.pid() };
    let blocked = check_all(&checker, zones, &held.threads, &mut room, |_| 0);
    if !blocked.is_empty() {
        return Err(blocked);
    }
    for stub in &scene.leftovers.stubs {
        let mut now = [0; SLOT_BYTES];
        if memory.read_exact(stub.at, &mut now).is_ok() && now == stub.found {
            let _ = memory.write(stub.at, &stub.original);
        }
    }
    let _ = held.release();
    Ok(())
}
