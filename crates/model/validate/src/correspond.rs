//! When do two addresses mean the same thing?
//!
//! `old` and `new` correspond if `new` lies in something claimed, and the claim
//! leads to `old`:
//! * code: equal offsets in a pair that stays as it is; of a changed pair only the
//!   entries, because its inside is another function;
//! * stubs (`.plt*`): both jump through slots that are bound to the same thing;
//! * loader slots (`.got*`): bound to the same thing, for every slot that is read;
//! * data: inside a run, for the whole of the access.
//!
//! An address that lies in nothing claimed corresponds in these cases only:
//! * taken, not read: the ends of sections of the same name, as they are or aligned
//!   up (`__bss_start`, `_end`, `__TMC_END__`, the end of an array that ends its
//!   section); the start of the loader's own tables (`.dynamic`, `.eh_frame*`); the
//!   start of the image; an address outside the image, if all constants moved by one
//!   distance and it moved by the same;
//! * read: equal bytes of the file's header at the same offset;
//! * jumped to: just past the end of the same function, where padding follows.
//!
//! One past the end of a run is otherwise refused: it cannot be told from the
//! start of a changed object that lies there.

use crate::decode::{Decoder, Use};
use crate::image::{Binding, Image, Role};
use crate::index::{Class, Index, Pair};
use crate::invalid::Mismatch;
use crate::lockstep::nop_len;
use crate::marks::Marks;
use salve_elf::{Va, VaRange};

/// What a proven reference leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Code,
    Data,
    /// Through a slot that the loader bound.
    Import,
    /// Nowhere: it is no address.
    Number,
}

pub(crate) struct Correspondence<'a> {
    pub(crate) old: &'a Image<'a>,
    pub(crate) new: &'a Image<'a>,
    pub(crate) index: Index,
    pub(crate) marks: Marks,
    pub(crate) decoder: Decoder,
    /// Thread-local storage has the same layout and the same initial contents.
    pub(crate) tls_same: bool,
}

impl<'a> Correspondence<'a> {
    pub(crate) fn check(&self, old: Va, new: Va, role: Use) -> Result<Where, Mismatch> {
        match self.new.section_at(new).map(|s| s.role) {
            Some(Role::Code) => match self.index.pair_at(new) {
                Some(pair) => self.check_code(old, new, role, pair),
                None if self.is_same_dead_end(old, new, role) => Ok(Where::Code),
                None if matches!(role, Use::Jump | Use::Call | Use::Entry) => Err(Mismatch::Unclaimed),
                None => self.check_data(old, new, role),
            },
            Some(Role::Stubs) => self.check_stub(old, new),
            Some(Role::Got) => match self.check_got(old, new, role) {
                Err(Mismatch::SlotUse) => self.check_data(old, new, role),
                checked => checked,
            },
            Some(Role::Data) | None => self.check_data(old, new, role),
        }
    }

    /// A value that is an address if it looks like one (fixed images only).
    pub(crate) fn check_number(&self, old: i64, new: i64, role: Use) -> Result<Where, Mismatch> {
        let (old, new) = (Va::new(old.cast_unsigned()), Va::new(new.cast_unsigned()));
        let within = |image: &Image<'_>, at: Va| image.span.contains(at) || at == image.span.end();
        if self.new.fixed && (within(self.new, new) || within(self.old, old)) {
            return self.check(old, new, role).map_err(|_| Mismatch::Number);
        }
        if old == new { Ok(Where::Number) } else { Err(Mismatch::Number) }
    }

    fn check_code(&self, old: Va, new: Va, role: Use, pair: &Pair) -> Result<Where, Mismatch> {
        match role {
            Use::Jump | Use::Call | Use::Address | Use::Pointer | Use::Entry => {}
            Use::Access(_) | Use::Through => return Err(Mismatch::SlotUse),
        }
        if pair.class == Class::Unreached {
            return Err(Mismatch::Unreached);
        }
        let inside = new.raw().wrapping_sub(pair.new.start().raw());
        if inside != 0 && !pair.stays() {
            return Err(Mismatch::Interior);
        }
        let expected = pair.old.start().checked_add(inside).ok_or(Mismatch::Interior)?;
        if expected != old {
            return Err(Mismatch::Elsewhere { expected });
        }
        // Where one table ends and the next begins is not known: what reads like an
        // entry may lead anywhere, as long as it leads to the same.
        if role != Use::Entry {
            self.marks.wanted(new);
        }
        pair.reached.set(true);
        Ok(Where::Code)
    }

    fn check_stub(&self, old: Va, new: Va) -> Result<Where, Mismatch> {
        if self.old.section_at(old).map(|s| s.role) != Some(Role::Stubs) {
            return Err(Mismatch::Stub);
        }
        let slots = stub_slot(self.old, old).zip(stub_slot(self.new, new));
        let (old, new) = slots.ok_or(Mismatch::Stub)?;
        match (self.old.slot(old).map(|s| s.binding), self.new.slot(new).map(|s| s.binding)) {
            // A stub calls; whether it is bound early or late makes no difference.
            (
                Some(Binding::Jump { symbol: a, addend: p } | Binding::Address { symbol: a, addend: p }),
                Some(Binding::Jump { symbol: b, addend: q } | Binding::Address { symbol: b, addend: q }),
            ) if p == q && self.same_symbol(a, b) => Ok(Where::Import),
            (Some(a @ (Binding::Relative(_) | Binding::Resolved(_))), Some(b)) => self.check_binding(a, b),
            _ => Err(Mismatch::Stub),
        }
    }

