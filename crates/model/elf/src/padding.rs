//! Bytes between functions that never run: `int3`, zero, and the no-operation
//! forms that assemblers use for alignment (Intel SDM vol. 2, "NOP").

/// How many bytes at the start of `bytes` are padding.
pub fn leading_padding(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..) {
        match padding_unit(rest) {
            Some(len) => at = at.saturating_add(len),
            None => break,
        }
    }
    at
}

/// How many bytes at the end of `bytes` are padding. Instructions cannot be
/// read backwards: the longest suffix that reads forwards as padding from a
/// recognised start counts, and a reader that cuts a real instruction this way
/// fails to decode what is left, which is an error and not a wrong match.
pub fn trailing_padding(bytes: &[u8]) -> usize {
    const LONGEST: usize = 64;
    let from = bytes.len().saturating_sub(LONGEST);
    (from..bytes.len())
        .find(|&start| bytes.get(start..).is_some_and(|rest| leading_padding(rest) == rest.len()))
        .map_or(0, |start| bytes.len().saturating_sub(start))
}

/// Length of the one padding instruction or byte at the start.
fn padding_unit(bytes: &[u8]) -> Option<usize> {
    if matches!(bytes.first(), Some(0x00 | 0xcc)) {
        return Some(1);
    }
    let prefixes = bytes.iter().take_while(|b| matches!(b, 0x66 | 0x2e)).count();
    let rest = bytes.get(prefixes..)?;
    let body = match rest {
        [0x90, ..] => 1,
        [0x0f, 0x1f, modrm, ..] => {
            // The register field of this group is /0.
            if modrm & 0b0011_1000 != 0 {
                return None;
            }
            let sib = usize::from(modrm >> 6 != 3 && modrm & 7 == 4);
            let displacement = match modrm >> 6 {
                1 => 1,
                2 => 4,
                _ => 0,
            };
            3_usize.saturating_add(sib).saturating_add(displacement)
        }
        _ => return None,
    };
    let len = prefixes.saturating_add(body);
    (len <= 15 && len <= bytes.len()).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::{leading_padding, trailing_padding};

    #[test]
    fn every_alignment_that_the_assembler_emits_is_padding() {
        let forms: [&[u8]; 11] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
            &[0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
            &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
            &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
            &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
        ];
        for form in forms {
            assert_eq!(leading_padding(form), form.len(), "{form:02x?}");
            assert_eq!(trailing_padding(form), form.len(), "{form:02x?}");
        }
    }

    #[test]
    fn an_instruction_is_not_padding() {
        // `ret`, then `nop word [rax+rax]`
        let bytes = [0xc3, 0x66, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0];
        assert_eq!(leading_padding(&bytes), 0);
        assert_eq!(trailing_padding(&bytes), 9);
        // `nop /1` is no assembler's padding
        assert_eq!(leading_padding(&[0x0f, 0x1f, 0x48, 0x00]), 0);
    }
}
