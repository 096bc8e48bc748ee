//! Livepatches as they are really derived, corrupted one thing at a time: the
//! validator catches every one.
//!
//! Every reference, detour and slot of the livepatches of the project's own packages,
//! and of a library whose fix brings new imports, is made wrong in each way that this
//! file knows; of what there is more of (bytes, claims) a sample spread evenly. None
//! of the mutants means what the new image means, so one that passes is a bug of the
//! validator's, whatever a matcher could be made to claim.

use salve_compose::{claims, compose};
use salve_elf::{Image, ImageLimits, Va};
use salve_match::{NoiseContext, diff};
use salve_package::deb;
use salve_patch::{Access, Claims, FixupKind, Livepatch, OwnAddress, RevertPolicy, Verdict, WordValue};
use salve_validate::Invalid;
use salve_verdict::judge;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the validator is asked about.
#[derive(Clone)]
struct Case {
    old: Vec<u8>,
    new: Vec<u8>,
    livepatch: Livepatch,
    claims: Claims,
}

/// A wrong livepatch, or wrong claims, and what is wrong.
struct Mutant {
    what: String,
    livepatch: Livepatch,
    claims: Claims,
}

impl Case {
    fn of(old: Vec<u8>, new: Vec<u8>, versions: Option<(&str, &str)>) -> Self {
        let limits = ImageLimits::default();
        let (a, b) = (Image::parse(&old, &limits).expect("old image"), Image::parse(&new, &limits).expect("new image"));
        let diff = diff(&a, &b);
        let versions = versions.map(|(old, new)| (old.to_owned(), new.to_owned()));
        let judgement = judge(&diff, &NoiseContext { versions });
        assert!(judgement.verdict() < Verdict::Refused, "{:?}", judgement.reasons);
        let composed = compose(&diff, &judgement).expect("composes");
        let claims = claims(&diff, &judgement);
        drop(diff);
        let (livepatch, case) = (composed.livepatch, (old, new));
        let case = Self { old: case.0, new: case.1, livepatch, claims };
        case.check(&case.livepatch, &case.claims).expect("the livepatch itself is proven");
        case
    }

    fn of_victim(victim: &str, flags: &[&str]) -> Self {
        let (old, new) = built(victim, flags);
        Self::of(old, new, None)
    }

    fn check(&self, livepatch: &Livepatch, claims: &Claims) -> Result<(), salve_validate::Invalid> {
        salve_validate::validate(&self.old, &self.new, livepatch, claims).map(|_| ())
    }