    fn check_got(&self, old: Va, new: Va, role: Use) -> Result<Where, Mismatch> {
        if self.old.section_at(old).map(|s| s.role) != Some(Role::Got) {
            return Err(Mismatch::SlotUse);
        }
        let len_bytes = match role {
            Use::Through => 8,
            Use::Access(Some(len)) if len >= 8 && len.is_multiple_of(8) => u64::from(len),
            // The argument of __tls_get_addr, or a TLS descriptor.
            Use::Address => match self.new.slot(new).map(|s| s.binding) {
                Some(Binding::TlsModule { .. } | Binding::TlsDescriptor { .. }) => 16,
                Some(_) | None => return Err(Mismatch::SlotUse),
            },
            Use::Access(_) | Use::Jump | Use::Call | Use::Pointer | Use::Entry => return Err(Mismatch::SlotUse),
        };
        let mut at = 0;
        let mut found = Where::Import;
        while at < len_bytes {
            let next = |from: Va| from.checked_add(at).ok_or(Mismatch::Extent);
            let (a, b) = (next(old)?, next(new)?);
            found = self.check_slot(a, b)?;
            let step = self.new.slot(b).map_or(8, |s| s.len_bytes).max(1);
            at = at.checked_add(step).ok_or(Mismatch::Extent)?;
        }
        Ok(found)
    }

    /// Two words of loader-filled memory: bound to the same thing, or the same unrelocated word.
    pub(crate) fn check_slot(&self, old: Va, new: Va) -> Result<Where, Mismatch> {
        match (self.old.slot(old), self.new.slot(new)) {
            (Some(a), Some(b)) if a.len_bytes == b.len_bytes => self.check_binding(a.binding, b.binding),
            (None, None) => {
                let word = |image: &Image<'_>, at| image.array(at).map(i64::from_le_bytes).ok_or(Mismatch::Binding);
                let range = |at| VaRange::new(at, 8).ok_or(Mismatch::Binding);
                // A relocation that starts inside the word would be missed by its address.
                if !self.old.slots_in(range(old)?).is_empty() || !self.new.slots_in(range(new)?).is_empty() {
                    return Err(Mismatch::Binding);
                }
                self.check_number(word(self.old, old)?, word(self.new, new)?, Use::Pointer)
            }
            _ => Err(Mismatch::Binding),
        }
    }

    fn check_binding(&self, old: Binding, new: Binding) -> Result<Where, Mismatch> {
        use Binding::{Address, Copy, Jump, Relative, Resolved, TlsDescriptor, TlsFromThread, TlsModule, TlsOffset};
        match (old, new) {
            (Relative(a), Relative(b)) => self.check(a, b, Use::Pointer),
            (Resolved(a), Resolved(b)) => {
                let found = self.check(a, b, Use::Call)?;
                // The resolver has run; a changed one would have chosen differently.
                if self.index.pair_at(b).is_some_and(Pair::stays) { Ok(found) } else { Err(Mismatch::Interior) }
            }
            (Address { symbol: a, addend: p }, Address { symbol: b, addend: q })
            | (Jump { symbol: a, addend: p }, Jump { symbol: b, addend: q })
                if p == q && self.same_symbol(a, b) =>
            {
                Ok(Where::Import)
            }
            (Copy { symbol: a }, Copy { symbol: b }) if self.same_symbol(a, b) => Ok(Where::Import),
            (TlsModule { symbol: a, addend: p }, TlsModule { symbol: b, addend: q })
            | (TlsOffset { symbol: a, addend: p }, TlsOffset { symbol: b, addend: q })
            | (TlsFromThread { symbol: a, addend: p }, TlsFromThread { symbol: b, addend: q })
            | (TlsDescriptor { symbol: a, addend: p }, TlsDescriptor { symbol: b, addend: q })
                if p == q =>
            {
                match (Self::is_own_tls(self.old, a), Self::is_own_tls(self.new, b)) {
                    (true, true) if self.tls_same => Ok(Where::Data),
                    (true, true) => Err(Mismatch::TlsLayout),
                    (false, false) if self.same_symbol(a, b) => Ok(Where::Import),
                    _ => Err(Mismatch::Binding),
                }
            }
            _ => Err(Mismatch::Binding),
        }
    }

    /// Without a symbol, or a local one: the image's own storage, at an offset.
    fn is_own_tls(image: &Image<'_>, symbol: u32) -> bool {
        symbol == 0 || image.symbol(symbol).is_some_and(|s| s.local)
    }

    fn same_symbol(&self, old: u32, new: u32) -> bool {
        match (self.old.symbol(old), self.new.symbol(new)) {
            (Some(a), Some(b)) => old != 0 && new != 0 && a.binds_like(b),
            _ => false,
        }
    }

