//! Proves a finished livepatch against both images, or says what is wrong with it.
//!
//! Purpose: the last word before a patch is written. The matcher searches and the
//! composer builds; both may be wrong. This crate shares no search, no heuristic, no
//! image type and no decoder with them (yaxpeax-x86 instead of iced-x86, its own
//! reading of ELF): [`validate`] takes the bytes of both images, the livepatch, and
//! the matcher's [`Claims`], and checks each claim on its own.
//!
//! Method: the claims are a bisimulation written down. A pair of functions is proven
//! by reading it side by side: equal bytes but for references, and every reference
//! leading to places of which it is *claimed* that they are the same, each of which
//! is proven in turn. No claim is believed because another one is, and equal bytes
//! are no proof. The payload is then placed at two distances from the old image and
//! read where it would run: every reference of every function it carries leads to
//! the same thing as in the new image. Unknown means [`Invalid`]: an instruction, a
//! relocation, a section, a reference that is not understood. One pass over each
//! text, sorted arrays, no I/O.
//!
//! # What claims have to look like
//!
//! * **All code is claimed.** Every byte of every executable section, but `.plt*` and
//!   padding (no-operations, `int3`, zeros *between* claimed ranges), lies in exactly
//!   one range: of `same`, `noise`, `changed`, `unreached` or `added` on the new side, of
//!   `same`, `noise`, `changed`, `unreached` or `gone` on the old. Ranges never overlap.
//! * **Code without frame description** (`_init`, `_fini`, `_start`'s neighbours from
//!   the C run-time, hand-written code) is claimed in `same` like any function: one
//!   range for a stretch that lies between others will do, if all of it decodes.
//!   Padding at its start has to be left out, at its end it may be kept.
//! * **Tables inside code** (OpenSSL) are claimed as `data` runs in the executable
//!   section. No frame description may cover them, and nothing may jump there.
//! * **A range starts with an instruction.** The frame of a signal trampoline starts
//!   one byte early (`__restore_rt`): claim it from the second byte.
//! * **Parts** (`.cold`) are pairs of their own: in `same` or `noise` if the part
//!   stays, in `changed` or `added` (and `gone`) if it is carried. A `changed` pair
//!   needs a detour unless only carried code reaches it; `reached` is any reference
//!   from code that stays, any slot of the old image that points to its entry (in a
//!   run or not), any export, and any fix-up.
//! * **Roles.** That the two functions of a `changed` pair with a detour are versions of
//!   one is shown by code that stays, a slot in a run, an export, the entry point, a
//!   name in `.symtab`, or a listed *taking*: two instructions of a `changed` pair that
//!   take both addresses, in straight code (from the branch or call before to the one
//!   behind) that is equal and in which every reference corresponds.
//! * **Unreached** functions differ, are in no payload, and nothing leads to them.
//! * **References between functions** correspond at equal offsets inside `same` and
//!   `noise` pairs, at entries only of `changed` pairs. A function that runs on past
//!   its end has to run on into the same thing.
//! * **Stubs and loader slots** (`.plt*`, `.got*`) are not claimed: a stub is known by
//!   the slot it jumps through, a slot by its relocation (kind, symbol, version,
//!   addend; for `RELATIVE` ones, what they point to).
//! * **Data runs** lie in sections of the same name, type and flags and overlap on
//!   neither side. Bytes are equal but in relocated slots, which hold the same thing,
//!   and in listed jump tables. A run covers all that an instruction accesses.
//!   Contiguous runs of one delta count as one. `.bss` needs runs like any other.
//! * **Ends of runs.** Where a run is not continued by the next one, no object may go
//!   on: on both sides the section ends, something refers to exactly that place, a
//!   dynamic symbol starts or ends there, a referenced text's NUL precedes it, or only
//!   alignment padding (zeros, less than 64 bytes) separates it from such a place.
//!   Runs may be extended over equal padding, or stop before it.
//! * **Past the end.** An address that lies in no run is accepted only if it is taken,
//!   not read, and is the end of sections of the same name in both images (as it is or
//!   aligned up to 8, 16 or 32), outside any other section in at least one of them; the
//!   start of `.dynamic`, `.eh_frame` or `.eh_frame_hdr`; or the start of the image. One
//!   past the end of a run is otherwise refused: a changed object may begin there.
//! * **Initial contents** of writable data may differ in the parts listed in `kept`:
//!   inside runs, not relocated, not read-only after relocation. A slot that points to
//!   another text is listed in `text_slots`; a run may cover it or leave it out.
//! * **Merged texts** that no run can hold go into `texts`.
//! * **Jump tables** are listed if their bytes differ. Those that are not are found by
//!   their use and have to lead to the same places all the same. Constants of the payload
//!   that count from themselves may not lead to functions that it lacks.
//! * **Constructors and destructors**: `.init_array` and `.fini_array` are covered by
//!   runs wholly, on both sides.
//! * **Noise** keeps the function's length. `String`: the reference of that instruction
//!   leads to NUL-terminated constants on both sides. `Immediate`: only the immediate
//!   differs. That the difference *is* noise is the verdict's business, not proven here.
//!
//! # What a livepatch has to look like
//!
//! * Carried functions lie in `r-x` segments, byte for byte the new image's but for
//!   fix-ups; so may literals beside them. All else there is `int3` or zero, and every
//!   page has code.
//! * Constants lie in whichever segment has their page. Of a section to which the
//!   payload refers **every byte** is there; of any other section, all that lies in
//!   the segment or nothing (zeros). Writable sections and slots never are.
//! * The same goes for tables of pointers (`.data.rel.ro`), into which then no instruction
//!   of either image writes: `pointers` and `imports` have each word that the loader fills
//!   with an address, and nothing else. The revert is not `Unmap`.
//! * The end of a section of constants, taken as an address, is the end of the payload's
//!   copy, also where the unwinder's tables begin there; it has no fix-up.
//! * Exactly the references that leave the payload have a fix-up. The address of a
//!   `changed` function is taken from the old image, so that pointers stay equal.
//! * `imports`: slots of the new image that the loader fills with the stated symbol,
//!   defined elsewhere and not weak; empty in `r--` payload, each of them in use. Of a
//!   stub that goes through one, the payload has the jump, byte for byte.
//! * `replaced`: the new ranges are exactly the carried functions; the old ranges are
//!   all of `changed`, every `gone` part that a replaced function jumps to, and at most
//!   others of `gone`.
//! * `revert` is `Refuse` if the address of an `added` function is taken, and not
//!   `Unmap` if that of a constant of the payload is (tables of jumps aside).
//!
//! # What is not proven
//!
//! Where two files cannot tell, nothing is claimed: what a word of data *means* (a
//! distance in data other than a jump table; an address in a fixed image's data that is
//! not an aligned word), where an object ends that is referred to in its middle only,
//! what escapes into memory. `docs/adr/0050` gives the reasons.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod accounting;
mod brought;
mod correspond;
mod data;
mod decode;
mod detours;
mod encoding;
mod ends;
mod image;
mod imports;
mod index;
mod invalid;
mod loaded;
mod loader;
mod lockstep;
mod marks;
mod payload;
mod roles;
mod segments;
#[cfg(test)]
mod tests;
mod unwind;
mod words;