    /// All that passed, of all that there were.
    fn survivors(&self, mutants: &[Mutant]) -> Vec<String> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut passed = Vec::new();
            while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.check(&mutant.livepatch, &mutant.claims).is_ok() {
                    passed.push(mutant.what.clone());
                }
            }
            passed
        };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("no worker panics")).collect()
        })
    }

    fn assert_all_are_caught(&self, name: &str, mutants: &[Mutant]) {
        let survivors = self.survivors(mutants);
        assert!(!mutants.is_empty(), "{name}: nothing to corrupt");
        assert!(survivors.is_empty(), "{name}: {} of {} pass: {survivors:#?}", survivors.len(), mutants.len());
    }

    fn mutant(&self, what: String, change: impl FnOnce(&mut Livepatch, &mut Claims)) -> Mutant {
        let mut mutant = Mutant { what, livepatch: self.livepatch.clone(), claims: self.claims.clone() };
        change(&mut mutant.livepatch, &mut mutant.claims);
        mutant
    }

    /// Every fix-up: to its neighbourhood, to another one's target, to another function,
    /// into noise, forgotten, or counted from the wrong place.
    fn wrong_references(&self) -> Vec<Mutant> {
        let targets: Vec<Va> = self.livepatch.fixups.iter().map(|fixup| target(fixup.kind)).collect();
        let elsewhere = self.claims.same.iter().map(|pair| pair.old.start());
        let functions: Vec<Va> = elsewhere.step_by(self.claims.same.len().div_ceil(7).max(1)).collect();
        let noise: Vec<Va> = self.claims.noise.iter().map(|claim| claim.pair.old.start().wrapping_offset(4)).collect();
        let mut mutants = Vec::new();
        for (index, &own) in targets.iter().enumerate() {
            let near = [1, -1, 8, -8, 16, 4096].map(|by| own.wrapping_offset(by));
            let swapped = targets.get((index + 1) % targets.len()).copied();
            let function = functions.get(index % functions.len().max(1)).copied();
            let noise = noise.get(index % noise.len().max(1)).copied();
            for wrong in near.into_iter().chain(swapped).chain(function).chain(noise).filter(|wrong| *wrong != own) {
                mutants.push(self.mutant(format!("fix-up {index}: {own} became {wrong}"), |livepatch, _| {
                    let FixupKind::PcRel32 { old_target, .. } = &mut livepatch.fixups[index].kind;
                    *old_target = wrong;
                }));
            }
            mutants.push(self.mutant(format!("fix-up {index} is forgotten"), |livepatch, _| {
                livepatch.fixups.remove(index);
            }));
            mutants.push(self.mutant(format!("fix-up {index} counts from another place"), |livepatch, _| {
                let FixupKind::PcRel32 { new_next, .. } = &mut livepatch.fixups[index].kind;
                *new_next = new_next.wrapping_offset(1);
            }));
        }
        mutants
    }

    fn wrong_detours(&self) -> Vec<Mutant> {
        let mut mutants = Vec::new();
        let others: Vec<Va> =
            self.livepatch.replaced.iter().filter_map(|f| Some(f.new_ranges.first()?.start())).collect();
        for (index, detour) in self.livepatch.detours.iter().enumerate() {
            for wrong in others.iter().copied().chain([detour.new_target.wrapping_offset(4)]) {
                if wrong != detour.new_target {
                    mutants.push(self.mutant(format!("detour {index} leads to {wrong}"), |livepatch, _| {
                        livepatch.detours[index].new_target = wrong;
                    }));
                }
            }
            mutants.push(self.mutant(format!("detour {index} expects other bytes"), |livepatch, _| {
                livepatch.detours[index].expected[2] ^= 0x10;
            }));
            mutants.push(self.mutant(format!("detour {index} lies one byte on"), |livepatch, _| {
                let detour = &mut livepatch.detours[index];
                detour.old_va = detour.old_va.wrapping_offset(1);
            }));
            mutants.push(self.mutant(format!("detour {index} is of another function"), |livepatch, claims| {
                let (to, from) = (&mut livepatch.detours[index], claims.same[claims.same.len() / 2].old.start());
                (to.old_entry, to.old_va) = (from, from);
            }));
        }
        mutants
    }

    /// Functions dropped from the payload, from the list, or from what is claimed.
    fn dropped_functions(&self) -> Vec<Mutant> {
        let mut mutants = Vec::new();
        for (index, function) in self.livepatch.replaced.iter().enumerate() {
            mutants.push(self.mutant(format!("{} is not in the list", function.name), |livepatch, _| {
                livepatch.replaced.remove(index);
            }));
            let Some(range) = function.new_ranges.first().copied() else { continue };
            mutants.push(self.mutant(format!("{} is not in the payload", function.name), |livepatch, _| {
                for at in 0..range.len_bytes() {
                    *byte(livepatch, range.start().wrapping_offset(at.cast_signed())) = 0xcc;
                }
            }));
        }
        for index in 0..self.claims.changed.len() {
            mutants.push(self.mutant(format!("changed function {index} is said to be the same"), |_, claims| {
                let pair = claims.changed.remove(index);
                claims.same.push(pair);
                claims.same.sort_by_key(|pair| pair.new);
            }));
            mutants.push(self.mutant(format!("changed function {index} is not claimed"), |_, claims| {
                claims.changed.remove(index);
            }));
            mutants.push(self.mutant(format!("changed function {index} is said to be unreached"), |_, claims| {
                let pair = claims.changed.remove(index);
                claims.unreached.push(pair);
            }));
        }
        mutants
    }

    /// One bit of every `step`-th byte of the payload's code and constants.
    fn flipped_bytes(&self, step: usize) -> Vec<Mutant> {
        let code = self.livepatch.replaced.iter().flat_map(|function| &function.new_ranges);
        let code =
            code.flat_map(|range| (0..range.len_bytes()).map(|at| range.start().wrapping_offset(at.cast_signed())));
        // A fix-up's field is written over: what stands there before says nothing.
        let fixed = |at: &Va| {
            self.livepatch.fixups.iter().any(|f| (0..4).any(|offset| f.new_va.wrapping_offset(offset) == *at))
        };
        let code = code.filter(|at| !fixed(at)).step_by(step);
        let data = self.livepatch.segments.iter().filter(|segment| segment.access == Access::Read);
        let data = data.flat_map(|segment| {
            let len = i64::try_from(segment.bytes.len()).expect("fits");
            (0..len).step_by(step * 40).map(|at| segment.new_va.wrapping_offset(at))
        });
        let flipped = |at: Va| {
            self.mutant(format!("a bit of the byte at {at}"), |livepatch, _| {
                *byte(livepatch, at) ^= 1 << (at.raw() % 8);
            })
        };
        code.chain(data).map(flipped).collect()
    }

    /// Every `step`-th claim, made to lie.
    fn lies(&self, step: usize) -> Vec<Mutant> {
        let mut mutants = Vec::new();
        for index in (1..self.claims.same.len()).step_by(step) {
            mutants.push(self.mutant(format!("same {index} has the counterpart of the one before"), |_, claims| {
                let before = claims.same[index - 1].old;
                claims.same[index - 1].old = std::mem::replace(&mut claims.same[index].old, before);
            }));
        }
        for index in (0..self.claims.data.len()).step_by(step) {
            for by in [8, -8, 1] {
                mutants.push(self.mutant(format!("data run {index} is moved by {by}"), |_, claims| {
                    let run = &mut claims.data[index];
                    run.old = run.old.wrapping_offset(by);
                }));
            }
        }
        for (index, claim) in self.claims.noise.iter().enumerate().step_by(step) {
            mutants.push(self.mutant(format!("noise {index} is said to be the same"), |_, claims| {
                let claim = claims.noise.remove(index);
                claims.same.push(claim.pair);
                claims.same.sort_by_key(|pair| pair.new);
            }));
            if !claim.sites.is_empty() {
                mutants.push(self.mutant(format!("noise {index} has its site elsewhere"), |_, claims| {
                    let site = &mut claims.noise[index].sites[0];
                    site.new_at = site.new_at.wrapping_offset(1);
                    site.old_at = site.old_at.wrapping_offset(1);
                }));
            }
        }
        mutants
    }

    fn wrong_imports(&self) -> Vec<Mutant> {
        let mut mutants = Vec::new();
        for (index, import) in self.livepatch.imports.iter().enumerate() {
            let mut add = |what: &str, change: &dyn Fn(&mut Livepatch)| {
                let what = format!("import {index} ({}): {what}", import.symbol);
                mutants.push(self.mutant(what, |livepatch, _| change(livepatch)));
            };
            add("another symbol", &|l| l.imports[index].symbol.push('x'));
            add("another version", &|l| l.imports[index].version = Some("GLIBC_2.99".to_owned()));
            add("an empty version", &|l| l.imports[index].version = Some(String::new()));
            add("the slot behind", &|l| l.imports[index].new_va = l.imports[index].new_va.wrapping_offset(8));
            add("not listed", &|l| drop(l.imports.remove(index)));
            add("something in its slot", &|l| *byte(l, import.new_va) = 1);
            let next = (index + 1) % self.livepatch.imports.len();
            add("the symbol of another", &|l| l.imports[index].symbol = l.imports[next].symbol.clone() + "");
            let functions = self.livepatch.replaced.iter();
            let olds = functions.clone().flat_map(|f| &f.old_ranges).map(|range| OwnAddress::Old(range.start()));
            let news = functions.flat_map(|f| &f.new_ranges).map(|range| OwnAddress::Payload(range.start()));
            let beside = import.own.map(|own| match own {
                OwnAddress::Old(at) => OwnAddress::Old(at.wrapping_offset(4)),
                OwnAddress::Payload(at) => OwnAddress::Payload(at.wrapping_offset(4)),
            });
            for own in olds.chain(news).chain(beside).map(Some).chain([None]) {
                add(&format!("the own definition {own:?}"), &|l| l.imports[index].own = own);
            }
        }
        mutants.retain(|mutant| mutant.livepatch != self.livepatch);
        mutants
    }

    /// Words of tables that the payload brings.
    fn wrong_pointers(&self) -> Vec<Mutant> {
        let mut mutants = Vec::new();
        let beside = |to, by| match to {
            OwnAddress::Old(at) => OwnAddress::Old(at.wrapping_offset(by)),
            OwnAddress::Payload(at) => OwnAddress::Payload(at.wrapping_offset(by)),
        };
        let other_side = |to| match to {
            OwnAddress::Old(at) => OwnAddress::Payload(at),
            OwnAddress::Payload(at) => OwnAddress::Old(at),
        };
        for (index, pointer) in self.livepatch.pointers.iter().enumerate() {
            let mut add = |what: &str, change: &dyn Fn(&mut Livepatch)| {
                let what = format!("pointer {index} at {}: {what}", pointer.new_va);
                mutants.push(self.mutant(what, |livepatch, _| change(livepatch)));
            };
            for by in [-8, -1, 1, 8, 0x1000] {
                add(&format!("{by:+}"), &|l| l.pointers[index].to = beside(pointer.to, by));
            }
            add("of the other side", &|l| l.pointers[index].to = other_side(pointer.to));
            let next = self.livepatch.pointers[(index + 1) % self.livepatch.pointers.len()].to;
            add("that of another", &|l| l.pointers[index].to = next);
            add("the word behind", &|l| l.pointers[index].new_va = pointer.new_va.wrapping_offset(8));
            add("not listed", &|l| l.pointers.retain(|other| other != pointer));
            add("something in its word", &|l| *byte(l, pointer.new_va) = 1);
        }
        mutants.retain(|mutant| mutant.livepatch != self.livepatch);
        mutants
    }

    /// Words of the old image's tables, and who reads them.
    fn wrong_words(&self) -> Vec<Mutant> {
        let mut mutants = Vec::new();
        let beside = |value, by: i64| match value {
            WordValue::Number(number) => WordValue::Number(number.wrapping_add_signed(by)),
            WordValue::Old(at) => WordValue::Old(at.wrapping_offset(by)),
            WordValue::Payload(at) => WordValue::Payload(at.wrapping_offset(by)),
        };
        let otherwise = |value| match value {
            WordValue::Number(number) => [WordValue::Old(Va::new(number)), WordValue::Payload(Va::new(number))],
            WordValue::Old(at) => [WordValue::Number(at.raw()), WordValue::Payload(at)],
            WordValue::Payload(at) => [WordValue::Number(at.raw()), WordValue::Old(at)],
        };
        for (index, word) in self.livepatch.words.iter().enumerate() {
            let mut add = |what: &str, change: &dyn Fn(&mut Livepatch)| {
                let what = format!("word {index} at {}: {what}", word.old_va);
                mutants.push(self.mutant(what, |livepatch, _| change(livepatch)));
            };
            for by in [-8, -1, 1, 8, 0x1000] {
                add(&format!("becomes {by:+}"), &|l| l.words[index].new = beside(word.new, by));
                add(&format!("expects {by:+}"), &|l| l.words[index].expected = beside(word.expected, by));
                add(&format!("lies at {by:+}"), &|l| l.words[index].old_va = word.old_va.wrapping_offset(by));
            }
            for (new, expected) in otherwise(word.new).into_iter().zip(otherwise(word.expected)) {
                add("becomes something of the other side", &|l| l.words[index].new = new);
                add("expects something of the other side", &|l| l.words[index].expected = expected);
            }
            let next = self.livepatch.words[(index + 1) % self.livepatch.words.len()];
            add("becomes that of another", &|l| l.words[index].new = next.new);
            add("is exchanged", &|l| {
                (l.words[index].new, l.words[index].expected) = (word.expected, word.new);
            });
            add("twice", &|l| l.words.insert(index, *word));
            add("not listed", &|l| l.words.retain(|other| other != word));
        }
        for (index, reader) in self.livepatch.readers.iter().enumerate() {
            let mut add = |what: &str, change: &dyn Fn(&mut Livepatch)| {
                mutants.push(self.mutant(format!("reader {}: {what}", reader.name), |livepatch, _| change(livepatch)));
            };
            add("not listed", &|l| drop(l.readers.remove(index)));
            add("another function", &|l| l.readers[index].old_range = self.claims.same[0].old);
        }
        mutants.retain(|mutant| mutant.livepatch != self.livepatch);
        mutants
    }

    /// What shows that one function has the role of another, forgotten or untrue.
    fn wrong_takings(&self) -> Vec<Mutant> {
        let mut mutants = Vec::new();
        for index in 0..self.claims.takings.len() {
            mutants.push(self.mutant(format!("taking {index} is forgotten"), |_, claims| {
                claims.takings.remove(index);
            }));
            for (old, new) in [(7, 7), (-7, -7), (0, 7), (7, 0), (1, 1)] {
                mutants.push(self.mutant(format!("taking {index} is moved by {old} and {new}"), |_, claims| {
                    let site = &mut claims.takings[index];
                    site.old_at = site.old_at.wrapping_offset(old);
                    site.new_at = site.new_at.wrapping_offset(new);
                }));
            }
        }
        mutants
    }

    /// `step` thins out bytes and claims. Where it does, references lose kinds of
    /// mutants, and none of them all of its own: there are more than `FEWEST` for each.
    fn all(&self, step: usize) -> Vec<Mutant> {
        const FEWEST: usize = 10;
        let references = self.wrong_references().into_iter().step_by(step.min(FEWEST));
        let changes = [self.wrong_detours(), self.dropped_functions(), self.wrong_words()];
        let addresses = [self.wrong_imports(), self.wrong_pointers()];
        let few = changes.into_iter().chain(addresses);
        let many = [self.flipped_bytes(step), self.lies(step)];
        references.chain(few.chain(many).flatten()).collect()
    }
}

