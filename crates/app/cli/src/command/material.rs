//! What `derive` and `inspect` are handed: packages, ELF files or trees, told
//! apart by their first bytes and never by their names.

use super::file::{cannot_read, open_regular};
use crate::machine::deriver::Material;
use crate::problem::Problem;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Files and directories that are looked at in a tree, and how deep.
const MAX_ENTRIES: usize = 200_000;
const MAX_DEPTH: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Deb,
    Elf,
    Tree,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Deb => "a package",
            Self::Elf => "an ELF file",
            Self::Tree => "a directory",
        }
    }
}

/// Both sides, of one kind.
pub(crate) fn pair(old: &Path, new: &Path) -> Result<(Material, Material), Problem> {
    let kinds = (kind(old)?, kind(new)?);
    if kinds.0 != kinds.1 {
        return Err(Problem::usage(
            "different-kinds",
            format!("{} is {}, {} is {}", old.display(), kinds.0.words(), new.display(), kinds.1.words()),
        )
        .hint("give two packages, two ELF files or two unpacked trees"));
    }
    Ok((side(old, kinds.0)?, side(new, kinds.1)?))
}

/// The old side of the patch file's image `image`, whatever it is. A plain ELF
/// file is that image, whatever it is called.
pub(crate) fn one(path: &Path, image: Option<&str>) -> Result<Material, Problem> {
    let mut side = side(path, kind(path)?)?;
    if let (Material::Files { files, .. }, Some(image)) = (&mut side, image)
        && let [(name, _)] = files.as_mut_slice()
    {
        image.clone_into(name);
    }
    Ok(side)
}

fn kind(path: &Path) -> Result<Kind, Problem> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(Kind::Tree);
    }
    let file = open_regular(path)?;
    match magic(&file, path)? {
        Some(kind) => Ok(kind),
        None => Err(Problem::failed(
            "not-recognised",
            format!("{} is neither a Debian package nor an ELF file", path.display()),
        )
        .hint("give two packages (.deb), two ELF files or two unpacked trees")),
    }
}

fn magic(file: &File, path: &Path) -> Result<Option<Kind>, Problem> {
    let mut start = [0; 8];
    let mut have = 0;
    while let Some(rest) = start.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, u64::try_from(have).unwrap_or(0)).map_err(|error| cannot_read(path, error))? {
            0 => break,
            read => have = have.saturating_add(read),
        }
    }
    Ok(match start {
        [0x7f, b'E', b'L', b'F', ..] => Some(Kind::Elf),
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', b'\n'] => Some(Kind::Deb),
        _neither => None,
    })
}

fn side(path: &Path, kind: Kind) -> Result<Material, Problem> {
    let label = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    match kind {
        Kind::Deb => Ok(Material::Deb { file: open_regular(path)?, label }),
        Kind::Elf => Ok(Material::Files {
            files: vec![(label.clone(), open_regular(path)?)],
            package: None,
            changelog: None,
            label,
        }),
        Kind::Tree => {
            let files = tree(path)?;
            if files.is_empty() {
                return Err(Problem::refused("no-images", format!("there is no ELF file in {}", path.display())));
            }
            Ok(Material::Files { files, package: None, changelog: None, label: path.display().to_string() })
        }
    }
}

/// Every ELF file of a tree, by its path from the tree's root. Links are not
/// followed: a tree means what is in it.
fn tree(root: &Path) -> Result<Vec<(String, File)>, Problem> {
    let mut files = Vec::new();
    let mut entries = 0_usize;
    let mut pending: Vec<(PathBuf, usize)> = vec![(root.to_path_buf(), 0)];
    while let Some((dir, depth)) = pending.pop() {
        for entry in std::fs::read_dir(&dir).map_err(|error| cannot_read(&dir, error))? {
            let entry = entry.map_err(|error| cannot_read(&dir, error))?;
            let path = entry.path();
            entries = entries.saturating_add(1);
            if entries > MAX_ENTRIES || depth > MAX_DEPTH {
                return Err(Problem::refused(
                    "too-large",
                    format!("{} has more than {MAX_ENTRIES} entries", root.display()),
                )
                .hint("name a smaller tree, or the two files themselves"));
            }
            let kind = entry.file_type().map_err(|error| cannot_read(&path, error))?;
            if kind.is_dir() {
                pending.push((path, depth.saturating_add(1)));
            } else if kind.is_file() {
                let file = open_regular(&path)?;
                // Objects and kernel modules are ELF files too; whether an image is usable is not judged here.
                if magic(&file, &path)? == Some(Kind::Elf) {
                    let inside = path.strip_prefix(root).unwrap_or(&path);
                    files.push((format!("/{}", inside.to_string_lossy()), file));
                }
            }
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}