pub use invalid::{ImageFault, Invalid, Mismatch, Side};
pub use loaded::loads_the_same;

use accounting::check as check_accounting;
use correspond::Correspondence;
use data::Data;
use decode::Decoder;
use detours::OldCode;
use image::Image;
use index::{Class, Index};
use lockstep::{Lockstep, Seen};
use marks::Marks;
use payload::Payload;
use salve_elf::VaRange;
use salve_patch::{Claims, Livepatch, ReferenceCounts};
use unwind::Unwind;
use words::Words;

/// What was proven, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Functions (and code without unwind information) proven to be the same.
    pub same: u64,
    /// Functions proven to be the same but for the claimed sites.
    pub noise: u64,
    /// Functions carried by the payload.
    pub carried: u64,
    /// References of functions left alone.
    pub references_left_alone: u64,
    /// References of carried functions, by where they lead.
    pub references: ReferenceCounts,
    /// Bytes of executable sections accounted for.
    pub old_code_bytes: u64,
    pub new_code_bytes: u64,
    /// Bytes of data proven to be the same.
    pub data_bytes: u64,
    /// Bytes of the payload compared with the new image.
    pub payload_bytes: u64,
}

/// Proves that `livepatch` turns `old` into something that means what `new`
/// means, given `claims`.
pub fn validate(old: &[u8], new: &[u8], livepatch: &Livepatch, claims: &Claims) -> Result<Proof, Invalid> {
    let old = Image::parse(old).map_err(|fault| Invalid::Image { side: Side::Old, fault })?;
    let new = Image::parse(new).map_err(|fault| Invalid::Image { side: Side::New, fault })?;
    if old.fixed != new.fixed {
        return Err(Invalid::KindsDiffer);
    }
    let decoder = Decoder::new();
    let mut proof = Proof::default();
    let mut index = Index::new(&old, &new, claims)?;
    account(&old, &new, &decoder, claims, &index, &mut proof)?;
    detours::check(&old, &mut index, claims, &livepatch.detours)?;

    let words = Words::new((&old, &new), &index, livepatch)?;
    let covers = |a, b, len| index.run_at(b).is_some_and(|(_, there)| there == a) && index.covers(b, len);
    let tls_same = loader::tls_same(&old, &new, covers);
    let map =
        Correspondence { old: &old, new: &new, index, marks: Marks::new(&new), decoder: Decoder::new(), tls_same };
    let mut seen = Seen::default();
    check_staying(&map, &decoder, claims, &mut seen, &mut proof)?;
    // What the payload itself refers to says nothing about roles.
    let by_staying = roles::reached(&map);
    (proof.references, proof.payload_bytes) = Payload::new(&map, &decoder, livepatch)?.check(&mut seen)?;
    if seen.brought || !livepatch.words.is_empty() {
        brought::check_never_written(&map, &decoder, &claims.gone)?;
    }
    let by_payload = roles::reached(&map);
    let old_code = OldCode { map: &map, decoder: &decoder, livepatch, claims };
    old_code.check(&mut seen)?;

    let mut tables = claims.jump_tables.clone();
    tables.sort_unstable_by_key(|t| t.new);
    let (mut text_slots, mut kept) = (claims.text_slots.clone(), claims.kept.clone());
    text_slots.sort_unstable();
    kept.sort_unstable();
    words::check_readers(&map, &decoder, livepatch, &claims.gone)?;
    let data = Data { map: &map, tables: &tables, kept: &kept, text_slots: &text_slots, words: &words };
    proof.data_bytes = data.check(&mut seen)?;
    let targets = ends::Targets::new(&map, &mut seen);
    data.check_used_tables(&seen, &targets.new)?;
    old_code.check_tables(&seen.old_tables, &targets.old)?;
    ends::check(&map, &targets)?;
    loader::check_exports(&map)?;
    loader::check_run_by_loader(&map)?;
    roles::check(&map, &decoder, claims, &by_staying)?;
    roles::restore(&map, [&by_staying, &by_payload]);
    detours::check_reached(&map)?;
    roles::check_unreached(&map)?;
    // Last, when everything has said where it leads.
    match map.marks.dangling(&new) {
        Some(target) => Err(Invalid::NotAnInstruction { side: Side::New, target }),
        None => Ok(proof),
    }
}

