//! Choosing a place for every payload that has to be delivered.

use super::plan::Planned;
use crate::deliver::{Piece, pieces};
use crate::outcome::NotApplied;
use crate::patcher::{ApplyError, Patcher, PrepareError, Prepared};
use crate::payload::{BuildError, Payload};
use crate::remote::Target;
use crate::room::{Taken, distances};
use crate::scene::End;
use salve_elf::LoadBias;
use std::sync::Arc;

/// A payload and its place.
pub(super) struct Chosen {
    /// Index of what was planned.
    pub(super) planned: usize,
    pub(super) prepared: Arc<Prepared>,
    pub(super) old: LoadBias,
    pub(super) pieces: Vec<Piece>,
}

/// The places that are still to be tried.
pub(super) struct Places<'a> {
    patcher: &'a Patcher,
    target: &'a Target<'a>,
    /// What has to be delivered, and how many places did not do.
    wanted: Vec<(usize, &'a Planned<'a>, usize)>,
}

impl<'a> Places<'a> {
    pub(super) fn new(
        patcher: &'a Patcher,
        target: &'a Target<'a>,
        planned: &'a [Planned<'a>],
        adopted: &[Option<Payload>],
    ) -> Self {
        let wanted = planned.iter().zip(adopted).enumerate().filter(|(_, (_, adopted))| adopted.is_none());
        let wanted = wanted.map(|(index, (one, _))| (index, one, 0)).collect();
        Self { patcher, target, wanted }
    }

    /// The place of the `parcel`-th was taken meanwhile; or of something else, which
    /// the next try shows.
    pub(super) fn skip(&mut self, parcel: usize) {
        if let Some((_, _, skip)) = self.wanted.get_mut(parcel) {
            *skip = skip.saturating_add(1);
        }
    }

    /// The best place for each that is left.
    pub(super) fn choose(&self) -> Result<Vec<Chosen>, End> {
        if self.wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mappings = self.target.process.mappings(self.patcher.limits())?;
        let mut taken = Taken::of(self.target.process, &mappings)?;
        let mut all = Vec::new();
        for (index, one, skip) in &self.wanted {
            let chosen = self.place(*index, one, *skip, &taken)?;
            for piece in &chosen.pieces {
                taken.add(piece.at.raw(), piece.at.raw().saturating_add(piece.len_bytes));
            }
            all.push(chosen);
        }
        Ok(all)
    }

    fn place(&self, planned: usize, one: &Planned<'_>, skip: usize, taken: &Taken) -> Result<Chosen, End> {
        let path = || one.change.image.path.clone();
        let bad = |why: &str| End::Not(NotApplied::BadLivepatch { path: path(), why: why.to_owned() });
        for distance in distances(one.livepatch, one.old, taken).into_iter().skip(skip) {
            let prepared = match self.patcher.prepare(one.change, distance, &one.imports) {
                Ok(prepared) => prepared,
                Err(PrepareError::Build(BuildError::Place(_))) => continue,
                Err(PrepareError::Build(BuildError::Encode(error))) => {
                    return Err(End::Error(ApplyError::Encode(error)));
                }
                Err(PrepareError::Build(BuildError::NoLivepatch | BuildError::Layout)) => {
                    return Err(bad("it cannot be laid out"));
                }
                Err(PrepareError::File(error)) => return Err(End::Error(ApplyError::Payload(error))),
            };
            let pieces = pieces(&prepared.payload, one.old).ok_or_else(|| bad("its segments have no place"))?;
            return Ok(Chosen { planned, prepared, old: one.old, pieces });
        }
        Err(NotApplied::NoRoom { path: path() }.into())
    }
}
