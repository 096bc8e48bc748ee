//! What an installed package consists of, as the database remembers it.

use super::database::{MAX_FILE_BYTES, parse_md5};
use super::owners::info_paths;
use super::{Database, DpkgError, Installed};
use crate::contents::{Contents, Listed, MAX_LISTED, Sums, What};
use crate::deb::MAINTAINER_SCRIPTS;
use crate::{Root, RootError};
use std::collections::BTreeMap;
use std::io::Read as _;

/// A maintainer script is some kilobytes.
const MAX_SCRIPT_BYTES: u64 = 4 << 20;

impl Database<'_> {
    /// Every file that the package lists, with the checksum that the database
    /// keeps: of what the installed version *shipped*, whatever the disk has now.
    ///
    /// The database does not say what is a directory, a link or an ELF file, so
    /// the first bytes on the disk are looked at; what is gone counts as a file.
    pub fn contents(&self, package: &Installed) -> Result<Contents, DpkgError> {
        let sums = self.info(package, "md5sums")?;
        let sums: BTreeMap<&str, Option<[u8; 16]>> =
            sums.lines().filter_map(|line| line.split_once("  ")).map(|(sum, path)| (path, parse_md5(sum))).collect();
        let mut contents = Contents::default();
        for path in self.list_of(package)?.lines().filter(|path| path.starts_with('/')).take(MAX_LISTED) {
            let conffile = package.conffiles.iter().find(|conffile| conffile.path == path);
            if let Some(conffile) = conffile.filter(|conffile| !conffile.obsolete) {
                contents.add(path, Listed::of_md5(What::Conffile, conffile.md5, false));
            } else if let Some(target) = self.root.link_target(path) {
                contents.add(path, Listed::link(&target));
            } else if let Some(head) = head(self.root, path) {
                let sum = sums.get(path.trim_start_matches('/')).copied().flatten();
                let what = if head == *b"\x7fELF" { What::Elf } else { What::File };
                contents.add(path, Listed::of_md5(what, sum, head.starts_with(b"#!")));
            }
        }
        for script in MAINTAINER_SCRIPTS {
            let (first, second) = info_paths(package, script);
            let Some(bytes) = read_either(self.root, &first, &second)? else { continue };
            let mut sums = Sums::default();
            sums.update(&bytes);
            contents.add(script, sums.listed(What::MaintainerScript, None));
        }
        Ok(contents)
    }
}

fn read_either(root: &Root, first: &str, second: &str) -> Result<Option<Vec<u8>>, RootError> {
    for path in [first, second] {
        match root.read(path, MAX_SCRIPT_BYTES.min(MAX_FILE_BYTES)) {
            Err(RootError::Missing { .. }) => {}
            other => return other.map(Some),
        }
    }
    Ok(None)
}

/// The first four bytes, zeros for what is shorter or cannot be read; `None`
/// for a directory or anything else that has no contents.
fn head(root: &Root, path: &str) -> Option<[u8; 4]> {
    let mut head = [0; 4];
    match root.open_file(path) {
        Ok(mut file) => {
            let mut have = 0;
            while let Some(rest) = head.get_mut(have..).filter(|rest| !rest.is_empty()) {
                match file.read(rest) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => have = have.saturating_add(read),
                }
            }
            Some(head)
        }
        Err(RootError::NotAFile { .. }) => None,
        Err(_gone_or_not_ours_to_read) => Some(head),
    }
}