fn target(kind: FixupKind) -> Va {
    let FixupKind::PcRel32 { old_target, .. } = kind;
    old_target
}

/// The payload's byte at an address that it has.
fn byte(livepatch: &mut Livepatch, at: Va) -> &mut u8 {
    let segment = livepatch.segments.iter_mut().find(|s| s.range().is_some_and(|range| range.contains(at)));
    let segment = segment.expect("in the payload");
    let offset = usize::try_from(at.raw() - segment.new_va.raw()).expect("fits");
    &mut segment.bytes[offset]
}

fn largest_image(package: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../corpus").join(package);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found: Vec<Vec<u8>> = Vec::new();
    deb::elves(file, &deb::Limits::default(), &mut |_, elf| {
        found.push(elf.bytes);
        ControlFlow::Continue(())
    })
    .expect("a package");
    found.into_iter().max_by_key(Vec::len).expect("an image")
}

fn package(name: &str, versions: (&str, &str)) -> Case {
    let image = |version: &str| largest_image(&format!("{name}_{version}_amd64.deb"));
    Case::of(image(versions.0), image(versions.1), Some(versions))
}

const PROGRAM: &[&str] = &["-fPIE", "-pie"];
const LIBRARY: &[&str] = &["-fno-builtin", "-fPIC", "-shared", "-DIMAGE_one"];

