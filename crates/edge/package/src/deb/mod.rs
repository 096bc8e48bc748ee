//! Reading a `.deb` (`deb(5)`): one pass, one file at a time, nothing unpacked
//! to disk, nothing held but the file at hand.
//!
//! An ar archive holds `debian-binary`, `control.tar` and `data.tar`, in that
//! order. Every size is bounded: of the package, of what it unpacks to, of each
//! file, of the decoder's memory; and the ratio of unpacked to packed. What
//! dpkg does not read (extended tar headers, unknown compressions) is refused,
//! so that what is read here is what dpkg would install.
//!
//! Reading stops no earlier than the end of `data.tar`: a package that is cut
//! off or damaged anywhere is an error, even after the last file of interest.

mod ar;
mod control;
mod elves;
mod error;
mod limits;
mod member;
mod path;
mod unpack;

pub use control::Control;
pub(crate) use control::MAINTAINER_SCRIPTS;
pub(crate) use control::is_name as is_package_name;
pub use elves::{ElfFile, Summary, elves};
pub use error::DebError;
pub use limits::Limits;
pub use member::{Contents, Kind, Member};

use ar::Archive;
use core::ops::ControlFlow;
use std::io::Read;

/// Called for every member of `data.tar`, in its order.
pub type OnMember<'v> = dyn FnMut(&Control, &Member, &mut Contents<'_>) -> Result<ControlFlow<()>, DebError> + 'v;

/// Reads the control file only.
pub fn control(deb: impl Read, limits: &Limits) -> Result<Control, DebError> {
    let mut archive = Archive::open(deb, limits)?;
    Ok(control::read(&mut archive, limits)?.0)
}

/// Reads a whole package and shows every member to `on_member`, which may read
/// its contents. `ControlFlow::Break` ends the reading there.
pub fn visit(deb: impl Read, limits: &Limits, on_member: &mut OnMember<'_>) -> Result<Control, DebError> {
    Ok(visit_all(deb, limits, on_member)?.0)
}

fn visit_all(
    deb: impl Read,
    limits: &Limits,
    on_member: &mut OnMember<'_>,
) -> Result<(Control, control::Extras), DebError> {
    let mut archive = Archive::open(deb, limits)?;
    let (control, extras) = control::read(&mut archive, limits)?;
    let packed = archive.find("data.tar")?;
    let (name, compression) = (packed.name.clone(), packed.compression()?);
    let unpacked = unpack::Unpacked::new(packed, compression, limits.max_unpacked_bytes, limits);
    member::visit(unpacked, &name, limits, &mut |member, contents| on_member(&control, member, contents))?;
    Ok((control, extras))
}
