//! Packages that are none, are cut off, lie, or try to do harm. Each is refused
//! with an error that says what is wrong; none makes the reader panic, loop or
//! take memory that the limits do not allow.

use core::ops::ControlFlow;
use proptest::prelude::*;
use salve_package::deb::{self, DebError, Kind, Limits, Summary};
use std::io::Write as _;

type Checked = Result<(), Box<dyn std::error::Error>>;

const CONTROL: &str = "Package: small\nVersion: 1.0-1\nArchitecture: amd64\nDescription: x\n";

type Pack = fn(&[u8]) -> Vec<u8>;

/// An ar archive of these members.
fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, contents) in members {
        bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", contents.len()).as_bytes());
        bytes.extend_from_slice(contents);
        if contents.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn header(path: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

/// A tar archive of plain files.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, contents) in files {
        builder.append(&header(path, tar::EntryType::Regular, contents.len() as u64), *contents).expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

fn raw_tar(headers: &[(tar::Header, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, contents) in headers {
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A package around a `data.tar`.
fn with_data(data: &[u8]) -> Vec<u8> {
    let control = tar_of(&[("./control", CONTROL.as_bytes())]);
    ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &gzip(&control)), ("data.tar", data)])
}

fn small() -> Vec<u8> {
    with_data(&tar_of(&[("./usr/sbin/small", b"\x7fELF, more or less"), ("./usr/share/x", b"text")]))
}

fn read(deb: &[u8]) -> Result<Summary, DebError> {
    deb::elves(deb, &Limits::default(), &mut |_, _| ControlFlow::Continue(()))
}

#[test]
fn every_compression_that_dpkg_writes_can_be_read() -> Checked {
    let data = tar_of(&[("./usr/sbin/small", b"\x7fELF")]);
    let control = tar_of(&[("./control", CONTROL.as_bytes())]);
    let all: [(&str, Pack); 4] = [("", <[u8]>::to_vec), (".gz", gzip), (".xz", xz), (".zst", zstd)];
    for (suffix, pack) in all {
        let (control_name, data_name) = (format!("control.tar{suffix}"), format!("data.tar{suffix}"));
        let deb = ar(&[("debian-binary", b"2.0\n"), (&control_name, &pack(&control)), (&data_name, &pack(&data))]);
        let mut paths = Vec::new();
        deb::elves(deb.as_slice(), &Limits::default(), &mut |control, file| {
            assert_eq!(control.id.name, "small");
            paths.push(file.path);
            ControlFlow::Continue(())
        })?;
        assert_eq!(paths, ["/usr/sbin/small"], "{suffix}");
    }
    for suffix in ["bz2", "lzma", "br"] {
        let name = format!("control.tar.{suffix}");
        let deb = ar(&[("debian-binary", b"2.0\n"), (&name, &control)]);
        assert!(matches!(read(&deb), Err(DebError::Compression { .. })), "{suffix}");
    }
    Ok(())
}

#[test]
fn what_is_no_package_is_told_so() {
    for bytes in [
        b"".as_slice(),
        b"\x7fELF",
        b"plain text that goes on for longer than a header of an archive has bytes",
        &tar_of(&[("debian-binary", b"2.0\n")]),
        &ar(&[("control.tar.gz", b"")]),
        &ar(&[("hello.o/", b"\x7fELF"), ("debian-binary", b"2.0\n")]),
    ] {
        assert!(matches!(read(bytes), Err(DebError::NotADeb)), "{bytes:?}: {:?}", read(bytes));
    }
    let future = ar(&[("debian-binary", b"3.0\n"), ("control.tar", b"")]);
    assert!(matches!(read(&future), Err(DebError::UnknownFormat { found }) if found == "3.0"));
    assert!(matches!(read(&ar(&[("debian-binary", b"2.0\n")])), Err(DebError::Missing { what: "control.tar" })));
    let control = gzip(&tar_of(&[("./control", CONTROL.as_bytes())]));
    let swapped = ar(&[("debian-binary", b"2.0\n"), ("data.tar", b""), ("control.tar.gz", &control)]);
    assert!(matches!(read(&swapped), Err(DebError::Missing { what: "control.tar" })));
    let without = ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &control)]);
    assert!(matches!(read(&without), Err(DebError::Missing { what: "data.tar" })));
}

#[test]
fn members_for_others_may_stand_between() -> Checked {
    let control = gzip(&tar_of(&[("./control", CONTROL.as_bytes())]));
    let data = tar_of(&[("./x", b"")]);
    let deb = ar(&[
        ("debian-binary", b"2.1\nmore\n"),
        ("_a", b"1"),
        ("control.tar.gz", &control),
        ("_b", b""),
        ("data.tar/", &data),
        ("later", b"x"),
    ]);
    read(&deb)?;
    Ok(())
}

