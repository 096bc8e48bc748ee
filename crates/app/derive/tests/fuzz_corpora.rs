//! The fuzz targets' bodies over their corpora, and over small damages of each seed,
//! without a fuzzer: no input makes them panic.

#[expect(unreachable_pub, reason = "the fuzz targets are crates of their own and use it too")]
#[path = "../../../../fuzz/src/bodies.rs"]
mod bodies;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Long enough for any input of a corpus on a slow, busy machine; a hang is longer.
const HANG: Duration = Duration::from_secs(120);

/// Every input of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut found: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("an input")))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{target} has no corpus");
    found
}

/// Deterministic numbers, the same on every machine (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).expect("below a size")
    }
}

/// One to four places are damaged: a bit, a byte, a wide number, a cut, a repeat.
fn damaged(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        if bytes.is_empty() {
            break;
        }
        // Most inputs have to get past the headers to reach what lies behind.
        let within = if numbers.below(8) == 0 { bytes.len().min(512) } else { bytes.len() };
        let at = numbers.below(within);
        match numbers.below(6) {
            0 => bytes[at] ^= 1 << numbers.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
            2 => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
            3 => bytes[at..].iter_mut().take(4).for_each(|byte| *byte = 0),
            4 => bytes.truncate(at),
            _ => {
                let part = bytes[at..].iter().copied().take(64).collect::<Vec<_>>();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

fn replay(target: &str, damages: usize) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let run = |what: &str, data: &[u8]| {
        let since = Instant::now();
        assert!(bodies::run(target, data), "no target {target}");
        assert!(since.elapsed() < HANG, "{what} took {:?}", since.elapsed());
    };
    for (name, seed) in corpus(target) {
        run(&name, &seed);
        for round in 0..damages {
            run(&format!("{name}, damage {round}"), &damaged(&seed, &mut numbers));
        }
    }
}

#[test]
fn elf_readers_survive_their_corpus_and_damages_of_it() {
    replay("elf", 20_000);
}

#[test]
fn the_package_reader_survives_its_corpus_and_damages_of_it() {
    replay("deb", 1000);
}

#[test]
fn the_patch_reader_survives_its_corpus_and_damages_of_it() {
    replay("patch", 2000);
}

#[test]
fn deriving_survives_hostile_pairs() {
    replay("pair", 20_000);
}

#[test]
fn every_corpus_belongs_to_a_target() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus");
    for entry in std::fs::read_dir(directory).expect("corpora") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(bodies::run(&name, &[]), "{name} is no target");
    }
}
