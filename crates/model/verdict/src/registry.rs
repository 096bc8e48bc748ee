//! Every reason code. A code keeps its meaning for ever; a new meaning gets a new code.
//!
//! A code that refuses says whose fault that is. Where a code covers both an
//! inherent case and one that Salve could still learn, it counts as a limit:
//! nothing is called impossible that is only not done.

use salve_patch::{Evidence, Reason, Verdict};

/// One registered code.
#[derive(Clone, Copy, Debug)]
pub struct ReasonCode {
    pub code: &'static str,
    /// The best verdict an image with this reason can have.
    pub verdict: Verdict,
    pub meaning: &'static str,
    /// Whose fault a refusal is; `None` where nothing is refused.
    pub cause: Option<Cause>,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Salve does not do it yet, or lacks a proof that may exist.
    Limit,
    /// The update itself, or what two files can show of it, rules it out.
    Inherent,
}

impl Cause {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Inherent => "inherent",
        }
    }
}

macro_rules! registry {
    (@cause) => { None };
    (@cause $cause:ident) => { Some(Cause::$cause) };
    ($($name:ident = $code:literal, $verdict:ident $(($cause:ident))?, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: ReasonCode = ReasonCode {
            code: $code,
            verdict: Verdict::$verdict,
            meaning: $meaning,
            cause: registry!(@cause $($cause)?),
        };)*
        /// All codes.
        pub const ALL: &[ReasonCode] = &[$($name),*];
    };
}

