//! One livepatch: its parts agree with each other.

use super::{Fault, detours, functions, is_name, payload};
use crate::{Livepatch, Requirement, words};

impl Livepatch {
    /// Whether its parts agree with each other, as a patch file demands of each
    /// livepatch it holds. Asked before one is put into a file with others, so that
    /// a bad one is refused alone.
    pub fn check(&self) -> Result<(), Fault> {
        if self.segments.is_empty() || self.detours.is_empty() && self.words.is_empty() {
            return Err(Fault::Nothing);
        }
        payload::segments(&self.segments)?;
        payload::fixups(&self.fixups, &self.segments)?;
        payload::imports(self)?;
        payload::pointers(self)?;
        functions::check(&self.replaced, &self.segments)?;
        detours::check(&self.detours, &self.replaced)?;
        words::check(self)?;
        self.unwind.check(&self.segments)?;
        self.requirements.iter().try_for_each(requirement)
    }
}

fn requirement(requirement: &Requirement) -> Result<(), Fault> {
    let Requirement::DependencyConstant { soname, symbol, mask, .. } = requirement;
    if !is_name(soname) || !is_name(symbol) {
        return Err(Fault::Name { what: "library or symbol of a requirement" });
    }
    if *mask == 0 { Err(Fault::RequirementEmpty { symbol: symbol.clone() }) } else { Ok(()) }
}
