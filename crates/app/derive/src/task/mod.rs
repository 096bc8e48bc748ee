//! One module for each kind of request.

pub(crate) mod attempt;
pub(crate) mod derive;
pub(crate) mod inspect;
pub(crate) mod probe;

use crate::channel::{Replies, SendError};
use crate::pool::Pool;
use crate::side::{Descriptors, LoadedSide, load};
use salve_protocol::{Failure, FailureKind, Progress, ResourceLimits, Response, Side, Stage};

/// What every task works with.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub pool: &'a Pool,
    pub replies: Replies<'a>,
    pub descriptors: Descriptors,
    pub limits: ResourceLimits,
}

impl Work<'_> {
    /// Progress is a courtesy: where the channel is gone, the last word will fail and say so.
    fn progress(&self, stage: Stage, image: Option<&str>, done: u64, total: u64) {
        let progress = Progress { stage, image: image.map(str::to_owned), done, total };
        let _: Result<(), SendError> = self.replies.send(&Response::Progress(progress));
    }

    /// Loads sides on the workers, at once where there are several.
    fn load(&self, sides: Vec<Side>) -> Result<Vec<LoadedSide>, Failure> {
        let total = u64::try_from(sides.len()).unwrap_or(u64::MAX);
        let mut loaded: Vec<Option<Result<LoadedSide, Failure>>> = sides.iter().map(|_| None).collect();
        let (descriptors, limits) = (self.descriptors.clone(), self.limits);
        self.progress(Stage::Read, None, 0, total);
        let mut done = 0_u64;
        self.pool.for_each(
            sides,
            u64::MAX,
            |_| 0,
            move |side| load(&side, &descriptors, &limits),
            |index, result| {
                let result = result.unwrap_or_else(|panic| Err(defect(&panic)));
                if let Some(slot) = loaded.get_mut(index) {
                    *slot = Some(result);
                }
                done = done.saturating_add(1);
                self.progress(Stage::Read, None, done, total);
            },
        );
        let unfinished = || Err(Failure::new(FailureKind::Internal).because("a worker ended"));
        loaded.into_iter().map(|side| side.unwrap_or_else(unfinished)).collect()
    }
}

/// A panic outside the analysis of one image.
fn defect(panic: &crate::pool::Panicked) -> Failure {
    Failure::new(FailureKind::Internal).caused_by(panic).hint("this is a defect in Salve; please report it")
}
