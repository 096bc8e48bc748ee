/// Why bytes are no image that Salve can work on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("not an ELF file")]
    NotElf,
    #[error("not a 64-bit ELF file (class {class})")]
    NotElf64 { class: u8 },
    #[error("not a little-endian ELF file (data encoding {data})")]
    NotLittleEndian { data: u8 },
    #[error("not for x86-64 (machine {e_machine})")]
    OtherMachine { e_machine: u16 },
    #[error("neither a program nor a shared object (type {e_type})")]
    NotLoadable { e_type: u16 },
    #[error("no section headers")]
    NoSections,
    #[error("{what} at offset {at:#x} needs {need} bytes, the file has {have}")]
    Truncated { what: &'static str, at: u64, need: u64, have: u64 },
    #[error("malformed {what}")]
    Malformed { what: &'static str },
    #[error("malformed {what} at {at:#x}")]
    MalformedAt { what: &'static str, at: u64 },
    #[error("{what}: {have} exceeds the limit of {limit}")]
    TooLarge { what: &'static str, have: u64, limit: u64 },
    #[error("unknown relocation type {r_type} at {at:#x}")]
    UnknownRelocation { r_type: u32, at: u64 },
}
