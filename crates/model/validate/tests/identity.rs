//! Every real image has to be provable to be itself: whatever the checker does not
//! understand of the code that compilers and linkers write shows here.
#![expect(clippy::disallowed_methods, reason = "tests read real files")]

mod common;

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
