//! The machine as the commands see it: processes, files on disk, packages, the
//! deriving process. Thin adapters of the edge crates, which turn their values
//! into the ones that planning works on.

pub(crate) mod debian;
pub(crate) mod deriver;
pub(crate) mod disk;
pub(crate) mod leave_list;
pub(crate) mod packages;
pub(crate) mod processes;
