//! What people and programs are shown of a patch file. The JSON names are API
//! (docs/guide/json.md); the text is not.

mod crowd;
mod human;
mod image;
mod not_healed;
pub(crate) mod page;
mod who;

pub(crate) use crowd::action_lines;
pub(crate) use human::{bytes_for_people, counted, cve_list, duration_for_people, minute, not_looked_at_line};
pub(crate) use image::{ImageView, PatchView};
pub(crate) use not_healed::{NotHealedBrief, lines as not_healed_lines};
pub(crate) use who::{SHOWN, by_program, numbers, programs};