/// Both versions of a victim.
fn built(victim: &str, flags: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testkit/victims").join(victim);
    let directory = tempfile::tempdir().expect("a directory");
    let image = |new: u8| {
        let output = directory.path().join(new.to_string());
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-g0", "-s"]).args(flags).arg(format!("-DNEW={new}"));
        assert!(gcc.arg("-o").arg(&output).arg(&source).status().expect("gcc runs").success());
        std::fs::read(output).expect("an image")
    };
    (image(0), image(1))
}

#[test]
fn no_mutant_of_libpngs_livepatch_passes() {
    let case = package("libpng16-16", ("1.6.39-2+deb12u5", "1.6.39-2+deb12u6"));
    case.assert_all_are_caught("libpng", &case.all(7));
    // Its code hands addresses of constants to others.
    let unmap = case.mutant("the payload may be unmapped".to_owned(), |l, _| l.revert = RevertPolicy::Unmap);
    case.assert_all_are_caught("libpng", &[unmap]);
}

#[test]
fn no_mutant_of_liblzmas_livepatch_passes() {
    let case = package("liblzma5", ("5.4.1-1+deb12u1", "5.4.1-1+deb12u2"));
    case.assert_all_are_caught("liblzma", &case.all(11));
}

#[test]
fn no_mutant_of_haproxys_livepatch_passes() {
    let case = package("haproxy", ("2.6.12-1+deb12u3", "2.6.12-1+deb12u4"));
    case.assert_all_are_caught("haproxy", &case.all(307));
}

