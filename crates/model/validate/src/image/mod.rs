//! The checker's own reading of an ELF image, from the file's bytes and nothing else.

mod frames;
mod layout;
mod slots;
mod symbols;

pub(crate) use frames::{Frame, Place};
pub(crate) use layout::{Image, Role, Section};
pub(crate) use slots::{Binding, Slot};
pub(crate) use symbols::{Definition, Symbol};
