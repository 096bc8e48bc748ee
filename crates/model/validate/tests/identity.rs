//! Every real image has to be provable to be itself: whatever the checker does not
//! understand of the code that compilers and linkers write shows here.
#![expect(clippy::disallowed_methods, reason = "tests read real files")]

mod common;

use object::{Object as _, ObjectSection as _};

#[test]
fn every_image_of_the_corpus_is_proven_to_be_itself() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let images = common::corpus(dir.path());
    assert!(!images.is_empty());
    let mut wrong = Vec::new();
    for path in &images {
        let bytes = std::fs::read(path).expect("image");
        let claims = common::identity(&bytes);
        match salve_validate::validate(&bytes, &bytes, &common::empty_livepatch(), &claims) {
            Ok(proof) => {
                assert!(proof.same > 0 && proof.new_code_bytes > 0 && proof.old_code_bytes == proof.new_code_bytes);
            }
            Err(invalid) => wrong.push(format!("{}: {invalid}", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), images.len(), wrong.join("\n"));
}

/// Old code that stays keeps its old exception tables, so they have to say the same.
#[test]
fn a_function_whose_exception_table_differs_is_not_the_same() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let (source, built) = (dir.path().join("throws.cc"), dir.path().join("throws.so"));
    std::fs::write(&source, THROWS).expect("source");
    let status =
        std::process::Command::new("g++").args(["-O2", "-fPIC", "-shared", "-o"]).args([&built, &source]).status();
    assert!(status.expect("g++").success());
    let bytes = std::fs::read(&built).expect("image");
    let file = object::File::parse(&*bytes).expect("an object file");
    let table = file.section_by_name(".gcc_except_table").expect("exception tables");
    let (at, len) = table.file_range().expect("contents");
    let mut claims = common::identity(&bytes);
    // Claimed as data it would be compared as such; the functions have to find it by themselves.
    claims.data.retain(|run| run.new.raw() != table.address());
    let check = |old: &[u8]| salve_validate::validate(old, &bytes, &common::empty_livepatch(), &claims);
    check(&bytes).expect("the same");
    let mut found = 0;
    for offset in at..at + len {
        let mut old = bytes.clone();
        old[usize::try_from(offset).expect("small")] ^= 1;
        match check(&old) {
            Err(salve_validate::Invalid::Unwind { .. }) => found += 1,
            // Alignment; and actions and types that no call site of a `.cold` part names.
            Ok(_) => {}
            Err(other) => assert!(matches!(other, salve_validate::Invalid::Image { .. }), "{other}"),
        }
    }
    assert!(found * 3 > len * 2, "{found} of {len}");
}

const THROWS: &str = r#"
    struct Wrong { int code; };
    struct Other { int code; };
    extern "C" int risky(int);
    struct Guard { int *p; ~Guard(); };
    int caught(int x) {
        int n = 0;
        Guard guard{&n};
        try { n = risky(x); } catch (const Wrong &w) { n = w.code; } catch (const Other &o) { n = -o.code; }
        return n + risky(n);
    }
    int anything(int x) { try { return risky(x); } catch (...) { return -1; } }
    int thrower(int x) { if (x > 3) throw Wrong{x}; throw Other{x}; }
"#;
