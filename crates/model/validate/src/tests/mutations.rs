//! One thing is made wrong at a time. Each has to be found, and for what it is.

use super::victim::Victim;
use crate::{Invalid, Mismatch, Side};
use salve_elf::{Va, VaRange};
use salve_patch::{DataRun, Fixup, FixupKind, FunctionPair, NoiseKind, NoiseSite, RevertPolicy, TextPair};

#[test]
fn a_correct_livepatch_is_proven() {
    for flags in [&[][..], &["-Wl,-z,now"], &["-Wl,-z,noseparate-code"], &["-Wl,-z,pack-relative-relocs"]] {
        let victim = Victim::build(flags);
        let proof = victim.check().unwrap();
        assert!(proof.carried >= 2, "{flags:?}");
        assert_eq!(proof.noise, 2);
        assert!(proof.same > 10 && proof.references.payload > 10);
        assert!(proof.references.old_code > 2 && proof.references.old_data > 2 && proof.references.imports > 2);
    }
}

/// What the payload does not have is not as far away in a process as in the new image.
#[test]
fn constants_that_count_from_themselves_lead_into_the_payload_only() {
    let victim = Victim::build(&["-DDISTANCES"]);
    let found = victim.check().unwrap_err();
    let functions = ["first", "second"].map(|name| victim.new_at(name).start());
    assert!(matches!(found, Invalid::Unresolved { new_target, .. } if functions.contains(&new_target)), "{found}");
}

/// Every byte of what is carried, and of the constants carried with it.
#[test]
fn any_flipped_byte_of_the_payload_is_found() {
    let victim = Victim::build(&[]);
    for (index, segment) in victim.livepatch.segments.iter().enumerate() {
        // Filling may be zero or a trap in code; what is a fix-up's field is written when it is placed.
        let fields: Vec<u64> =
            victim.livepatch.fixups.iter().flat_map(|f| (0..4).map(|i| f.new_va.raw() + i)).collect();
        for offset in (0..segment.bytes.len()).step_by(3) {
            let at = segment.new_va.raw() + offset as u64;
            if fields.contains(&at) {
                continue;
            }
            let mut wrong = victim.clone();
            wrong.livepatch.segments[index].bytes[offset] ^= 0x10;
            let found = wrong.check().unwrap_err();
            let expected = matches!(found, Invalid::PayloadByte { at: a } if a.raw() == at)
                || matches!(found, Invalid::Unresolved { .. } | Invalid::PayloadByte { .. });
            assert!(expected, "{at:#x}: {found}");
        }
    }
}

#[test]
fn every_fixup_is_needed_and_no_other_is_allowed() {
    let victim = Victim::build(&[]);
    for index in 0..victim.livepatch.fixups.len() {
        let mut missing = victim.clone();
        missing.livepatch.fixups.remove(index);
        assert!(matches!(missing.check(), Err(Invalid::Unresolved { .. })), "{index}: {:?}", missing.check());

        let mut doubled = victim.clone();
        doubled.livepatch.fixups.insert(index, victim.livepatch.fixups[index]);
        assert!(matches!(doubled.check(), Err(Invalid::StrayFixup { .. })));
    }
    for range in victim.claims.changed.iter().map(|p| p.new) {
        for at in range.start().raw()..range.end().raw() - 4 {
            let at = Va::new(at);
            if victim.livepatch.fixups.iter().any(|f| f.new_va == at) {
                continue;
            }
            let mut stray = victim.clone();
            let old_target = victim.old_at("helper").start();
            let kind = FixupKind::PcRel32 { new_next: Va::new(at.raw() + 4), old_target };
            stray.livepatch.fixups.push(Fixup { new_va: at, kind });
            stray.livepatch.fixups.sort_by_key(|f| f.new_va);
            assert!(stray.check().is_err(), "{at}");
        }
    }
}

