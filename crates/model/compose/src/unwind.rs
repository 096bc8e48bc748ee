//! Call frame information of the code that is carried, for debuggers.
//!
//! Taken over as it stands in the new image. What has none, or some that states
//! addresses, goes without: a debugger then guesses, as it does for the new image.

use salve_elf::{Image, VaRange};
use salve_patch::{Cie, Fde, Unwind};

pub(crate) fn unwind(image: &Image<'_>, code: &[VaRange]) -> Unwind {
    let mut unwind = Unwind::default();
    for frame in image.frames(code) {
        let Ok(return_register) = u8::try_from(frame.common.return_register) else { continue };
        let cie = Cie {
            code_alignment: frame.common.code_alignment,
            data_alignment: frame.common.data_alignment,
            return_register,
            instructions: frame.common.instructions.to_vec(),
        };
        let known = unwind.cies.iter().position(|known| *known == cie);
        let index = known.unwrap_or(unwind.cies.len());
        if known.is_none() {
            unwind.cies.push(cie);
        }
        let instructions = frame.instructions.to_vec();
        unwind.fdes.push(Fde { cie: index, new_range: frame.range, instructions });
    }
    unwind
}
