//! From what was derived and who runs, to what is done in which process.
//!
//! Images are found in processes by content and by nothing else. All images of
//! one source package change in one process together or not at all, so the
//! gravest verdict among those that the process maps decides for all of them.

use super::consent::{Consent, consent};
use salve_elf::ContentHash;
use salve_patch::{Reason, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// One derived update, as far as planning cares.
#[derive(Clone, Debug)]
pub(crate) struct Offer<'a> {
    /// What changes together: the source package, or the file without one.
    pub(crate) source: &'a str,
    pub(crate) new_version: Option<&'a str>,
    pub(crate) images: Vec<OfferedImage<'a>>,
}

#[derive(Clone, Debug)]
pub(crate) struct OfferedImage<'a> {
    pub(crate) path: &'a str,
    pub(crate) old: Option<ContentHash>,
    pub(crate) new: Option<ContentHash>,
    pub(crate) verdict: Verdict,
    pub(crate) reasons: &'a [Reason],
    pub(crate) has_livepatch: bool,
}

/// One process: the images it maps and what it carries already.
#[derive(Clone, Debug)]
pub(crate) struct Runner {
    pub(crate) images: Vec<(String, ContentHash)>,
    /// Old and new content of the livepatches that are applied in full.
    pub(crate) carries: Vec<(ContentHash, ContentHash)>,
}

/// What is done with one process for one update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Index into the runners.
    pub(crate) runner: usize,
    pub(crate) source: String,
    /// Offer and image within it, for every image of the update that the process maps.
    pub(crate) images: Vec<(usize, usize)>,
    pub(crate) decision: Decision,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Apply the livepatches of all the step's images that have one, in one transition.
    Apply,
    /// The process carries exactly this already.
    Already,
    /// The update changes no code in what the process maps.
    Unchanged,
    /// A person has to accept these first.
    NeedsAccept {
        codes: BTreeSet<String>,
    },
    Refused {
        codes: BTreeSet<String>,
    },
    /// The offers contradict each other about this process.
    Ambiguous {
        why: String,
    },
}

/// Every step, in the order of the runners and of the sources' names.
pub(crate) fn steps(runners: &[Runner], offers: &[Offer<'_>], accepted: &BTreeSet<String>) -> Vec<Step> {
    let mut steps = Vec::new();
    for (runner, process) in runners.iter().enumerate() {
        let mut by_source: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
        let mut unclear: BTreeMap<&str, String> = BTreeMap::new();
        let images: BTreeSet<&(String, ContentHash)> = process.images.iter().collect();
        for (path, content) in images {
            match offered(path, *content, offers) {
                Found::Nothing => {}
                Found::One(offer, image) => {
                    let Some(source) = offers.get(offer).map(|o| o.source) else { continue };
                    let of_source = by_source.entry(source).or_default();
                    if !of_source.contains(&(offer, image)) {
                        of_source.push((offer, image));
                    }
                }
                Found::Contradiction { source, why } => {
                    by_source.entry(source).or_default();
                    unclear.insert(source, why);
                }
            }
        }
        for (source, images) in by_source {
            let decision = match unclear.remove(source) {
                Some(why) => Decision::Ambiguous { why },
                None => decide(&images, process, offers, accepted),
            };
            steps.push(Step { runner, source: source.to_owned(), images, decision });
        }
    }
    steps
}

enum Found<'a> {
    Nothing,
    One(usize, usize),
    Contradiction { source: &'a str, why: String },
}

/// The one offered image whose old content this is. Two offers of one content
/// must lead to the same new content; then the one with the same path is meant.
fn offered<'a>(path: &str, content: ContentHash, offers: &[Offer<'a>]) -> Found<'a> {
    let mut found: Vec<(usize, usize, &Offer<'a>, &OfferedImage<'a>)> = Vec::new();
    for (o, offer) in offers.iter().enumerate() {
        for (i, image) in offer.images.iter().enumerate() {
            if image.old == Some(content) {
                found.push((o, i, offer, image));
            }
        }
    }
    let Some(&(o, i, offer, image)) = found.first() else { return Found::Nothing };
    if let Some((_, _, other, _)) = found.iter().find(|(_, _, _, other)| other.new != image.new) {
        let version = |offer: &Offer<'_>| offer.new_version.unwrap_or("an unknown version").to_owned();
        let why =
            format!("{path} could become {} {} or {} {}", offer.source, version(offer), other.source, version(other));
        return Found::Contradiction { source: offer.source, why };
    }
    match found.iter().find(|(_, _, _, image)| image.path == path) {
        Some(&(o, i, _, _)) => Found::One(o, i),
        None => Found::One(o, i),
    }
}