#[test]
fn a_fixup_that_leads_elsewhere_is_found() {
    let victim = Victim::build(&[]);
    for index in 0..victim.livepatch.fixups.len() {
        for shift in [-16, -8, -4, -1, 1, 4, 8, 16, 0x1000] {
            let mut wrong = victim.clone();
            let FixupKind::PcRel32 { old_target, .. } = &mut wrong.livepatch.fixups[index].kind;
            *old_target = old_target.wrapping_offset(shift);
            assert!(
                matches!(wrong.check(), Err(Invalid::PayloadReference { .. })),
                "{index} {shift}: {:?}",
                wrong.check()
            );

            let FixupKind::PcRel32 { new_next, .. } = &mut wrong.livepatch.fixups[index].kind;
            *new_next = new_next.wrapping_offset(shift);
            assert!(matches!(wrong.check(), Err(Invalid::FixupNext { .. })));
        }
    }
}

#[test]
fn a_fixup_to_another_symbols_stub_slot_or_variable_is_found() {
    let victim = Victim::build(&[]);
    let targets: Vec<Va> = victim
        .livepatch
        .fixups
        .iter()
        .map(|f| {
            let FixupKind::PcRel32 { old_target, .. } = f.kind;
            old_target
        })
        .collect();
    for (index, own) in targets.iter().enumerate() {
        for other in targets.iter().filter(|t| *t != own) {
            let mut wrong = victim.clone();
            let FixupKind::PcRel32 { old_target, .. } = &mut wrong.livepatch.fixups[index].kind;
            *old_target = *other;
            assert!(matches!(wrong.check(), Err(Invalid::PayloadReference { .. })), "{own} to {other}");
        }
    }
}

#[test]
fn a_function_that_lost_its_claim_is_found() {
    let victim = Victim::build(&[]);
    for index in 0..victim.claims.same.len() {
        let mut wrong = victim.clone();
        wrong.claims.same.remove(index);
        assert!(wrong.check().is_err(), "{:?}", victim.claims.same[index]);
    }
    let mut dropped = victim.clone();
    dropped.claims.added.clear();
    assert!(matches!(dropped.check(), Err(Invalid::Unaccounted { side: Side::New, .. })));
    let mut dropped = victim.clone();
    dropped.claims.gone.clear();
    assert!(matches!(dropped.check(), Err(Invalid::Unaccounted { side: Side::Old, .. })));
}

/// The case that equal masked bytes hide: the same instructions, another variable.
#[test]
fn two_functions_with_equal_masked_bytes_cannot_be_swapped() {
    let mut victim = Victim::build(&[]);
    let (size, max) = ("get_pool_size", "get_pool_max_size");
    let (a, b) = (victim.old_at(size), victim.old_at(max));
    let (x, y) = (victim.new_at(size), victim.new_at(max));
    victim.claims.same.retain(|p| p.new != x && p.new != y);
    victim.claims.same.push(FunctionPair { old: b, new: x });
    victim.claims.same.push(FunctionPair { old: a, new: y });
    assert!(matches!(victim.check(), Err(Invalid::Reference { why: Mismatch::Elsewhere { .. }, .. })));
    // Nor with their variables swapped along, which have other contents.
    let (old_size, old_max) = (victim.old_at("pool_size").start(), victim.old_at("pool_max_size").start());
    for run in &mut victim.claims.data {
        if run.old == old_size {
            run.old = old_max;
        } else if run.old == old_max {
            run.old = old_size;
        }
    }
    assert!(victim.check().is_err());
}

