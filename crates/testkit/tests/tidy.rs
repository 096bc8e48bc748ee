//! The rules of the workspace that a compiler does not know.

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId, TargetKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crates that turn bytes into instructions, ours and others'.
const DISASSEMBLERS: &[&str] = &["iced-x86", "yaxpeax-arch", "yaxpeax-x86", "capstone"];
/// What only the deriving side may link.
const DERIVING: &[&str] = &["salve-code", "salve-compose", "salve-match", "salve-validate"];
/// What a model crate may stand on, besides other model crates: pure computation.
const PURE: &[&str] = &[
    "foldhash",
    "gimli",
    "iced-x86",
    "object",
    // Pure work, divided.
    "rayon",
    "serde",
    "serde_json",
    "sha2",
    "smallvec",
    "thiserror",
    "yaxpeax-arch",
    "yaxpeax-x86",
];
const LONG_MODULE_LINES: usize = 600;

fn root() -> PathBuf {
    salve_testkit::tree::root()
}

fn metadata() -> Result<Metadata> {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(["--locked".to_owned()])
        .exec()
        .context("cargo metadata")
}

/// The layer that a crate's path states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Model,
    Edge,
    App,
    /// testkit and xtask: beside the layers, and nobody ships them.
    Support,
}

fn layer(package: &Package) -> Result<Layer> {
    let path = package.manifest_path.as_std_path().strip_prefix(root()).context("a member outside the tree")?;
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match (first.as_str(), second.as_str()) {
        ("crates", "model") => Ok(Layer::Model),
        ("crates", "edge") => Ok(Layer::Edge),
        ("crates", "app") => Ok(Layer::App),
        ("crates", "testkit") | ("xtask", _) => Ok(Layer::Support),
        _ => anyhow::bail!("{} lies in no layer", path.display()),
    }
}

/// Names of a package's own dependencies, those of its tests left out.
fn shipped(package: &Package) -> impl Iterator<Item = &str> {
    package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development).map(|d| d.name.as_str())
}

/// Names of all crates that end up in a package's binary.
fn linked(metadata: &Metadata, name: &str) -> Result<BTreeSet<String>> {
    let graph = metadata.resolve.as_ref().context("no dependency graph")?;
    let nodes: BTreeMap<&PackageId, _> = graph.nodes.iter().map(|node| (&node.id, node)).collect();
    let start = metadata.workspace_packages().into_iter().find(|p| p.name.as_str() == name);
    let mut open = vec![&start.with_context(|| format!("no crate {name}"))?.id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = nodes.get(id).context("a package outside the graph")?;
        let normal = |d: &&cargo_metadata::NodeDep| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
        open.extend(node.deps.iter().filter(normal).map(|d| &d.pkg));
    }
    Ok(metadata.packages.iter().filter(|p| seen.contains(&p.id)).map(|p| p.name.to_string()).collect())
}

#[test]
fn layers_depend_downwards_only() -> Result<()> {
    let metadata = metadata()?;
    let members = metadata.workspace_packages();
    let layers: BTreeMap<&str, Layer> =
        members.iter().map(|p| Ok((p.name.as_str(), layer(p)?))).collect::<Result<_>>()?;
    assert!(layers.values().collect::<BTreeSet<_>>().len() == 4, "{layers:?}");
    for package in &members {
        let above = layers.get(package.name.as_str()).context("a member without a layer")?;
        for name in shipped(package) {
            if let Some(below) = layers.get(name) {
                assert!(below <= above, "{} ({above:?}) depends on {name} ({below:?})", package.name);
            }
        }
    }
    Ok(())
}

#[test]
fn model_crates_stand_on_pure_crates_only() -> Result<()> {
    let metadata = metadata()?;
    for package in metadata.workspace_packages() {
        if layer(package)? != Layer::Model {
            continue;
        }
        for name in shipped(package) {
            assert!(name.starts_with("salve-") || PURE.contains(&name), "{} depends on {name}", package.name);
        }
    }
    Ok(())
}

#[test]
fn the_program_that_touches_processes_links_no_disassembler() -> Result<()> {
    let metadata = metadata()?;
    let linked = linked(&metadata, "salve")?;
    for name in DISASSEMBLERS.iter().chain(DERIVING) {
        assert!(!linked.contains(*name), "salve links {name}");
    }
    Ok(())
}

#[test]
fn the_validator_shares_nothing_with_what_it_checks() -> Result<()> {
    let metadata = metadata()?;
    let validator = linked(&metadata, "salve-validate")?;
    for name in ["salve-code", "salve-compose", "salve-match", "salve-verdict", "iced-x86"] {
        assert!(!validator.contains(name), "salve-validate links {name}");
    }
    for name in ["salve-match", "salve-compose", "salve-code"] {
        let linked = linked(&metadata, name)?;
        assert!(!linked.contains("salve-validate"), "{name} links salve-validate");
        assert!(!linked.contains("yaxpeax-x86"), "{name} links the validator's decoder");
    }
    Ok(())
}

/// Every Rust file of the project, with its text.
fn sources() -> Result<Vec<(PathBuf, String)>> {
    let mut sources = Vec::new();
    for directory in ["crates", "fuzz", "xtask"] {
        collect(&root().join(directory), &mut sources)?;
    }
    assert!(sources.len() > 20, "found only {} sources", sources.len());
    Ok(sources)
}

