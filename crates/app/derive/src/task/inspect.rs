use super::Work;
use salve_protocol::{Failure, FailureKind, InspectSides, Response};

pub(crate) fn run(
    _work: &Work<'_>,
    function: &str,
    _image: Option<&str>,
    _sides: &InspectSides,
) -> Result<Response, Failure> {
    Err(FailureKind::NoSuchFunction { function: function.to_owned() }.into())
}
