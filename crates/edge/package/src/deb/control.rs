//! The control file of a package (`deb-control(5)`).

use super::ar::Archive;
use super::unpack::Unpacked;
use super::{DebError, Kind, Limits, member};
use crate::Version;
use crate::contents::{Listed, What};
use crate::stanza::{Stanza, stanzas};
use core::ops::ControlFlow;
use salve_patch::PackageId;
use std::io::Read;

/// A control file is some kilobytes; this is generous.
const MAX_CONTROL_FILE_BYTES: u64 = 4 << 20;

/// What a package says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub id: PackageId,
    pub version: Version,
    /// The source's version, where it differs from the package's (a rebuild).
    pub source_version: Version,
    pub multi_arch: Option<String>,
    /// An `Essential` or `Protected` package.
    pub essential: bool,
}

/// What `control.tar` has besides the control file.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Paths that the administrator owns (`deb-conffiles(5)`).
    pub(super) conffiles: Vec<String>,
    /// Maintainer scripts, by name.
    pub(super) scripts: Vec<(String, Listed)>,
}

/// `deb-preinst(5)` and so on; `config` is debconf's.
pub(crate) const MAINTAINER_SCRIPTS: [&str; 5] = ["preinst", "postinst", "prerm", "postrm", "config"];

/// Reads `control.tar`, the next member of the archive.
pub(super) fn read<R: Read>(archive: &mut Archive<R>, limits: &Limits) -> Result<(Control, Extras), DebError> {
    let packed = archive.find("control.tar")?;
    let (name, compression) = (packed.name.clone(), packed.compression()?);
    let unpacked = Unpacked::new(packed, compression, limits.max_control_bytes, limits);
    let mut found = None;
    let mut extras = Extras::default();
    let file_limits = Limits { max_file_bytes: MAX_CONTROL_FILE_BYTES, ..*limits };
    member::visit(unpacked, &name, &file_limits, &mut |member, contents| {
        let name = member.path.trim_start_matches('/');
        match name {
            _not_a_file if member.kind != Kind::File => {}
            "control" => found = Some(contents.read()?),
            "conffiles" => extras.conffiles = conffiles(&String::from_utf8_lossy(&contents.read()?)),
            script if MAINTAINER_SCRIPTS.contains(&script) => {
                extras.scripts.push((script.to_owned(), contents.sums()?.listed(What::MaintainerScript, None)));
            }
            _not_asked_for => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let bytes = found.ok_or(DebError::Missing { what: "control file" })?;
    let text = core::str::from_utf8(&bytes).map_err(|_| DebError::NotUtf8)?;
    let mut all = stanzas(text);
    let stanza = all.next().ok_or(DebError::Missing { what: "control file" })??;
    Ok((Control::from_stanza(&stanza)?, extras))
}

/// One path a line, a flag before it for those that are to be removed.
fn conffiles(text: &str) -> Vec<String> {
    let path = |line: &str| line.trim().trim_start_matches("remove-on-upgrade ").to_owned();
    text.lines().map(path).filter(|path| path.starts_with('/')).collect()
}

impl Control {
    /// The fields that name a package, from its own control file or from a
    /// database that repeats it.
    pub(crate) fn from_stanza(stanza: &Stanza<'_>) -> Result<Self, DebError> {
        let field = |field| stanza.get(field).filter(|value| !value.is_empty());
        let name = field("Package").filter(|name| is_name(name)).ok_or(DebError::Field { field: "Package" })?;
        let version = field("Version").ok_or(DebError::Field { field: "Version" })?;
        let version = Version::parse(version).map_err(|_| DebError::Field { field: "Version" })?;
        let architecture = field("Architecture").filter(|arch| is_name(arch));
        let architecture = architecture.ok_or(DebError::Field { field: "Architecture" })?;
        let (source, source_version) = match field("Source") {
            None => (name, version.clone()),
            Some(text) => split_source(text, &version).ok_or(DebError::Field { field: "Source" })?,
        };
        let yes = |name| field(name).is_some_and(|value| value == "yes");
        Ok(Self {
            id: PackageId {
                name: name.to_owned(),
                source: source.to_owned(),
                version: version.as_str().to_owned(),
                architecture: architecture.to_owned(),
            },
            version,
            source_version,
            multi_arch: field("Multi-Arch").map(str::to_owned),
            essential: yes("Essential") || yes("Protected") || yes("Important"),
        })
    }
}

/// `name` or `name (version)`.
fn split_source<'t>(text: &'t str, version: &Version) -> Option<(&'t str, Version)> {
    let (name, source_version) = match text.split_once(' ') {
        None => (text, version.clone()),
        Some((name, rest)) => {
            let rest = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
            (name, Version::parse(rest).ok()?)
        }
    };
    is_name(name).then_some((name, source_version))
}

/// Debian Policy §5.6.7, and dpkg's leave to use upper case.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    text.len() >= 2 && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) && text.bytes().all(plain)
}