    fn check_data(&self, old: Va, new: Va, role: Use) -> Result<Where, Mismatch> {
        let taken = matches!(role, Use::Address | Use::Pointer);
        if taken && self.index.is_text(old, new) {
            return Ok(Where::Data);
        }
        let Some((_, expected)) = self.index.run_at(new) else {
            let found = taken && self.is_landmark(old, new) || self.is_same_header(old, new, role);
            return if found { Ok(Where::Data) } else { Err(Mismatch::Unclaimed) };
        };
        if expected != old {
            // The end of a section and the start of the next one can be one address in one image and two in the other.
            let end = taken && self.index.run_at_old(old).is_none() && self.same_section_end(old, new);
            return if end { Ok(Where::Data) } else { Err(Mismatch::Elsewhere { expected }) };
        }
        let len_bytes = match role {
            Use::Access(Some(len)) => u64::from(len),
            // Unknown: at least this much of the processor's state (XSAVE legacy area and header).
            Use::Access(None) => 576,
            Use::Through => 8,
            Use::Address | Use::Pointer => 1,
            Use::Jump | Use::Call | Use::Entry => return Err(Mismatch::Unclaimed),
        };
        if self.index.covers(new, len_bytes) { Ok(Where::Data) } else { Err(Mismatch::Extent) }
    }

    fn is_landmark(&self, old: Va, new: Va) -> bool {
        let starts = |image: &'a Image<'a>, at: Va| image.section_at(at).filter(|s| s.range.start() == at);
        let own_tables = starts(self.old, old)
            .zip(starts(self.new, new))
            .is_some_and(|(a, b)| a.name == b.name && matches!(a.name, b".dynamic" | b".eh_frame" | b".eh_frame_hdr"));
        let starts_image = old == self.old.span.start() && new == self.new.span.start();
        own_tables || starts_image || self.same_section_end(old, new) || self.is_same_bias(old, new)
    }

    /// The base of a table of constants, moved out of the image by what its smallest
    /// index brings back. Which table it is cannot be seen, so all constants have to
    /// have moved alike.
    fn is_same_bias(&self, old: Va, new: Va) -> bool {
        let outside = |image: &Image<'a>, at: Va| !image.span.contains(at);
        outside(self.old, old)
            && outside(self.new, new)
            && self.index.constants_moved == Some(new.wrapping_distance_from(old))
    }

    /// A linker's symbol for an end may be aligned up, to 8 and more. Where in both
    /// images the next section begins there, it is the first thing of that section.
    fn same_section_end(&self, old: Va, new: Va) -> bool {
        if self.old.section_at(old).is_some() && self.new.section_at(new).is_some() {
            return false;
        }
        let ends = self.old.section_ending(old).zip(self.new.section_ending(new));
        ends.is_some_and(|((a, i), (b, j))| a.name == b.name && (i == j || i == 1 || j == 1))
    }

    /// A field of the file's own header, read where it is loaded (the loader does).
    fn is_same_header(&self, old: Va, new: Va, role: Use) -> bool {
        let Use::Access(Some(len)) = role else { return false };
        let read = |image: &Image<'a>, at: Va| {
            let from = usize::try_from(at.raw().checked_sub(image.span.start().raw())?).ok()?;
            image.headers.get(from..from.checked_add(usize::from(len))?).map(|bytes| (from, bytes))
        };
        read(self.old, old).zip(read(self.new, new)).is_some_and(|(a, b)| a == b)
    }

    /// A jump to just past the function it is in, where only padding follows:
    /// compilers write it for what cannot be reached. It leads nowhere in both.
    fn is_same_dead_end(&self, old: Va, new: Va, role: Use) -> bool {
        let before = new.checked_sub(1).and_then(|last| self.index.pair_at(last));
        let ends = before.is_some_and(|p| p.stays() && p.new.end() == new && p.old.end() == old);
        let padded = |image: &Image<'a>, at: Va| {
            let bytes = image.section_at(at).and_then(|s| s.from(at));
            bytes.is_some_and(|b| nop_len(&self.decoder, b).is_some() || matches!(b, [0 | 0xcc, ..]))
        };
        role == Use::Jump && ends && padded(self.old, old) && padded(self.new, new)
    }
}

/// The slot that a stub jumps through: `[endbr64] [bnd] jmp *slot(%rip)`.
pub(crate) fn stub_slot(image: &Image<'_>, at: Va) -> Option<Va> {
    let code = image.section_at(at)?.from(at)?;
    let code_at = |skip: u64| Some((code.get(usize::try_from(skip).ok()?..)?, at.checked_add(skip)?));
    let (code, at) = if code.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { code_at(4)? } else { (code, at) };
    let (code, at) = if let [0xf2, rest @ ..] = code { (rest, at.checked_add(1)?) } else { (code, at) };
    let [0xff, 0x25, a, b, c, d, ..] = *code else { return None };
    Some(at.checked_add(6)?.wrapping_offset(i64::from(i32::from_le_bytes([a, b, c, d]))))
}
