//! The tools everybody has accept a patch file: readelf, objdump, gdb.
use salve_patch::encode;
use std::path::Path;
use std::process::Command;

/// Runs a tool over the file; its standard output, once it has said nothing on standard error.
fn output(tool: &str, args: &[&str], file: &Path) -> String {
    let output = Command::new(tool)
        .args(args)
        .arg(file)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{tool} is needed by this test (apt install binutils gdb): {error}"));
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{tool} {args:?} says: {warnings}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn written(dir: &Path, patch: &salve_patch::PatchFile) -> std::path::PathBuf {
    let path = dir.join("small.salve");
    std::fs::write(&path, encode(patch).expect("a valid patch")).expect("a temporary file");
    path
}

#[test]
fn readelf_has_no_complaint() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = written(dir.path(), &crate::common::patch());
    let all = output("readelf", &["-aW"], &path);
    assert!(all.contains("DYN (Shared object file)"), "{all}");
    for line in ["parse_chunk.part1", ".text.1", ".rodata.0", ".salve.manifest", ".salve.digest"] {
        assert!(all.contains(line), "no {line} in {all}");
    }
    assert!(!all.contains("RWE") && !all.contains("WAX"), "writable and executable: {all}");
    let manifest = output("readelf", &["-p", ".salve.manifest"], &path);
    assert!(manifest.contains(&format!("\"format_version\":{}", salve_patch::FORMAT_VERSION)), "{manifest}");
}

#[test]
fn readelf_reads_the_call_frame_information_of_each_function_at_its_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = written(dir.path(), &crate::common::patch());
    let frames = output("readelf", &["--debug-dump=frames"], &path);
    for line in [
        "Contents of the .debug_frame section",
        "DW_CFA_def_cfa: r7 (rsp) ofs 8",
        "pc=0000000000005120..0000000000005128",
        "pc=0000001000005400..0000001000005402",
        "DW_CFA_def_cfa_offset: 16",
    ] {
        assert!(frames.contains(line), "no {line} in {frames}");
    }
}

#[test]
fn readelf_has_no_complaint_about_a_file_without_payload() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut patch = crate::common::patch();
    patch.images.retain(|image| image.livepatch.is_none());
    let path = written(dir.path(), &patch);
    output("readelf", &["-aW"], &path);
    output("objdump", &["-x"], &path);
}

#[test]
fn objdump_names_the_new_functions_at_their_addresses_in_the_new_image() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = written(dir.path(), &crate::common::patch());
    let text = output("objdump", &["-d"], &path);
    for line in ["0000000000005120 <parse_chunk>:", "0000001000005400 <parse_chunk.part1>:", "lea    0x0(%rip),%rax"] {
        assert!(text.contains(line), "no {line} in {text}");
    }
}

#[test]
fn gdb_finds_the_functions_where_the_payload_is_mapped() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = written(dir.path(), &crate::common::patch());
    let add = format!("add-symbol-file {} -o 0x7f0000000000", path.display());
    let args =
        ["-nx", "-q", "-batch", "-ex", "set confirm off", "-ex", &add, "-ex", "info symbol 0x7f0000005127", "-ex"];
    let output = Command::new("gdb").args(args).arg("disassemble 0x7f0000005120,0x7f0000005128").output();
    let output = output.expect("gdb is needed by this test (apt install gdb)");
    let (text, warnings) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("parse_chunk + 7 in section .text.0"), "{text}{warnings}");
    assert!(!warnings.contains("warning"), "{warnings}");
}
