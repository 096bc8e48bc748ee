//! Proves a finished livepatch against both images. (The rules follow in the next commits.)
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod accounting;
mod correspond;
mod data;
mod decode;
mod detours;
mod encoding;
mod ends;
mod image;
mod index;
mod invalid;
mod loader;
mod lockstep;
mod marks;
mod payload;
mod unwind;

pub use invalid::{ImageFault, Invalid, Mismatch, Side};

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
    detours::check(&old, &mut index, &livepatch.detours)?;

    let covers = |a, b, len| index.run_at(b).is_some_and(|(_, there)| there == a) && index.covers(b, len);
    let tls_same = loader::tls_same(&old, &new, covers);
    let map =
        Correspondence { old: &old, new: &new, index, marks: Marks::new(&new), decoder: Decoder::new(), tls_same };
    let mut seen = Seen::default();
    check_staying(&map, &decoder, claims, &mut seen, &mut proof)?;
    (proof.references, proof.payload_bytes) = Payload::new(&map, &decoder, livepatch)?.check(&mut seen)?;
    OldCode { map: &map, decoder: &decoder, livepatch, claims }.check(&mut seen)?;

    let mut tables = claims.jump_tables.clone();
    tables.sort_unstable_by_key(|t| t.new);
    let data = Data { map: &map, tables: &tables, kept: &claims.kept };
    proof.data_bytes = data.check(&mut seen)?;
    let targets = ends::Targets::new(&map, &mut seen);
    data.check_used_tables(&seen, &targets.new)?;
    ends::check(&map, &targets)?;
    loader::check_exports(&map)?;
    loader::check_run_by_loader(&map)?;
    detours::check_reached(&map)?;
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
    let staying = index.pairs.iter().filter(|p| p.stays()).map(|p| p.new);
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
            Class::Changed => continue,
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
