//! Prints what became of two images: `cargo run -p salve-match --example compare OLD NEW`.
#![allow(clippy::print_stdout, reason = "an example for people")]
use salve_elf::{Image, ImageLimits};
use salve_match::{align, compare_operands, diff, text_at};

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(a), Some(b)) = (args.next(), args.next()) else { return };
    let detail = args.next().is_some();
    let start = std::time::Instant::now();
    let (a, b) = (std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    let old = Image::parse(&a, &ImageLimits::default()).unwrap();
    let new = Image::parse(&b, &ImageLimits::default()).unwrap();
    println!("parsed {:?}", start.elapsed());
    let d = diff(&old, &new);
    println!("diffed {:?}", start.elapsed());
    println!(
        "old {} new {} identical {} changed {} added {} gone {} data {}",
        old.functions().len(),
        new.functions().len(),
        d.identical.len(),
        d.changed.len(),
        d.added.len(),
        d.gone.len(),
        d.data_changes.len()
    );
    let versions =
        std::env::var("VERSIONS").ok().and_then(|v| v.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())));
    let found = salve_match::noise(&d, &salve_match::NoiseContext { versions });
    println!("noise {} {:?}", found.len(), start.elapsed());
    for (i, n) in &found {
        println!("noise {i} {}", n.function);
        if detail {
            for e in &n.proof {
                println!("   {}", e.seen);
            }
        }
    }
    for (i, pair) in d.changed.iter().enumerate() {
        if found.iter().any(|(k, _)| *k == i) {
            continue;
        }
        let (f, g) = (&old.functions()[pair.old], &new.functions()[pair.new]);
        println!("{} {} -> {} {:?} moved {:x?}", f.display_name(), f.range, g.range, pair.evidence, pair.moved_targets);
        for s in &pair.sites {
            println!(
                "   {} {} {:?} {:?}",
                s.old_at,
                s.new_at,
                s.difference,
                salve_match::follow(&d.old, f.range, s.old_at)
            );
            if let salve_match::ContentDifference::Text { old: x, new: y } = s.difference {
                println!(
                    "      {:?} -> {:?}",
                    text_at(&d.old, x, 1).map(String::from_utf8_lossy),
                    text_at(&d.new, y, 1).map(String::from_utf8_lossy)
                );
            }
        }
        if pair.sites.is_empty() && detail {
            let delta = align(&d.old, f.range, &d.new, g.range);
            println!(
                "   aligned {} only old {} only new {}",
                delta.aligned.len(),
                delta.only_old.len(),
                delta.only_new.len()
            );
            for p in delta.aligned {
                for c in compare_operands(&p, f.range, g.range) {
                    if !matches!(c, salve_match::OperandChange::Target { .. }) {
                        println!("     {:x} {c:x?}", p.old.ip());
                    }
                }
            }
        }
    }
    for n in &d.added {
        println!("added {}", new.functions()[*n].range);
    }
    for o in &d.gone {
        println!("gone {}", old.functions()[*o].range);
    }
    for c in &d.data_changes {
        println!("{c:x?}");
    }
}
