//! What a derivation wants of a package: its ELF files and its changelog.

use super::{Control, DebError, Kind, Limits, Member, visit_all};
use crate::contents::{Contents as PackageContents, Listed, Sums, What};
use core::ops::ControlFlow;
use std::collections::BTreeMap;
use std::io::Read;

/// One ELF file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfFile {
    pub path: String,
    pub mode: u32,
    pub bytes: Vec<u8>,
}

/// What one pass over a package found besides its ELF files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub control: Control,
    /// The Debian changelog, where the package has it as a readable file.
    pub changelog: Option<String>,
    /// Symbolic links and hard links: from path to target as in [`Kind`].
    pub links: BTreeMap<String, Kind>,
    pub files: u64,
    /// Every file, ELF or not, with what tells one content from another.
    pub contents: crate::contents::Contents,
}

impl Summary {
    /// CVE ids named between `old` and this package; see [`crate::changelog::cves_between`].
    pub fn cves_since(&self, old: &crate::Version) -> salve_patch::Cves {
        let changelog = self.changelog.as_deref();
        changelog
            .map_or(salve_patch::Cves::Unknown, |text| crate::changelog::cves_between(text, old, &self.control.version))
    }
}

/// One pass over a package. Every regular file that starts like an ELF file is
/// handed over as it comes by, and is then the caller's; nothing else is held.
pub fn elves(
    deb: impl Read,
    limits: &Limits,
    on_elf: &mut dyn FnMut(&Control, ElfFile) -> ControlFlow<()>,
) -> Result<Summary, DebError> {
    let (mut native, mut debian) = (None, None);
    let mut links = BTreeMap::new();
    let mut files = 0_u64;
    let mut listed = PackageContents::default();
    let (control, extras) = visit_all(deb, limits, &mut |control, member, contents| {
        match &member.kind {
            Kind::File => files = files.saturating_add(1),
            Kind::Symlink { .. } | Kind::HardLink { .. } => {
                add_link(&mut listed, member);
                links.insert(member.path.clone(), member.kind.clone());
                return Ok(ControlFlow::Continue(()));
            }
            Kind::Directory | Kind::Special => return Ok(ControlFlow::Continue(())),
        }
        let permissions = Some((member.mode, member.uid, member.gid));
        if let Some(name) = changelog_name(control, member) {
            let packed = contents.read()?;
            let mut sums = Sums::default();
            sums.update(&packed);
            listed.add(&*member.path, sums.listed(What::File, permissions));
            let text = gunzip(&packed, limits.max_changelog_bytes);
            *(if name == "changelog.gz" { &mut native } else { &mut debian }) = text;
        } else if contents.is_elf()? {
            let bytes = contents.read()?;
            listed.add(&*member.path, Listed { permissions, ..Listed::of_md5(What::Elf, None, false) });
            let file = ElfFile { path: member.path.clone(), mode: member.mode, bytes };
            return Ok(on_elf(control, file));
        } else {
            listed.add(&*member.path, contents.sums()?.listed(What::File, permissions));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    listed.mark_conffiles(extras.conffiles.iter().map(String::as_str));
    extras.scripts.into_iter().for_each(|(name, script)| listed.add(name, script));
    Ok(Summary { control, changelog: debian.or(native), links, files, contents: listed })
}

/// A hard link is another name of a file that came before it.
fn add_link(listed: &mut PackageContents, member: &Member) {
    match &member.kind {
        Kind::Symlink { target } => listed.add(&*member.path, Listed::link(target)),
        Kind::HardLink { target } => listed.add_again(&member.path, target),
        Kind::File | Kind::Directory | Kind::Special => {}
    }
}

/// Debian Policy §12.7: `changelog.Debian.gz`; `changelog.gz` is the upstream
/// one, but for native packages. A rebuild's own entry stands in
/// `changelog.Debian.<arch>.gz` and names no CVE.
fn changelog_name<'m>(control: &Control, member: &'m Member) -> Option<&'m str> {
    let rest = member.path.strip_prefix("/usr/share/doc/")?.strip_prefix(&control.id.name)?.strip_prefix('/')?;
    matches!(rest, "changelog.gz" | "changelog.Debian.gz").then_some(rest)
}

/// `None` for one that is damaged, too long or no text: then nothing is known.
fn gunzip(packed: &[u8], max_bytes: u64) -> Option<String> {
    let mut text = Vec::new();
    let mut unpacked = flate2::bufread::MultiGzDecoder::new(packed).take(max_bytes.saturating_add(1));
    unpacked.read_to_end(&mut text).ok()?;
    if text.len() as u64 > max_bytes {
        return None;
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}
