//! What other live patchers' tests check, and more: each line on a small program that
//! says itself what it must answer (`victims/behaviours/`).

use anyhow::Result;
use salve_testkit::behaviour::{self, Behaviour, Variant};
use salve_testkit::not_run;
use std::process::Command;

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
    callback_beside_a_constant
    callback_beside_another_constant
    callback_of_changed_code
    callbacks_by_condition
    callbacks_by_condition_alike
    callbacks_exchanged
    callbacks_with_numbers
    cancelled
    changed_table
    children
    code_beside_data
    confined
    constructors
    contract
    coroutine
    data_in_code
    data_in_code_followed
    deny_write_execute
    dlopened
    endbr64
    exceptions
    finishes_soon
    fork_storm
    ifunc
    interposed
    labels_by_distance
    library
    long_jump
    many_arguments
    marks_among_code
    new_export
    new_export_elsewhere
    new_function
    new_import
    new_import_ambiguous
    new_import_bound_lazily
    new_import_missing
    new_import_of_a_plugin
    new_table
    new_variable
    no_room_for_the_jump
    old_statics
    one_function
    opened_by_the_program
    other_librarys_data
    page_straddled
    plugins
    private_symbols
    program_and_library
    read_only_data
    recursion
    red_zone
    register_contract
    restartable
    short_tail_call
    short_tail_call_to_an_export
    short_tail_call_with_a_text
    shorter_than_the_jump
    signal_handlers
    symbolic
    table_beside_others
    table_end
    table_end_aligned
    table_grown
    text_behind_code
    text_relocations
    thousand_threads
    thread_local
    thread_local_initial_exec
    threads_come_and_go
    two_libraries
    visibility
    without_restarts
    words_in_place
    words_made_writable
    words_read_beside
    words_read_in_a_part
    words_while_read
    words_with_code
}

/// Every behaviour in one way of compiling. Another compiler makes other shapes, some of
/// which are refused; what is applied has to be right.
fn all_compiled(variant: Variant) -> Result<()> {
    let what = format!("behaviours with {} {}", variant.c, variant.flags.join(" "));
    if not_run::unless_root(&what) {
        return Ok(());
    }
    if Command::new(variant.c).arg("--version").output().is_err() {
        not_run::record(&what, "there is no such compiler");
        return Ok(());
    }
    let mut applied = 0;
    let mut wrong = Vec::new();
    for name in behaviour::all()? {
        match Behaviour::named(&name)?.compiled(variant).check_variant() {
            Ok(verdict) => applied += usize::from(verdict == "safe" || verdict == "review"),
            Err(error) => wrong.push(format!("{name}: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    assert!(applied > 10, "{what}: only {applied} were applied");
    Ok(())
}

#[test]
fn unoptimised_they_are_right_or_refused() -> Result<()> {
    all_compiled(Variant { c: "gcc", cpp: "g++", flags: &["-O0"] })
}

#[test]
fn optimised_to_the_utmost_they_are_right_or_refused() -> Result<()> {
    all_compiled(Variant { c: "gcc", cpp: "g++", flags: &["-O3", "-march=x86-64-v2", "-fno-plt"] })
}

#[test]
fn hardened_they_are_right_or_refused() -> Result<()> {
    let flags = &["-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-fcf-protection=full", "-Wl,-z,now"];
    all_compiled(Variant { c: "gcc", cpp: "g++", flags })
}

#[test]
fn compiled_by_clang_they_are_right_or_refused() -> Result<()> {
    all_compiled(Variant { c: "clang", cpp: "clang++", flags: &["-O2"] })
}
