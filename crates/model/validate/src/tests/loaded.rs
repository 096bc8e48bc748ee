//! Images that are the same to whoever runs them.

use super::victim::Victim;
use crate::loads_the_same;

#[test]
fn what_nobody_loads_may_differ_and_nothing_else() {
    let victim = Victim::build(&[]);
    let old = victim.old.clone();
    let changed = |at: usize| {
        let mut new = old.clone();
        new[at] ^= 1;
        loads_the_same(&old, &new)
    };
    assert!(loads_the_same(&old, &old));
    // Section headers, at the end, and where they are.
    assert!(changed(old.len() - 8) && changed(0x28));
    // The entry point, where a segment is mapped, and what is in the first one.
    assert!(!changed(0x18) && !changed(0x40 + 56 + 16) && !changed(0x300));
    // The build id, behind `GNU`; but not what kind of note it is, nor its length.
    let id = old.windows(8).position(|bytes| bytes == b"\x03\0\0\0GNU\0").unwrap();
    assert!(changed(id + 8) && changed(id + 27) && !changed(id) && !changed(id - 4) && !changed(id + 28));
    assert!(!loads_the_same(&old, &victim.new));
    assert!(!loads_the_same(&old, &old[..0x200]) && !loads_the_same(b"", b""));
}
