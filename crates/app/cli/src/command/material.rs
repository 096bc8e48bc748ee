//! What `derive` and `inspect` are handed: packages, ELF files or trees, told
//! apart by their first bytes and never by their names.

use super::file::{cannot_read, open_regular};
use crate::machine::deriver::{Material, listed};
use crate::problem::Problem;
use salve_package::contents::{Contents, Listed, Sums, What};
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
            contents: None,
            label,
        }),
        Kind::Tree => {
            let Tree { files, others } = tree(path)?;
            if files.is_empty() {
                return Err(Problem::refused("no-images", format!("there is no ELF file in {}", path.display())));
            }
            let label = path.display().to_string();
            Ok(Material::Files { files, package: None, changelog: None, contents: listed(&others), label })
        }
    }
}

/// What is in a tree.
struct Tree {
    /// Every ELF file, by its path from the tree's root.
    files: Vec<(String, File)>,
    /// Everything, with checksums of what is no ELF file.
    others: Contents,
}

/// Links are not followed: a tree means what is in it.
fn tree(root: &Path) -> Result<Tree, Problem> {
    let mut files = Vec::new();
    let mut others = Contents::default();
    let mut entries = 0_usize;
    let inside = |path: &Path| format!("/{}", path.strip_prefix(root).unwrap_or(path).to_string_lossy());
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
                    others.add(inside(&path), Listed::of_md5(What::Elf, None, false));
                    files.push((inside(&path), file));
                } else {
                    others.add(inside(&path), sums(&file, &path)?.listed(What::File, None));
                }
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path).map_err(|error| cannot_read(&path, error))?;
                others.add(inside(&path), Listed::link(&target.to_string_lossy()));
            }
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Tree { files, others })
}

fn sums(file: &File, path: &Path) -> Result<Sums, Problem> {
    let mut sums = Sums::default();
    let (mut piece, mut at) = (vec![0; 64 << 10], 0_u64);
    loop {
        let read = file.read_at(&mut piece, at).map_err(|error| cannot_read(path, error))?;
        match piece.get(..read) {
            None | Some([]) => return Ok(sums),
            Some(bytes) => sums.update(bytes),
        }
        at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
}