fn collect(directory: &Path, sources: &mut Vec<(PathBuf, String)>) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                collect(&path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            sources.push((path.strip_prefix(root()).unwrap_or(&path).to_path_buf(), text));
        }
    }
    Ok(())
}

/// The lines that are code: comments and string contents say what they like.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("")))
}

#[test]
fn unsafe_code_lives_in_the_tracee_crate_only() -> Result<()> {
    let metadata = metadata()?;
    for package in metadata.workspace_packages() {
        let library = package.targets.iter().filter(|t| !t.kind.contains(&TargetKind::Test));
        for target in library {
            let text = std::fs::read_to_string(&target.src_path).with_context(|| target.src_path.to_string())?;
            let forbids = text.contains("#![forbid(unsafe_code)]");
            let tracee = package.name.as_str() == "salve-tracee";
            assert!(forbids || tracee, "{} does not forbid unsafe code", target.src_path);
        }
    }
    for (path, text) in sources()? {
        if path.starts_with("crates/edge/tracee") {
            continue;
        }
        for (line, code) in code_lines(&text) {
            let found =
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|word| code.contains(word));
            assert!(!found || path.ends_with("tidy.rs"), "{}:{line}: unsafe", path.display());
        }
    }
    Ok(())
}

#[test]
fn nothing_is_left_undone_or_skipped_in_silence() -> Result<()> {
    for (path, text) in sources()? {
        if path.ends_with("testkit/tests/tidy.rs") {
            continue;
        }
        for (line, code) in code_lines(&text) {
            for word in ["todo!(", "unimplemented!(", "#[ignore"] {
                assert!(!code.contains(word), "{}:{line}: {word}", path.display());
            }
        }
    }
    Ok(())
}

#[test]
fn no_file_names_a_place_on_one_machine() -> Result<()> {
    // Spelt in two parts, so that this file does not name one itself.
    let places = [concat!("/wo", "rk/"), concat!("/ho", "me/")];
    for (path, text) in sources()? {
        for (index, line) in text.lines().enumerate() {
            for place in places {
                assert!(!line.contains(place), "{}:{}: {place}", path.display(), index + 1);
            }
        }
    }
    Ok(())
}

#[test]
fn every_decision_record_is_in_the_index_and_has_its_parts() -> Result<()> {
    let directory = root().join("docs/adr");
    let index = std::fs::read_to_string(directory.join("README.md")).context("docs/adr/README.md")?;
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(&directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == "README.md" || Path::new(&name).extension().is_none_or(|e| e != "md") {
            continue;
        }
        assert!(index.contains(&format!("({name})")), "docs/adr/README.md does not link {name}");
        let number = name.split('-').next().unwrap_or_default().to_owned();
        assert!(number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit()), "{name} has no four-digit number");
        assert!(numbers.insert(number), "{name} has a number that another has too");
        let text = std::fs::read_to_string(directory.join(&name))?.to_lowercase();
        for part in ["context", "decision", "alternatives", "consequences", "would change if"] {
            assert!(text.contains(part), "{name} lacks {part}");
        }
    }
    for link in index.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if Path::new(link).extension().is_some_and(|e| e == "md") && !link.starts_with("http") {
            assert!(directory.join(link).exists(), "docs/adr/README.md links {link}, which is not there");
        }
    }
    Ok(())
}

#[test]
fn every_behaviour_that_others_check_names_tests_that_exist() -> Result<()> {
    let table = std::fs::read_to_string(root().join("docs/behaviours.md")).context("docs/behaviours.md")?;
    let sources = sources()?;
    let victims = root().join("crates/testkit/victims/behaviours");
    let mut checked = 0;
    for row in table.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let tests = row.split('|').nth(2).with_context(|| format!("no tests in: {row}"))?;
        for name in tests.split('`').skip(1).step_by(2) {
            let function = format!("fn {name}(");
            let victim = ["c", "cc"].iter().any(|kind| victims.join(name).with_extension(kind).exists());
            assert!(victim || sources.iter().any(|(_, text)| text.contains(&function)), "there is no test {name}");
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} names were found");
    Ok(())
}

#[test]
fn every_crate_takes_the_workspaces_lints() -> Result<()> {
    for package in metadata()?.workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path)?;
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", package.manifest_path);
        let library = package.targets.iter().any(|t| t.kind.contains(&TargetKind::Lib));
        if library && matches!(layer(package)?, Layer::Model | Layer::Edge) {
            let text =
                std::fs::read_to_string(package.manifest_path.parent().context("no parent")?.join("src/lib.rs"))?;
            for lint in ["unwrap_used", "expect_used", "panic", "indexing_slicing", "arithmetic_side_effects"] {
                assert!(text.contains(&format!("clippy::{lint}")), "{} does not deny {lint}", package.name);
            }
        }
    }
    Ok(())
}

/// Not a rule but a list to think about: it is printed, and `cargo xtask tidy` shows it.
#[test]
#[expect(clippy::print_stdout, reason = "the list is what the test is for")]
fn long_modules_are_listed() -> Result<()> {
    let mut long: Vec<(usize, PathBuf)> =
        sources()?.into_iter().map(|(path, text)| (text.lines().count(), path)).collect();
    long.retain(|(lines, _)| *lines > LONG_MODULE_LINES);
    long.sort_by_key(|(lines, _)| std::cmp::Reverse(*lines));
    for (lines, path) in long {
        println!("over {LONG_MODULE_LINES} lines, worth a thought: {} ({lines})", path.display());
    }
    Ok(())
}
