//! What other live patchers' tests check, and more: each line on a small program that
//! says itself what it must answer (`victims/behaviours/`).

use anyhow::Result;
use salve_testkit::behaviour::{self, Behaviour};
use salve_testkit::not_run;

/// One test for each behaviour, so that each fails by its own name.
macro_rules! behaviours {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                if not_run::unless_root(concat!("behaviour ", stringify!($name))) {
                    return Ok(());
                }
                Behaviour::named(stringify!($name))?.check()
            }
        )*

        #[test]
        fn every_behaviour_has_its_test() -> Result<()> {
            assert_eq!(behaviour::all()?, [$(stringify!($name)),*]);
            Ok(())
        }
    };
}

behaviours! {
    cancelled
    changed_table
    children
    confined
    constructors
    contract
    coroutine
    dlopened
    endbr64
    exceptions
    finishes_soon
    fork_storm
    ifunc
    interposed
    library
    long_jump
    many_arguments
    new_function
    new_import
    new_import_ambiguous
    new_import_missing
    no_room_for_the_jump
    old_statics
    one_function
    other_librarys_data
    page_straddled
    plugins
    program_and_library
    read_only_data
    recursion
    red_zone
    shorter_than_the_jump
    signal_handlers
    symbolic
    table_end
    table_end_aligned
    text_relocations
    thread_local
    thread_local_initial_exec
    threads_come_and_go
    two_libraries
    visibility
}
