//! What went wrong in this program, as the protocol says it.

use crate::input::InputError;
use salve_elf::ImageError;
use salve_package::deb::DebError;
use salve_protocol::{Failure, FailureKind, LimitedResource};

/// An input that could not be read.
pub(crate) fn unreadable(input: &str, error: &InputError) -> Failure {
    let input = input.to_owned();
    let kind = match error {
        InputError::NotAFile => FailureKind::NotAFile { input },
        InputError::TooLarge { limit_bytes, .. } => {
            FailureKind::ResourceLimit { resource: LimitedResource::InputBytes, limit: *limit_bytes }
        }
        InputError::OutOfMemory { need_bytes } => {
            FailureKind::ResourceLimit { resource: LimitedResource::Memory, limit: *need_bytes }
        }
        InputError::Stat { .. } | InputError::Read { .. } | InputError::Changed => FailureKind::Unreadable { input },
    };
    Failure::new(kind).caused_by(error)
}

/// A file that was called an ELF image and is none that Salve can work on.
pub(crate) fn unusable_image(input: &str, bytes: &[u8], error: &ImageError) -> Failure {
    let named = || input.to_owned();
    let (kind, hint) = match error {
        ImageError::NotElf if bytes.starts_with(b"!<arch>\n") => {
            (FailureKind::NotElf { input: named() }, Some("it is an archive; does the name of a package end in .deb?"))
        }
        ImageError::NotElf => (FailureKind::NotElf { input: named() }, None),
        ImageError::NotElf64 { .. } | ImageError::NotLittleEndian { .. } => {
            (FailureKind::NotElf64 { input: named() }, Some("Salve works on 64-bit programs for x86-64"))
        }
        ImageError::OtherMachine { .. } => {
            (FailureKind::OtherArchitecture { input: named() }, Some("Salve works on programs for x86-64"))
        }
        ImageError::NotLoadable { .. } => (FailureKind::NotLoadable { input: named() }, None),
        ImageError::Truncated { .. } => (FailureKind::TruncatedElf { input: named() }, None),
        ImageError::TooLarge { limit, .. } => {
            (FailureKind::ResourceLimit { resource: LimitedResource::InputBytes, limit: *limit }, None)
        }
        // A file that was cut short lost the table of its sections first.
        ImageError::NoSections | ImageError::Malformed { .. } | ImageError::MalformedAt { .. }
            if table_leaves_the_file(bytes) =>
        {
            (FailureKind::TruncatedElf { input: named() }, None)
        }
        ImageError::NoSections => (
            FailureKind::MalformedElf { input: named() },
            Some("distributors keep section headers when they strip; Salve needs them"),
        ),
        ImageError::Malformed { .. } | ImageError::MalformedAt { .. } | ImageError::UnknownRelocation { .. } => {
            (FailureKind::MalformedElf { input: named() }, None)
        }
    };
    let failure = Failure::new(kind).caused_by(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A file that was called a package and is none that Salve can read.
pub(crate) fn unusable_package(input: &str, error: &DebError, memory_bytes: u64) -> Failure {
    let named = || input.to_owned();
    let kind = match error {
        DebError::Damaged { source, .. } if wanted_memory(source) => {
            FailureKind::ResourceLimit { resource: LimitedResource::Memory, limit: memory_bytes }
        }
        DebError::NotADeb | DebError::UnknownFormat { .. } => FailureKind::NotADeb { input: named() },
        DebError::TooLarge { limit, .. } => {
            FailureKind::ResourceLimit { resource: LimitedResource::InputBytes, limit: *limit }
        }
        DebError::Read { .. } => FailureKind::Unreadable { input: named() },
        DebError::Truncated { .. }
        | DebError::ArHeader { .. }
        | DebError::Missing { .. }
        | DebError::Compression { .. }
        | DebError::Damaged { .. }
        | DebError::Path { .. }
        | DebError::Twice { .. }
        | DebError::EntryKind { .. }
        | DebError::Stanza(_)
        | DebError::Field { .. }
        | DebError::NotUtf8 => FailureKind::MalformedDeb { input: named() },
    };
    Failure::new(kind).caused_by(error)
}

/// Whether unpacking failed because there was no memory for it: the decompressor
/// says so in an error of its own, inside of I/O errors.
fn wanted_memory(error: &std::io::Error) -> bool {
    use liblzma::stream::Error as Lzma;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(error) = cause {
        if matches!(error.downcast_ref::<Lzma>(), Some(Lzma::Mem | Lzma::MemLimit)) {
            return true;
        }
        // An I/O error hides what it is made of from `source`.
        cause = match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as _),
            None => error.source(),
        };
    }
    error.kind() == std::io::ErrorKind::OutOfMemory
}

/// A static program: nothing binds it at run time that Salve could follow.
pub(crate) fn static_program(input: &str) -> Failure {
    Failure::new(FailureKind::StaticProgram { input: input.to_owned() })
        .because("no dynamic linker binds it")
        .hint("a static program carries its own copies of libraries; rebuild and restart it")
}

/// Whether the section header table that the ELF header states ends past the file
/// (gABI, "ELF Header": `e_shoff` at 40, `e_shentsize` at 58, `e_shnum` at 60).
fn table_leaves_the_file(bytes: &[u8]) -> bool {
    let field = |at: usize, len: usize| -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    };
    let end = || field(40, 8)?.checked_add(field(58, 2)?.checked_mul(field(60, 2)?)?);
    end().is_none_or(|end| u64::try_from(bytes.len()).is_ok_and(|have| end > have))
}