/// Every byte of code of both images has its place in the claims.
fn account(
    old: &Image<'_>,
    new: &Image<'_>,
    decoder: &Decoder,
    claims: &Claims,
    index: &Index,
    proof: &mut Proof,
) -> Result<(), Invalid> {
    let old_data = index.runs.iter().filter_map(|r| VaRange::new(r.old, r.len_bytes));
    let old_code = index.pairs.iter().map(|p| p.old).chain(claims.gone.iter().copied());
    proof.old_code_bytes = check_accounting(old, Side::Old, decoder, old_code, old_data)?;
    let new_data = index.runs.iter().filter_map(|r| VaRange::new(r.new, r.len_bytes));
    let staying = index.pairs.iter().filter(|p| p.class != Class::Changed).map(|p| p.new);
    let new_code = staying.chain(index.carried.iter().copied());
    proof.new_code_bytes = check_accounting(new, Side::New, decoder, new_code, new_data)?;
    proof.carried = u64::try_from(index.carried.len()).unwrap_or(u64::MAX);
    Ok(())
}

/// Every function that is left alone means in the new image what it means in the old one.
fn check_staying(
    map: &Correspondence<'_>,
    decoder: &Decoder,
    claims: &Claims,
    seen: &mut Seen,
    proof: &mut Proof,
) -> Result<(), Invalid> {
    let mut unwind = Unwind::new(map);
    for pair in &map.index.pairs {
        let sites = match pair.class {
            Class::Changed | Class::Unreached => continue,
            Class::Same => &[][..],
            Class::Noise(index) => claims.noise.get(index).map_or(&[][..], |noise| &noise.sites),
        };
        let mut lockstep = Lockstep { map, decoder, seen: &mut *seen };
        lockstep.check(pair, sites)?;
        unwind.check(pair)?;
        let counter = if matches!(pair.class, Class::Same) { &mut proof.same } else { &mut proof.noise };
        *counter = counter.saturating_add(1);
    }
    proof.references_left_alone = seen.references;
    Ok(())
}
