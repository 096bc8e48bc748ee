//! `salve man [--dir DIR]`

use crate::args::{Cli, Man};
use crate::exit::Exit;
use crate::problem::Problem;
use clap::CommandFactory as _;

pub(crate) fn run(args: &Man) -> Result<Exit, Problem> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|error| Problem::failed("man-page", "cannot render the manual page").because(error))?;
        super::print_bytes(&page)?;
        return Ok(Exit::Done);
    };
    clap_mangen::generate_to(Cli::command(), dir).map_err(|error| {
        Problem::failed("cannot-write", format!("cannot write manual pages into {}", dir.display()))
            .because(error)
            .hint("the directory has to exist")
    })?;
    Ok(Exit::Done)
}