#[test]
fn a_changed_function_claimed_to_be_the_same_or_noise_is_found() {
    let victim = Victim::build(&[]);
    for index in 0..victim.claims.noise.len() {
        let mut wrong = victim.clone();
        let noise = wrong.claims.noise.remove(index);
        wrong.claims.same.push(noise.pair);
        assert!(matches!(wrong.check(), Err(Invalid::Reference { .. } | Invalid::BytesDiffer { .. })));

        let mut wrong = victim.clone();
        let site = &mut wrong.claims.noise[index].sites[0];
        site.kind = if site.kind == NoiseKind::String { NoiseKind::Immediate } else { NoiseKind::String };
        assert!(matches!(wrong.check(), Err(Invalid::Reference { .. } | Invalid::BytesDiffer { .. })));

        let mut wrong = victim.clone();
        let site = &mut wrong.claims.noise[index].sites[0];
        site.new_at = site.new_at.wrapping_offset(1);
        let found = wrong.check();
        assert!(matches!(
            found,
            Err(Invalid::NoiseSite { .. } | Invalid::Reference { .. } | Invalid::BytesDiffer { .. })
        ));
        let mut wrong = victim.clone();
        let stray =
            NoiseSite { new_at: victim.claims.noise[index].pair.new.end(), ..wrong.claims.noise[index].sites[0] };
        wrong.claims.noise[index].sites.push(stray);
        assert!(matches!(wrong.check(), Err(Invalid::NoiseSite { .. })));
    }
    let mut wrong = victim.clone();
    let parse = wrong.claims.changed.iter().position(|p| p.new == victim.new_at("parse")).unwrap();
    let pair = wrong.claims.changed.remove(parse);
    wrong.claims.same.push(pair);
    assert!(wrong.check().is_err());
}

#[test]
fn a_run_of_data_that_is_shifted_stretched_or_missing_is_found() {
    let victim = Victim::build(&[]);
    for index in 0..victim.claims.data.len() {
        for shift in [-8_i64, -4, -1, 1, 4, 8] {
            let mut wrong = victim.clone();
            wrong.claims.data[index].old = wrong.claims.data[index].old.wrapping_offset(shift);
            assert!(wrong.check().is_err(), "{:?} by {shift}", victim.claims.data[index]);
        }
        let mut wrong = victim.clone();
        wrong.claims.data[index].len_bytes += 64;
        assert!(wrong.check().is_err(), "{:?}", victim.claims.data[index]);
        let mut wrong = victim.clone();
        wrong.claims.data.remove(index);
        assert!(wrong.check().is_err(), "{:?}", victim.claims.data[index]);
        let mut wrong = victim.clone();
        wrong.claims.data[index].len_bytes -= 1;
        // What is zero in both images and may be padding may be left out.
        let run = wrong.claims.data[index];
        let last = |bytes: &[u8], at: Va| bytes.get(file_offset(bytes, at.raw() + run.len_bytes)).copied();
        let zero = (last(&victim.old, run.old), last(&victim.new, run.new)) == (Some(0), Some(0));
        assert!(zero || wrong.check().is_err(), "{:?}", victim.claims.data[index]);
    }
}

#[test]
fn a_jump_table_that_leads_elsewhere_is_found_listed_or_not() {
    let victim = Victim::build(&[]);
    assert_eq!(victim.claims.jump_tables.len(), 1);
    let table = victim.claims.jump_tables[0];
    let mut unlisted = victim.clone();
    unlisted.claims.jump_tables.clear();
    assert!(matches!(unlisted.check(), Err(Invalid::DataDiffers { .. })));
    let mut short = victim.clone();
    short.claims.jump_tables[0].entries -= 1;
    assert!(matches!(short.check(), Err(Invalid::DataDiffers { .. })));
    let mut long = victim.clone();
    long.claims.jump_tables[0].entries += 1;
    assert!(matches!(long.check(), Err(Invalid::TableOutside { .. })));
    let mut owner = victim.clone();
    owner.claims.jump_tables[0].new_owner = victim.new_at("parse").start();
    assert!(matches!(owner.check(), Err(Invalid::TableOutside { .. })));
    // An entry of the old image that leads to another case.
    for entry in 0..u64::from(table.entries) {
        let mut wrong = victim.clone();
        let offset = file_offset(&wrong.old, table.old.raw() + entry * 4);
        wrong.old[offset] ^= 0x10;
        assert!(matches!(wrong.check(), Err(Invalid::TableEntry { .. })), "{entry}");
    }
    // Equal bytes at another distance lead elsewhere: listed in no claim, found by use.
    let mut equal = unlisted;
    let from = file_offset(&equal.new, table.new.raw());
    let to = file_offset(&equal.old, table.old.raw());
    let len = table.entries as usize * 4;
    let bytes = equal.new[from..from + len].to_vec();
    equal.old[to..to + len].copy_from_slice(&bytes);
    assert!(matches!(equal.check(), Err(Invalid::TableEntry { .. })), "{:?}", equal.check());
}

