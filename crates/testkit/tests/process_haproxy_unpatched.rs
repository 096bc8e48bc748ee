//! Before anything is patched: the probe really tells the two versions apart,
//! and the harness itself loses no request.

use anyhow::Result;
use salve_testkit::backend::Backend;
use salve_testkit::corpus::Side;
use salve_testkit::haproxy::{Haproxy, THREADS};
use salve_testkit::load::{Load, Plan};
use salve_testkit::observe::{self, Text};

#[test]
fn the_chunk_size_request_tells_the_old_haproxy_from_the_new_one() -> Result<()> {
    let backend = Backend::start()?;
    let old = Haproxy::start(Side::Old, backend.address())?;
    let new = Haproxy::start(Side::New, backend.address())?;
    for _ in 0..3 {
        let (from_old, from_new) = (old.behaviour()?, new.behaviour()?);
        assert!(from_old.is_old(), "{from_old}");
        assert!(from_new.is_new(), "{from_new}");
        old.ordinary_request_works()?;
        new.ordinary_request_works()?;
    }
    Ok(())
}

#[test]
fn an_undisturbed_haproxy_answers_every_request_and_stays_what_it_is() -> Result<()> {
    let backend = Backend::start()?;
    let mut haproxy = Haproxy::start(Side::Old, backend.address())?;
    let identity = observe::identity(haproxy.pid())?;
    let text = Text::of(haproxy.pid())?;
    let load = Load::start(haproxy.service, Plan::default())?;
    let listening = observe::sockets(haproxy.pid())?.listening;
    load.pass(3000)?;
    assert_eq!(observe::threads(haproxy.pid())?, THREADS as usize);
    let memory = observe::memory(haproxy.pid())?;
    load.pass(3000)?;
    let after = observe::memory(haproxy.pid())?;
    assert_eq!((after.copied_bytes, after.shareable_bytes), (memory.copied_bytes, 0), "traffic moved what it must not");
    let report = load.end();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.failed, 0);
    haproxy.must_run()?;
    assert_eq!(observe::identity(haproxy.pid())?, identity);
    assert_eq!(observe::sockets(haproxy.pid())?.listening, listening);
    assert_eq!(Text::of(haproxy.pid())?.differences_from(&text), Vec::<String>::new());
    assert!(!listening.is_empty() && text.len_bytes() > 1 << 20);
    Ok(())
}
