//! What the files of one side are.

use super::Work;
use crate::side::{LoadedImage, Unusable};
use salve_protocol::{
    ElfFacts, Failure, FailureKind, ProbeReport, ProbedFile, ProbedKind, Response, Side, UnusableFile,
};

pub(crate) fn run(work: &Work<'_>, side: &Side) -> Result<Response, Failure> {
    let loaded = work.load(vec![side.clone()])?.into_iter().next();
    let loaded = loaded.ok_or_else(|| Failure::new(FailureKind::Internal).because("the side is missing"))?;
    let files = loaded.images.iter().map(probed).collect();
    Ok(Response::Probed(ProbeReport { package: loaded.package, files }))
}

fn probed(image: &LoadedImage) -> ProbedFile {
    let what = match &image.facts {
        Ok(facts) => ProbedKind::Image(ElfFacts {
            build_id: facts.build_id.clone(),
            soname: facts.soname.clone(),
            dynamic: facts.dynamic,
        }),
        Err(Unusable::Malformed(error)) => ProbedKind::Unusable(UnusableFile { why: error.to_string() }),
        Err(Unusable::Static) => ProbedKind::Unusable(UnusableFile { why: "static program".to_owned() }),
    };
    ProbedFile { path: image.path.clone(), sha256: image.sha256, len_bytes: image.len_bytes(), what }
}
