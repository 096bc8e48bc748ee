//! Whether `rbp` leads into a frame or to an object.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// What a function has in `rbp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramePointer {
    /// The start of its frame.
    Set,
    /// What it had before: a part of a function that lies elsewhere (`.cold`) goes on with
    /// that one's frame, or with an object.
    Inherited,
    /// Anything.
    Object,
}

impl FramePointer {
    pub(crate) fn of<'i>(instructions: impl Iterator<Item = &'i Instruction>) -> Self {
        let mut found = Self::Inherited;
        for i in instructions.filter(|i| i.op0_kind() == OpKind::Register && i.op0_register() == Register::RBP) {
            match i.mnemonic() {
                Mnemonic::Mov if i.op1_kind() == OpKind::Register && i.op1_register() == Register::RSP => {
                    return Self::Set;
                }
                Mnemonic::Push | Mnemonic::Pop | Mnemonic::Cmp | Mnemonic::Test => {}
                _ => found = Self::Object,
            }
        }
        found
    }

    /// Whether what is at this distance from it is in a frame: an object is reached from its
    /// start on.
    pub(crate) fn is_frame(self, displacement: i64) -> bool {
        match self {
            Self::Set => true,
            Self::Inherited => displacement < 0,
            Self::Object => false,
        }
    }
}