#[test]
fn a_package_cut_off_at_any_byte_is_refused() {
    let whole = small();
    assert!(read(&whole).is_ok());
    for len in 0..whole.len() {
        let error = read(&whole[..len]).err();
        match error {
            Some(DebError::Truncated { .. } | DebError::NotADeb | DebError::Missing { .. }) => {}
            other => panic!("cut at {len} of {}: {other:?}", whole.len()),
        }
    }
}

#[test]
fn a_real_package_cut_off_anywhere_is_refused() -> Checked {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../corpus/memcached_1.6.18-1_amd64.deb");
    let whole = std::fs::read(path)?;
    for len in (0..whole.len()).step_by(7919).chain([whole.len() - 2, whole.len() - 3]) {
        let error = read(&whole[..len]).err();
        assert!(
            matches!(error, Some(DebError::Truncated { .. } | DebError::NotADeb | DebError::Missing { .. })),
            "cut at {len}: {error:?}"
        );
    }
    Ok(())
}

#[test]
fn a_flipped_byte_never_panics_and_compressed_data_notices() {
    let data = xz(&tar_of(&[("./usr/sbin/small", b"\x7fELF, more or less")]));
    let control = xz(&tar_of(&[("./control", CONTROL.as_bytes())]));
    let whole = ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &control), ("data.tar.xz", &data)]);
    let data_at = whole.len() - data.len();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let result = read(&damaged);
        assert!(at < data_at || result.is_err(), "byte {at} of the data flipped and not noticed");
    }
    let mut plain = small();
    for at in 0..plain.len() {
        plain[at] ^= 0x11;
        let _ = read(&plain);
        plain[at] ^= 0x11;
    }
}

#[test]
fn sizes_that_lie_are_noticed() {
    let whole = small();
    let sized = |text: &str| {
        let mut lying = whole.clone();
        let at = lying.windows(8).rposition(|window| window == b"data.tar").expect("has one");
        lying[at + 48..at + 58].copy_from_slice(&format!("{text:<10}").as_bytes()[..10]);
        read(&lying).err()
    };
    assert!(matches!(sized("9999999999"), Some(DebError::Truncated { .. })));
    assert!(sized("513").is_some());
    for text in ["-1", "+1", "0x10", "", "1 1", "\u{967}"] {
        assert!(matches!(sized(text), Some(DebError::ArHeader { .. })), "{text}");
    }
    // A tar header that claims more than there is, and one near the end of the numbers.
    for size in [10_000, 1 << 33, u64::MAX - 511, u64::MAX] {
        let lying = with_data(&raw_tar(&[(header("./x", tar::EntryType::Regular, size), b"\x7fELF")]));
        assert!(read(&lying).is_err(), "{size}");
    }
}

#[test]
fn bombs_stop_at_the_limits() {
    let zeros = vec![0; 160 << 20];
    let control = gzip(&tar_of(&[("./control", CONTROL.as_bytes())]));
    let tar = tar_of(&[("./zeros", &zeros)]);
    for (name, packed) in [("data.tar.xz", xz(&tar)), ("data.tar.gz", gzip(&tar))] {
        let bomb = ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &control), (name, &packed)]);
        let error = read(&bomb).err();
        assert!(matches!(error, Some(DebError::TooLarge { .. })), "{name}: {error:?}");
    }
    let bomb = ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &gzip(&zeros)), ("data.tar", &tar)]);
    assert!(matches!(
        read(&bomb),
        Err(DebError::TooLarge { .. } | DebError::Damaged { .. } | DebError::Missing { .. })
    ));
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_held() {
    let limits = Limits { max_file_bytes: 10, ..Limits::default() };
    let error = deb::elves(small().as_slice(), &limits, &mut |_, _| ControlFlow::Continue(())).err();
    // The control file has its own limit; the ELF file has this one.
    assert!(matches!(error, Some(DebError::TooLarge { what: "file", limit: 10 })), "{error:?}");
}

#[test]
fn names_beyond_the_limit_are_not_read() {
    let long = |size| (header("././@LongLink", tar::EntryType::GNULongName, size), b"x".as_slice());
    for size in [4097, 1 << 20, 1 << 40] {
        let deb = with_data(&raw_tar(&[long(size)]));
        assert!(matches!(read(&deb), Err(DebError::TooLarge { what: "path", .. })), "{size}");
    }
}

#[test]
fn long_names_are_read_as_dpkg_reads_them() -> Checked {
    let name = format!("./{}/file", "d".repeat(200));
    let named = format!("{name}\0");
    let deb = with_data(&raw_tar(&[
        (header("././@LongLink", tar::EntryType::GNULongName, named.len() as u64), named.as_bytes()),
        (header("./ddd", tar::EntryType::Regular, 4), b"\x7fELF"),
    ]));
    let mut paths = Vec::new();
    deb::elves(deb.as_slice(), &Limits::default(), &mut |_, file| {
        paths.push(file.path);
        ControlFlow::Continue(())
    })?;
    assert_eq!(paths, [&name[1..]]);
    Ok(())
}

