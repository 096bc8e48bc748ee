//! Planning: pure, deterministic, without I/O. Facts go in, decisions come out
//! with their reasons; what carries them out has no choices left.

mod consent;
mod direction;
mod leave;
mod leave_list;
mod ownership;
mod steps;
mod together;

pub(crate) use consent::{Consent, consent};
pub(crate) use direction::{Direction, Running, direction};
pub(crate) use leave::{Leave, Listed, Standing, leave};
pub(crate) use leave_list::{By, LeaveList, Named, Names};
pub(crate) use ownership::{FileOwner, Privilege, may_hand_over, may_replace};
pub(crate) use steps::{Decision, Offer, OfferedImage, Runner, Step, steps};
pub(crate) use together::{Bound, together};
