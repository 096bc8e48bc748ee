use super::example;

#[test]
fn at_host_size_processes_are_named_by_what_is_to_be_done_about_them() {
    let mut out = Vec::new();
    example().lines(&mut out, false).expect("written");
    insta::assert_snapshot!(String::from_utf8_lossy(&out));
}