fn decide(images: &[(usize, usize)], process: &Runner, offers: &[Offer<'_>], accepted: &BTreeSet<String>) -> Decision {
    let images: Vec<&OfferedImage<'_>> =
        images.iter().filter_map(|&(offer, image)| offers.get(offer)?.images.get(image)).collect();
    let changing: Vec<&&OfferedImage<'_>> = images.iter().filter(|image| image.has_livepatch).collect();
    let carried = |image: &OfferedImage<'_>| match (image.old, image.new) {
        (Some(old), Some(new)) => process.carries.contains(&(old, new)),
        _no_pair => false,
    };
    if !changing.is_empty() && changing.iter().all(|image| carried(image)) {
        return Decision::Already;
    }
    match consent(images.iter().map(|image| (image.verdict, image.reasons)), accepted) {
        Consent::Nothing => Decision::Unchanged,
        Consent::Accept { codes } => Decision::NeedsAccept { codes },
        Consent::Refused { codes } => Decision::Refused { codes },
        Consent::Take => {
            // A verdict that lets something in, without anything to let in, is a contradiction.
            let missing = images.iter().find(|image| image.verdict != Verdict::Unchanged && !image.has_livepatch);
            match missing {
                Some(image) => Decision::Ambiguous { why: format!("{} has a verdict without a livepatch", image.path) },
                None => Decision::Apply,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_REASONS: [Reason; 0] = [];

    fn content(name: &str) -> ContentHash {
        ContentHash::of(name.as_bytes())
    }

    fn image<'a>(path: &'a str, old: &str, new: &str, verdict: Verdict, reasons: &'a [Reason]) -> OfferedImage<'a> {
        OfferedImage {
            path,
            old: Some(content(old)),
            new: Some(content(new)),
            verdict,
            reasons,
            has_livepatch: matches!(verdict, Verdict::Safe | Verdict::Review),
        }
    }

    fn safe<'a>(path: &'a str, old: &str, new: &str) -> OfferedImage<'a> {
        image(path, old, new, Verdict::Safe, &NO_REASONS)
    }

    fn offer<'a>(source: &'a str, images: Vec<OfferedImage<'a>>) -> Offer<'a> {
        Offer { source, new_version: Some("2"), images }
    }

    fn runner(images: &[(&str, &str)]) -> Runner {
        let images = images.iter().map(|(path, name)| ((*path).to_owned(), content(name))).collect();
        Runner { images, carries: Vec::new() }
    }

    fn decisions(runners: &[Runner], offers: &[Offer<'_>]) -> Vec<(usize, String, Decision)> {
        steps(runners, offers, &BTreeSet::new()).into_iter().map(|s| (s.runner, s.source, s.decision)).collect()
    }

    #[test]
    fn processes_are_found_by_content_whatever_the_path_says() {
        let offers = [offer("haproxy", vec![safe("/usr/sbin/haproxy", "old", "new")])];
        let runners = [
            runner(&[("/srv/copy-of-haproxy", "old")]),
            runner(&[("/usr/sbin/haproxy", "something else")]),
            runner(&[]),
        ];
        assert_eq!(decisions(&runners, &offers), [(0, "haproxy".into(), Decision::Apply)]);
    }

    #[test]
    fn images_of_one_source_change_together_and_the_gravest_decides() {
        let layout = [Reason {
            code: "struct-layout".into(),
            verdict: Verdict::Refused,
            summary: String::new(),
            evidence: Vec::new(),
        }];
        let images = vec![safe("/lib/a", "a1", "a2"), image("/lib/b", "b1", "b2", Verdict::Refused, &layout)];
        let offers = [offer("bind9", images), offer("zlib", vec![safe("/lib/z", "z1", "z2")])];
        let runners = [
            runner(&[("/lib/a", "a1"), ("/lib/b", "b1"), ("/lib/z", "z1")]),
            // maps only what is safe
            runner(&[("/lib/a", "a1")]),
        ];
        let refused = Decision::Refused { codes: BTreeSet::from(["struct-layout".to_owned()]) };
        assert_eq!(
            decisions(&runners, &offers),
            [(0, "bind9".into(), refused), (0, "zlib".into(), Decision::Apply), (1, "bind9".into(), Decision::Apply)]
        );
    }

    #[test]
    fn two_packages_of_one_source_are_one_transition() {
        let offers =
            [offer("bind9", vec![safe("/lib/a", "a1", "a2")]), offer("bind9", vec![safe("/sbin/named", "n1", "n2")])];
        let got = steps(&[runner(&[("/lib/a", "a1"), ("/sbin/named", "n1")])], &offers, &BTreeSet::new());
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].images, [(0, 0), (1, 0)]);
    }

    #[test]
    fn two_ways_forward_are_ambiguous_and_two_names_of_one_way_are_not() {
        let here = [runner(&[("/lib/b", "old")])];
        let twice = [offer("x", vec![safe("/lib/a", "old", "new"), safe("/lib/b", "old", "new")])];
        let got = steps(&here, &twice, &BTreeSet::new());
        assert_eq!((got[0].images.as_slice(), &got[0].decision), ([(0, 1)].as_slice(), &Decision::Apply));
        let apart = [offer("x", vec![safe("/lib/b", "old", "new")]), offer("x", vec![safe("/lib/b", "old", "newer")])];
        assert!(matches!(decisions(&here, &apart)[0].2, Decision::Ambiguous { .. }));
    }

    #[test]
    fn what_a_process_carries_already_is_not_done_again() {
        let offers = [offer("x", vec![safe("/a", "a1", "a2"), safe("/b", "b1", "b2")])];
        let mut process = runner(&[("/a", "a1"), ("/b", "b1")]);
        process.carries.push((content("a1"), content("a2")));
        assert_eq!(decisions(std::slice::from_ref(&process), &offers)[0].2, Decision::Apply, "half of it is not all");
        process.carries.push((content("b1"), content("b2")));
        assert_eq!(decisions(&[process], &offers)[0].2, Decision::Already);
    }

    #[test]
    fn an_update_without_changed_code_is_said_to_be_that() {
        let offers = [offer("memcached", vec![image("/m", "m1", "m2", Verdict::Unchanged, &NO_REASONS)])];
        assert_eq!(decisions(&[runner(&[("/m", "m1")])], &offers)[0].2, Decision::Unchanged);
    }
}