#[test]
fn no_mutant_of_a_livepatch_with_new_imports_passes() {
    let case = Case::of_victim("behaviours/new_import.c", LIBRARY);
    assert!(case.livepatch.imports.len() >= 3, "{:?}", case.livepatch.imports);
    case.assert_all_are_caught("new imports", &case.all(1));
}

#[test]
fn no_mutant_of_a_livepatch_that_calls_what_its_image_exports_passes() {
    let case = Case::of_victim("behaviours/new_export.c", LIBRARY);
    let own: Vec<_> = case.livepatch.imports.iter().filter_map(|import| import.own).collect();
    let of_both = |own: &[_]| {
        matches!(own, [OwnAddress::Old(_), OwnAddress::Payload(_)] | [OwnAddress::Payload(_), OwnAddress::Old(_)])
    };
    assert!(of_both(&own), "{:?}", case.livepatch.imports);
    case.assert_all_are_caught("new exports", &case.all(1));
}

#[test]
fn no_mutant_of_a_livepatch_that_changes_words_in_place_passes() {
    let case = Case::of_victim("behaviours/words_in_place.c", PROGRAM);
    assert!(case.livepatch.words.len() == 6 && !case.livepatch.readers.is_empty(), "{:?}", case.livepatch.words);
    case.assert_all_are_caught("words", &case.all(1));
    let unmap = case.mutant("the payload may be unmapped".to_owned(), |l, _| l.revert = RevertPolicy::Unmap);
    case.assert_all_are_caught("words", &[unmap]);
    let case = Case::of_victim("behaviours/words_with_code.c", LIBRARY);
    assert_eq!((case.livepatch.words.len(), case.livepatch.detours.len()), (2, 1), "{:?}", case.livepatch.words);
    case.assert_all_are_caught("words and code", &case.all(1));
}

