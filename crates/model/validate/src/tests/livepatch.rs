//! Detours, segments and the list of replaced functions, made wrong one at a time.

use super::mutations::file_offset;
use super::victim::Victim;
use crate::Invalid;
use salve_elf::{Va, VaRange};
use salve_patch::{Access, Segment};

#[test]
fn a_detour_that_is_wrong_in_any_way_is_found() {
    let victim = Victim::build(&[]);
    let main = victim.livepatch.detours.iter().position(|d| d.old_entry == victim.old_at("parse").start()).unwrap();
    let changed = |change: &dyn Fn(&mut Victim)| {
        let mut wrong = victim.clone();
        change(&mut wrong);
        wrong.check().unwrap_err()
    };
    let found = changed(&|v| v.livepatch.detours[main].expected[2] ^= 1);
    assert!(matches!(found, Invalid::DetourExpected { .. }));
    let found = changed(&|v| v.livepatch.detours[main].expected.truncate(4));
    assert!(matches!(found, Invalid::DetourExpected { .. }));
    let found = changed(&|v| v.livepatch.detours[main].new_target = v.new_at("bound").start());
    assert!(matches!(found, Invalid::DetourTarget { .. }));
    let found = changed(&|v| v.livepatch.detours[main].old_entry = v.old_at("caller").start());
    assert!(matches!(found, Invalid::DetourUnclaimed { .. }));
    let found = changed(&|v| v.livepatch.detours[main].old_va = Va::new(v.old_at("parse").start().raw() + 4));
    assert!(matches!(found, Invalid::DetourPlace { .. }));
    let found = changed(&|v| drop(v.livepatch.detours.remove(main)));
    assert!(matches!(found, Invalid::DetourMissing { .. }));
    let found = changed(&|v| {
        let doubled = v.livepatch.detours[main].clone();
        v.livepatch.detours.insert(main, doubled);
    });
    assert!(matches!(found, Invalid::DetourOrder { .. }));
}

#[test]
fn code_that_leads_into_the_overwritten_bytes_is_found() {
    let victim = Victim::build(&[]);
    let parse = victim.old_at("parse");
    // A short jump to the entry's third byte, from old code that does not stay.
    let gone = victim.claims.gone[0];
    for (from, target) in [(parse, parse.start().raw() + 2), (gone, parse.start().raw() + 1)] {
        let mut wrong = victim.clone();
        let at = from.end().raw() - 5;
        let distance = (target as i64 - (at as i64 + 5)) as i32;
        let offset = file_offset(&wrong.old, at);
        wrong.old[offset] = 0xe9;
        wrong.old[offset + 1..offset + 5].copy_from_slice(&distance.to_le_bytes());
        let found = wrong.check();
        assert!(
            matches!(
                found,
                Err(Invalid::DetourEntered { .. } | Invalid::Undecodable { .. } | Invalid::Straddles { .. })
            ),
            "{found:?}"
        );
    }
}

#[test]
fn segments_and_their_rights_are_checked() {
    let victim = Victim::build(&[]);
    for index in 0..victim.livepatch.segments.len() {
        let mut wrong = victim.clone();
        let access = &mut wrong.livepatch.segments[index].access;
        *access = if *access == Access::Read { Access::ReadExecute } else { Access::Read };
        let found = wrong.check().unwrap_err();
        assert!(matches!(
            found,
            Invalid::SegmentAccess { .. } | Invalid::NotCarried { .. } | Invalid::PayloadByte { .. }
        ));

        let mut wrong = victim.clone();
        wrong.livepatch.segments.remove(index);
        assert!(wrong.check().is_err());

        let mut wrong = victim.clone();
        let doubled = wrong.livepatch.segments[index].clone();
        wrong.livepatch.segments.insert(index, doubled);
        assert!(matches!(wrong.check(), Err(Invalid::SegmentShape { .. })));

        let mut wrong = victim.clone();
        wrong.livepatch.segments[index].bytes.truncate(4095);
        assert!(wrong.check().is_err());
    }
    // Writable data of the new image has no place in a payload.
    let mut wrong = victim.clone();
    let data = wrong.new_at("counter").start().page_floor(4096);
    let offset = file_offset(&wrong.new, victim.new_at("counter").start().raw()) & !4095;
    let bytes = wrong.new[offset..].iter().copied().chain(std::iter::repeat(0)).take(4096).collect();
    wrong.livepatch.segments.push(Segment { new_va: data, access: Access::Read, bytes });
    assert!(matches!(wrong.check(), Err(Invalid::PayloadByte { .. })));
}

#[test]
fn the_list_of_replaced_functions_is_exact() {
    let victim = Victim::build(&[]);
    let extra = victim.new_at("helper");
    let old_extra = victim.old_at("helper");
    for (old, change) in [(true, Some(old_extra)), (false, Some(extra)), (true, None), (false, None)] {
        let mut wrong = victim.clone();
        let replaced = &mut wrong.livepatch.replaced[0];
        let list = if old { &mut replaced.old_ranges } else { &mut replaced.new_ranges };
        match change {
            Some(extra) => list.push(extra),
            None => drop(list.pop()),
        }
        assert!(matches!(wrong.check(), Err(Invalid::Replaced { .. })), "{old} {change:?}");
    }
    let mut wrong = victim;
    let range = &mut wrong.livepatch.replaced[0].new_ranges[0];
    *range = VaRange::new(range.start(), range.len_bytes() - 1).unwrap();
    assert!(matches!(wrong.check(), Err(Invalid::Replaced { .. })));
}