pub(super) fn file_offset(bytes: &[u8], va: u64) -> usize {
    use object::{Object as _, ObjectSegment as _};
    let file = object::File::parse(bytes).unwrap();
    let segment = file.segments().find(|s| (s.address()..s.address() + s.size()).contains(&va)).unwrap();
    (segment.file_range().0 + va - segment.address()) as usize
}

#[test]
fn any_changed_byte_of_old_code_that_stays_is_found() {
    let victim = Victim::build(&[]);
    for pair in &victim.claims.same {
        for at in pair.old.start().raw()..pair.old.end().raw() {
            let mut wrong = victim.clone();
            let offset = file_offset(&wrong.old, at);
            wrong.old[offset] ^= 1;
            assert!(wrong.check().is_err(), "{at:#x}");
        }
    }
}

#[test]
fn slots_that_are_bound_to_something_else_are_found() {
    let victim = Victim::build(&[]);
    // Exchange the symbols of two relocations, one pair at a time (r_info, psABI §4.4).
    let relocations = relocations(&victim.old);
    let info = |at: &usize| u64::from_le_bytes(victim.old[at + 8..at + 16].try_into().unwrap());
    let addend = |at: &usize| u64::from_le_bytes(victim.old[at + 16..at + 24].try_into().unwrap());
    let mut exchanged = 0;
    for a in &relocations {
        for b in relocations.iter().filter(|b| *b > a && info(b) & 0xff == info(a) & 0xff) {
            if (info(a), addend(a)) == (info(b), addend(b)) {
                continue;
            }
            let mut wrong = victim.clone();
            for field in 8..24 {
                wrong.old.swap(a + field, b + field);
            }
            exchanged += 1;
            assert!(wrong.check().is_err(), "{a:#x} {b:#x}");
        }
    }
    assert!(exchanged > 20);
}

/// File offsets of the entries of all relocation sections, but for those of slots
/// that no code of the victim reads.
fn relocations(bytes: &[u8]) -> Vec<usize> {
    use object::{Object as _, ObjectSection as _};
    let file = object::File::parse(bytes).unwrap();
    let sections = file.sections().filter(|s| s.name().is_ok_and(|n| n.starts_with(".rela.")));
    sections
        .flat_map(|s| s.file_range().into_iter().flat_map(|(at, len)| (at..at + len).step_by(24)))
        .map(|at| at as usize)
        .collect()
}

#[test]
fn what_may_be_held_after_a_revert_is_not_unmapped() {
    let victim = Victim::build(&[]);
    for policy in [RevertPolicy::Unmap, RevertPolicy::KeepMapped] {
        let mut wrong = victim.clone();
        wrong.livepatch.revert = policy;
        assert!(matches!(wrong.check(), Err(Invalid::Revert { .. })));
    }
}

/// What stands behind an address that the payload takes is the old function.
#[test]
fn the_address_of_a_changed_function_is_never_the_payloads() {
    let mut victim = Victim::build(&[]);
    // `parse` calls `bound` and takes its address; said to replace something, its own address is the old one.
    let bound = victim.new_at("bound");
    victim.claims.added.retain(|r| *r != bound);
    let gone = victim.claims.gone.remove(0);
    victim.claims.changed.push(FunctionPair { old: gone, new: bound });
    assert!(matches!(victim.check(), Err(Invalid::PointerIdentity { .. })), "{:?}", victim.check());
}