/// Whatever a matcher could be made to write in place, the validator asks for itself: sizes
/// that others changed with, functions, what others may have a copy of.
#[test]
fn words_that_the_verdict_refuses_are_refused_by_the_validator_as_well() {
    for (victim, flags) in [
        ("words_resize_a_buffer.c", PROGRAM),
        ("words_of_functions.c", LIBRARY),
        ("words_exported.c", LIBRARY),
        ("words_written.c", LIBRARY),
    ] {
        let (old, new) = built(victim, flags);
        let limits = ImageLimits::default();
        let (a, b) = (Image::parse(&old, &limits).expect("old image"), Image::parse(&new, &limits).expect("new image"));
        let diff = diff(&a, &b);
        let mut judgement = judge(&diff, &NoiseContext { versions: None });
        assert!(judgement.words.is_empty() && judgement.verdict() == Verdict::Refused, "{victim}");
        judgement.words.words = diff.word_runs.iter().flat_map(|found| found.words.iter().copied()).collect();
        judgement.words.runs = diff.word_runs.iter().map(|found| found.run).collect();
        judgement.words.readers = (0..a.functions().len()).collect();
        judgement.revert = RevertPolicy::KeepMapped;
        let composed = compose(&diff, &judgement).expect("composes");
        assert!(!composed.livepatch.words.is_empty(), "{victim}");
        let claims = claims(&diff, &judgement);
        let found = salve_validate::validate(&old, &new, &composed.livepatch, &claims);
        let expected = matches!(
            (victim, &found),
            ("words_resize_a_buffer.c", Err(Invalid::WordResized { .. }))
                | ("words_of_functions.c", Err(Invalid::WordValue { .. }))
                | ("words_exported.c", Err(Invalid::WordPlace { .. }))
                | ("words_written.c", Err(Invalid::TableWritten { .. }))
        );
        assert!(expected, "{victim}: {found:?}");
    }
}

#[test]
fn no_mutant_of_a_livepatch_that_brings_tables_passes() {
    let case = Case::of_victim("behaviours/new_table.c", PROGRAM);
    assert_eq!(case.livepatch.pointers.len(), 6, "{:?}", case.livepatch.pointers);
    case.assert_all_are_caught("tables", &case.all(1));
    let unmap = case.mutant("the payload may be unmapped".to_owned(), |l, _| l.revert = RevertPolicy::Unmap);
    case.assert_all_are_caught("tables", &[unmap]);
}

#[test]
fn no_mutant_of_a_livepatch_whose_roles_rest_on_changed_code_passes() {
    let case = Case::of_victim("behaviours/callback_of_changed_code.c", PROGRAM);
    assert_eq!(case.claims.takings.len(), 1, "{:?}", case.claims.takings);
    case.assert_all_are_caught("roles", &case.wrong_takings());
    case.assert_all_are_caught("roles", &case.all(1));
}

/// The verdict refuses it; what it would have come to, the validator refuses as well.
#[test]
fn no_table_is_brought_that_code_writes_into() {
    let (old, new) = built("table_written.c", PROGRAM);
    let limits = ImageLimits::default();
    let (a, b) = (Image::parse(&old, &limits).expect("old image"), Image::parse(&new, &limits).expect("new image"));
    let diff = diff(&a, &b);
    let mut judgement = judge(&diff, &NoiseContext { versions: None });
    assert_eq!(judgement.copied_tables, None);
    judgement.copied_tables = b.section_named(".data.rel.ro").map(|section| section.range);
    judgement.revert = RevertPolicy::KeepMapped;
    let composed = compose(&diff, &judgement).expect("composes");
    let proof = salve_validate::validate(&old, &new, &composed.livepatch, &claims(&diff, &judgement));
    assert!(matches!(proof, Err(salve_validate::Invalid::TableWritten { .. })), "{proof:?}");
}
