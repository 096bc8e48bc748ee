//! Constants of a dependency's headers, baked in at compile time.

use crate::carry::Carried;
use crate::registry;
use iced_x86::Instruction;
use salve_elf::Va;
use salve_match::{AlignedPair, ImageDiff, OperandChange, compare_operands};
use salve_patch::{Evidence, Reason, Requirement};

/// A library whose headers bake its version into programs, and how the
/// library itself tells its version.
struct Versioned {
    soname: &'static str,
    symbol: &'static str,
    name: &'static str,
    /// Bits in which headers and library have to agree for their interfaces to be the same.
    mask: u64,
    /// Whether a constant is a version of this library, and which.
    version: fn(u64) -> Option<u64>,
}

const VERSIONED: &[Versioned] = &[Versioned {
    soname: "libcrypto.so.3",
    symbol: "OpenSSL_version_num",
    name: "OPENSSL_VERSION_NUMBER",
    // OPENSSL_VERSION_NUMBER(3): 0xMNN00PP0; releases with the same major and
    // minor number keep the interface.
    mask: 0xfff0_0000,
    version: |value| {
        // `a > constant` is often compiled as `a >= constant + 1` and the reverse.
        let value = if value & 0xf == 0xf { value.checked_add(1)? } else { value };
        (value >> 28 == 3 && value & 0x000f_f00f == 0).then_some(value)
    },
}];

/// Numbers that are explained like that, and what each then requires of the library.
pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried) -> (Option<Reason>, Vec<Requirement>) {
    let mut requirements = Vec::new();
    let mut found = Vec::new();
    for pair in &carried.pairs {
        let functions = (diff.old.image.functions().get(pair.old), diff.new.image.functions().get(pair.new));
        let (Some(f), Some(g)) = functions else { continue };
        for aligned in &diff.difference(pair.old, pair.new).aligned {
            for change in compare_operands(aligned, f.range, g.range) {
                let Some(requirement) = explain(diff.new.image.needed(), &change) else { continue };
                found.push(evidence(&g.display_name(), aligned, &requirement));
                if !requirements.contains(&requirement) {
                    requirements.push(requirement);
                }
            }
        }
    }
    let reason = (!found.is_empty()).then(|| {
        registry::DEPENDENCY_CONSTANT.because("a version of a library's headers is baked in and changed", found)
    });
    (reason, requirements)
}

/// The requirement that explains a changed number, if it is a version of a needed library.
pub(crate) fn explain(needed: &[String], change: &OperandChange) -> Option<Requirement> {
    let OperandChange::Immediate { old, new } = change else { return None };
    VERSIONED.iter().find_map(|library| {
        let stem = library.soname;
        let linked = needed.iter().any(|n| n == stem || (stem == "libcrypto.so.3" && n == "libssl.so.3"));
        let (a, b) = ((library.version)(*old)?, (library.version)(*new)?);
        (linked && a & library.mask == b & library.mask).then(|| Requirement::DependencyConstant {
            soname: library.soname.to_owned(),
            symbol: library.symbol.to_owned(),
            value: b,
            mask: library.mask,
            why: format!("{} of the headers is {b:#x}, before {a:#x}", library.name),
        })
    })
}

fn evidence(function: &str, pair: &AlignedPair, requirement: &Requirement) -> Evidence {
    let at = |i: &Instruction| Some(Va::new(i.ip()));
    let Requirement::DependencyConstant { why, .. } = requirement;
    Evidence { function: Some(function.to_owned()), old_va: at(&pair.old), new_va: at(&pair.new), seen: why.clone() }
}