#[test]
fn initial_values_and_texts_may_differ_where_that_is_claimed() {
    let victim = Victim::build(&[]);
    let (old, new) = (victim.old_at("counter"), victim.new_at("counter"));
    let mut other = victim.clone();
    let at = file_offset(&other.old, old.start().raw());
    other.old[at] ^= 0x55;
    assert!(matches!(other.check(), Err(Invalid::DataDiffers { .. })));
    other.claims.kept.push(DataRun { new: new.start(), old: old.start(), len_bytes: 1 });
    other.check().unwrap();
    other.claims.kept[0].old = Va::new(old.start().raw() + 4);
    assert!(matches!(other.check(), Err(Invalid::KeptOutside { .. })));
    // Neither constants nor slots nor what the loader makes read-only can be kept.
    for name in ["weights", "hook", "names"] {
        let mut wrong = victim.clone();
        let (old, new) = (victim.old_at(name).start(), victim.new_at(name).start());
        wrong.claims.kept.push(DataRun { new, old, len_bytes: 8 });
        assert!(matches!(wrong.check(), Err(Invalid::KeptOutside { .. })), "{name}");
    }
    // `names[1]` points to another text.
    let slot = TextPair {
        new: Va::new(victim.new_at("names").start().raw() + 8),
        old: Va::new(victim.old_at("names").start().raw() + 8),
    };
    let mut other = victim.clone();
    for entry in relocations(&victim.old) {
        if u64::from_le_bytes(victim.old[entry..entry + 8].try_into().unwrap()) == slot.old.raw() {
            other.old[entry + 16] += 6;
        }
    }
    assert!(matches!(other.check(), Err(Invalid::Slot { .. })), "{:?}", other.check());
    other.claims.text_slots.push(slot);
    other.check().unwrap();
}

#[test]
fn texts_claimed_to_be_equal_have_to_be_texts() {
    let victim = Victim::build(&[]);
    // The first bytes of two tables, up to a zero.
    let (old, new) = (victim.old_at("weights").start(), victim.new_at("weights").start());
    for shift in 0..8 {
        let mut wrong = victim.clone();
        wrong.claims.texts.push(TextPair { new: new.wrapping_offset(shift), old: old.wrapping_offset(shift) });
        assert!(matches!(wrong.check(), Err(Invalid::DataDiffers { .. })), "{shift}");
    }
}

#[test]
fn truncated_and_corrupted_images_are_refused_without_panic() {
    let victim = Victim::build(&[]);
    for len in (0..victim.new.len()).step_by(97) {
        let mut wrong = victim.clone();
        wrong.new.truncate(len);
        let _ = wrong.check();
    }
    for at in (0..victim.new.len()).step_by(41) {
        for value in [0, 0x7f, 0xff] {
            let mut wrong = victim.clone();
            wrong.new[at] = value;
            let _ = wrong.check();
            let mut wrong = victim.clone();
            wrong.old[at.min(victim.old.len() - 1)] = value;
            let _ = wrong.check();
        }
    }
}

/// A jump may be longer than its function only where padding follows.
#[test]
fn a_detour_that_reaches_into_other_code_is_found() {
    let mut victim = Victim::build(&[]);
    let entry = victim.livepatch.detours[0].old_entry;
    let pair = victim.claims.changed.iter_mut().find(|p| p.old.start() == entry).expect("a changed pair");
    let (whole, short) = (pair.old, VaRange::new(entry, 4).expect("range"));
    pair.old = short;
    assert!(matches!(victim.check(), Err(Invalid::Unaccounted { side: Side::Old, .. })), "{:?}", victim.check());
    victim.claims.gone.push(VaRange::try_from((short.end(), whole.end())).expect("ordered"));
    assert!(matches!(victim.check(), Err(Invalid::DetourTooLong { .. })), "{:?}", victim.check());
}