registry! {
    IDENTICAL_FILE = "identical-file", Unchanged, "the two files are byte for byte the same";
    NO_CODE_CHANGE = "no-code-change", Unchanged,
        "no function and no data that a function reads differ; only notes, build-ids or checksums do";
    UNREACHABLE_CODE = "unreachable-code", Unchanged,
        "functions differ that nothing in either image leads to: no process runs them";
    BUILD_STAMP = "build-stamp", Safe,
        "functions or texts differ in line numbers, versions or dates only, and their values are proven to be passed on unexamined";
    BUILD_NAME_KEPT = "build-name-kept", Safe,
        "a text in data that names the build changed; the process keeps the old one, no replaced code depends on it, and nothing compares it";
    DEPENDENCY_CONSTANT = "dependency-constant", Safe,
        "a constant of a dependency's headers changed; the library mapped in each process is checked before anything is written";
    CONSTANT_ADDRESS = "constant-address", Review,
        "the address of a constant is compared or kept, and replaced code uses a new copy of that constant";
    STARTUP_CODE = "startup-code", Review,
        "code changed that runs once or at start-up only: what it did in a running process is not done again";
    CHANGED_INITIALISER = "changed-initialiser", Review,
        "the initial value of a variable changed; the running process keeps the value it has";
    READ_ONLY_DATA_CHANGED = "read-only-data-changed", Review,
        "a constant or table that is no text changed; the functions that refer to it are replaced, others might reach it by calculation";
    DATA_IN_PLACE = "data-in-place", Review,
        "words of a table that code which stays reads are changed where they lie; what was made of the old ones stays";
    DATA_AMONG_CODE = "data-among-code", Review,
        "a table among the code would lead elsewhere if it were code; wherever its address is taken it was followed to reads, but none that is calculated from another was";
    TABLE_BROUGHT = "table-brought", Review,
        "the payload brings a table of texts or functions that the old image lacks: its rows have addresses that old state does not know, and where it starts another one may end";
    DATA_UNWITNESSED = "data-unwitnessed", Review,
        "replaced code refers to a variable that nothing but its neighbours places in the old image: it may be a new one in the place of another";
    CONSTANT_RENUMBERED = "constant-renumbered", Review,
        "one number became another in several functions: an enumeration, a flag or a size, of which old state may hold the old value";
    FIELD_OFFSET = "field-offset", Review,
        "an instruction accesses another offset of an object, and nothing else shows whether the object's layout moved";
    FIELD_ENCODING = "field-encoding", Review,
        "one function stores another number, flag, multiple or width in an object; objects that exist hold the old form";
    FIELD_MEANING = "field-meaning", Review,
        "replaced code takes a field or an argument for something else than it did; objects that exist hold the old meaning";
    FIELD_ADDED = "field-added", Review,
        "replaced code writes and reads a field that old code does not know; objects that exist hold nothing there";
    SHARED_STATE = "shared-state", Review,
        "two replaced functions each do something else with the same field or variable than before: what old code left there may not be what new code expects";
    ORDER_CHANGED = "order-changed", Review,
        "a comparison or a hash changed by which things are kept in order; what old code filed stays where it is";
    ELEMENT_SIZE = "element-size", Review,
        "one function steps through an array in other steps: its elements may have another size";
    OBJECT_SIZE = "object-size", Review,
        "another number is handed to a function that returns an object: it may be the object's size";
    NEW_CALLBACK = "new-callback", Review,
        "the address of a new function is taken and may be stored in memory that outlives a revert";
    CALLBACK_REWRITTEN = "callback-rewritten", Review,
        "a function whose address is taken has another body; only the places that take it say that it is a version of the old one";
    CALLBACK_BY_PLACE = "callback-by-place", Review,
        "only changed code that takes a function's address says which version of it has its role: who gets it when, and with what else, was not followed";
    CALLBACK_HANDED_OTHERWISE = "callback-handed-otherwise", Review,
        "changed code hands out a function together with another number, text or variable, or keeps it elsewhere: what old code handed out stays as it was";
    CALLBACK_GONE = "callback-gone", Review,
        "a function whose address was taken is gone; old state may still call it";
    LABEL_ADDRESS = "label-address", Review,
        "the address of a place inside a replaced function is a value: what holds it leads into the other version";
    CALCULATED_ADDRESS = "calculated-address", Review,
        "code that stays adds something to the address of other code: where that leads depends on how far apart functions lie, and they moved";
    CALLER_MISTAKEN = "caller-mistaken", Review,
        "replaced code calls what looks at where it is called from or at an address of its own: dlopen and dlsym, which take the main program for the image of a payload, dladdr and backtrace, which find nothing there, or a function that reads its return address";
    NAMES_MIXED = "names-mixed", Review,
        "replaced code compares something with the name of the new build, while other code goes on to give that of the old one";
    RESOURCE_PAIR_MOVED = "resource-pair-moved", Review,
        "an acquire and its release moved between functions; state made by old code may not balance in new code";
    CALL_MOVED = "call-moved", Review,
        "a call that changes shared state moved from one function to another; state made by old code may not fit new code";
    STRUCT_LAYOUT = "struct-layout", Refused(Inherent),
        "fields of a structure moved or its size changed: objects that exist have the old layout";
    DATA_RESIZED = "data-resized", Refused(Limit),
        "replaced code refers to static data whose size changed";
    DATA_CHANGED = "data-changed", Refused(Limit),
        "a table that unchanged code reads changed";
    CALLBACK_REPLACED = "callback-replaced", Refused(Limit),
        "a function whose address was taken is gone and another one appeared: which state calls which cannot be told";
    ROLE_UNPROVEN = "role-unproven", Refused(Limit),
        "a changed function's address is held somewhere, and nothing proves which new function has its role";
    CALLER_UNKNOWN = "caller-unknown", Refused(Limit),
        "replaced code looks up a symbol in what comes after its own image, for which the dynamic linker has to know the caller's: a payload is none";
    RELATIVE_DATA = "relative-data", Refused(Limit),
        "a table holds how far functions or variables lie from it, which is not as far in the process as in the new program";
    NEW_DATA = "new-data", Refused(Limit),
        "replaced code refers to data that the old image lacks or that cannot be placed in it";
    NEW_IMPORT = "new-import", Refused(Limit), "replaced code calls or reads a symbol that the old image does not import, in a way that no process can be asked for";
    UNPROVEN_REFERENCE = "unproven-reference", Refused(Limit), "a reference of replaced code could not be proven";
    ENTRY_TOO_SMALL = "entry-too-small", Refused(Limit),
        "an old function has no room for a detour that nothing jumps into";
    EXCEPTIONS = "exceptions", Refused(Limit),
        "exceptions may pass through replaced code, whose unwind tables a running process does not know";
    FIXED_ADDRESS = "fixed-address", Refused(Limit), "the program is linked to fixed addresses";
    TEXT_RELOCATIONS = "text-relocations", Refused(Limit),
        "the dynamic linker writes into the image's code, so that what a process runs is not what the file holds";
    REBUILT = "rebuilt", Refused(Inherent), "most of the code differs: another compiler or a large rebuild";
    TOO_LARGE_TO_COMPARE = "too-large-to-compare", Refused(Limit),
        "two versions of a function are too large to compare within bounds";
    THREAD_LOCAL = "thread-local", Refused(Limit), "thread-local storage changed or is referred to in a new way";
    MALFORMED_IMAGE = "malformed-image", Refused(Inherent), "the file is no image that Salve can work on";
    NOT_VALIDATED = "not-validated", Refused(Limit),
        "the independent validator could not prove the finished livepatch";
    IMAGE_ADDED = "image-added", Unchanged, "the image exists in the new version only; no process runs an old one";
    IMAGE_GONE = "image-gone", Refused(Inherent), "the image does not exist in the new version";
    AMBIGUOUS_PAIRING = "ambiguous-pairing", Refused(Inherent), "more than one image could be the counterpart";
    SONAME_CHANGED = "soname-changed", Refused(Inherent), "another library lies at this path now";
    STATIC_PROGRAM = "static-program", Refused(Limit), "no dynamic linker binds the program";
    ANALYSIS_FAILED = "analysis-failed", Refused(Limit), "a defect in Salve ended the analysis of this image";
}

impl ReasonCode {
    /// A reason with this code.
    pub fn because(&self, summary: impl Into<String>, evidence: Vec<Evidence>) -> Reason {
        Reason { code: self.code.to_owned(), verdict: self.verdict, summary: summary.into(), evidence }
    }
}

/// The code of that name.
pub fn find(code: &str) -> Option<&'static ReasonCode> {
    ALL.iter().find(|c| c.code == code)
}
