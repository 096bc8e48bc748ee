use super::*;
use crate::forbidden::Forbidden;
use proptest::prelude::*;

const STACK: u64 = 0x7000_0000;
const CODE: u64 = 0x5000;

fn forbidden() -> Forbidden {
    let mut forbidden = Forbidden::default();
    forbidden.add_range(RuntimeAddr::new(CODE), RuntimeAddr::new(CODE + 0x100), "replaced");
    forbidden
}

fn thread(instruction_pointer: u64, words: usize) -> Thread {
    let span = Span { start: RuntimeAddr::new(STACK), end: RuntimeAddr::new(STACK + words as u64 * 8) };
    let mut general = [0; 16];
    general[RSP] = STACK;
    let registers = Registers { general, instruction_pointer: RuntimeAddr::new(instruction_pointer) };
    Thread { tid: 1, registers, live: vec![span], own_stack: Some(span) }
}

/// Answers what is asked from `words`, never more than `most` bytes at once.
fn run(thread: &Thread, words: &[u64], most: usize) -> (Option<Finding>, u64) {
    let forbidden = forbidden();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut check = ThreadCheck::new(&forbidden, &[], thread, 64);
    let mut asked = 0;
    loop {
        match check.poll() {
            Step::Done(finding) => return (finding, asked),
            Step::ReadMemory { at, len_bytes } => {
                let from = usize::try_from(at.raw() - STACK).unwrap();
                let len = usize::try_from(len_bytes).unwrap().min(most).min(bytes.len() - from);
                asked += len as u64;
                check.provide(&bytes[from..from + len]);
            }
        }
    }
}

#[test]
fn an_instruction_pointer_inside_is_told_without_reading_any_memory() {
    let (finding, asked) = run(&thread(CODE + 8, 4), &[0; 4], 4096);
    let kind = FindingKind::Executing { at: RuntimeAddr::new(CODE + 8) };
    assert_eq!((finding, asked), (Some(Finding { function: "replaced".into(), kind, leaves_to: None }), 0));
}

#[test]
fn a_return_address_in_a_register_counts() {
    let mut thread = thread(0x9000, 1);
    thread.registers.general[2] = CODE + 0x20;
    let (finding, _) = run(&thread, &[0], 4096);
    assert_eq!(finding.unwrap().kind, FindingKind::MaybeFrame { at: RuntimeAddr::new(CODE + 0x20) });
}

#[test]
fn memory_that_cannot_be_read_is_not_taken_for_empty() {
    let (finding, _) = run(&thread(0x9000, 4), &[0; 4], 0);
    assert_eq!(finding.unwrap().kind, FindingKind::Unreadable { at: RuntimeAddr::new(STACK) });
}

#[test]
fn every_span_is_scanned() {
    let mut thread = thread(0x9000, 4);
    thread.live = vec![
        Span { start: RuntimeAddr::new(STACK), end: RuntimeAddr::new(STACK + 8) },
        Span { start: RuntimeAddr::new(STACK + 16), end: RuntimeAddr::new(STACK + 32) },
    ];
    assert_eq!(run(&thread, &[0, CODE + 1, 0, 0], 4096).0, None);
    assert!(run(&thread, &[0, 0, 0, CODE + 1], 4096).0.is_some());
}

proptest! {
    /// However the memory is handed over, a word inside is found, and none is invented.
    #[test]
    fn exactly_the_words_inside_are_suspicious(
        words in prop::collection::vec(prop_oneof![Just(0_u64), CODE - 2..CODE + 0x103, any::<u64>()], 1..300),
        most in 1_usize..9,
    ) {
        let inside = words.iter().any(|word| (CODE..=CODE + 0x100).contains(word));
        let (finding, asked) = run(&thread(0x9000, words.len()), &words, most * 8);
        prop_assert_eq!(finding.is_some(), inside);
        prop_assert_eq!(asked, words.len() as u64 * 8);
    }
}