#[test]
fn paths_that_leave_the_package_are_refused() {
    for path in ["../etc/passwd", "./usr/../../x", ".."] {
        let deb = with_data(&raw_tar(&[(header(path, tar::EntryType::Regular, 0), b"")]));
        assert!(matches!(read(&deb), Err(DebError::Path { .. })), "{path}");
    }
    let mut link = header("./x", tar::EntryType::Link, 0);
    link.set_link_name_literal("../../etc/passwd").expect("fits");
    link.set_cksum();
    assert!(matches!(read(&with_data(&raw_tar(&[(link, b"")]))), Err(DebError::Path { .. })));
}

#[test]
fn two_files_of_one_name_are_refused() {
    let deb = with_data(&tar_of(&[("./usr/sbin/x", b"\x7fELF1"), ("usr//sbin/x", b"\x7fELF2")]));
    assert!(matches!(read(&deb), Err(DebError::Twice { path }) if path == "/usr/sbin/x"));
}

#[test]
fn a_link_is_never_read_through() -> Checked {
    let mut link = header("./usr/sbin/x", tar::EntryType::Symlink, 0);
    link.set_link_name_literal("/etc/passwd")?;
    link.set_cksum();
    let summary = read(&with_data(&raw_tar(&[(link, b"")])))?;
    let kind = summary.links.get("/usr/sbin/x");
    assert_eq!(kind, Some(&Kind::Symlink { target: "/etc/passwd".to_owned() }));
    assert_eq!(summary.files, 0);
    Ok(())
}

#[test]
fn entries_that_dpkg_does_not_unpack_are_refused() {
    for kind in
        [tar::EntryType::XHeader, tar::EntryType::XGlobalHeader, tar::EntryType::GNUSparse, tar::EntryType::new(b'M')]
    {
        let deb = with_data(&raw_tar(&[(header("./x", kind, 0), b"")]));
        assert!(matches!(read(&deb), Err(DebError::EntryKind { .. })), "{kind:?}");
    }
}

#[test]
fn a_control_file_that_says_too_little_is_refused() {
    for (text, field) in [
        ("Version: 1\nArchitecture: amd64\n", "Package"),
        ("Package: x y\nVersion: 1\nArchitecture: amd64\n", "Package"),
        ("Package: ../x\nVersion: 1\nArchitecture: amd64\n", "Package"),
        ("Package: small\nArchitecture: amd64\n", "Version"),
        ("Package: small\nVersion: 1 2\nArchitecture: amd64\n", "Version"),
        ("Package: small\nVersion: 1\n", "Architecture"),
        ("Package: small\nVersion: 1\nArchitecture: amd64\nSource: a (b c)\n", "Source"),
    ] {
        let control = tar_of(&[("./control", text.as_bytes())]);
        let deb = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control)]);
        match deb::control(deb.as_slice(), &Limits::default()) {
            Err(DebError::Field { field: found }) => assert_eq!(found, field, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let of = |files: &[(&str, &[u8])]| {
        let deb = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &tar_of(files))]);
        deb::control(deb.as_slice(), &Limits::default()).err()
    };
    assert!(matches!(of(&[("./md5sums", b"")]), Some(DebError::Missing { what: "control file" })));
    assert!(matches!(of(&[("./control", b"\xff\xfe")]), Some(DebError::NotUtf8)));
    assert!(matches!(of(&[("./control", b"nonsense")]), Some(DebError::Stanza(_))));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read(&bytes);
        let mut deb = b"!<arch>\n".to_vec();
        deb.extend_from_slice(&bytes);
        let _ = read(&deb);
        let _ = read(&with_data(&bytes));
    }

    #[test]
    fn no_damage_makes_the_reader_panic(at in any::<proptest::sample::Index>(), with in proptest::collection::vec(any::<u8>(), 1..64)) {
        let mut deb = small();
        let at = at.index(deb.len());
        for (byte, other) in deb[at..].iter_mut().zip(&with) {
            *byte = *other;
        }
        let _ = read(&deb);
    }

    #[test]
    fn versions_are_totally_ordered(
        a in "[0-9]{1,2}[.~+a-z0-9-]{0,6}[0-9]", b in "[0-9]{1,2}[.~+a-z0-9-]{0,6}[0-9]", c in "[0-9]{1,2}[.~+a-z0-9-]{0,6}[0-9]",
    ) {
        let parse = |text: &str| salve_package::Version::parse(text).ok();
        if let (Some(a), Some(b), Some(c)) = (parse(&a), parse(&b), parse(&c)) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }
}
