//! What Salve's tests, demo and benchmarks stand on: real packages, real
//! processes, and ways to see from outside what was done to them.
//!
//! Nothing here knows how Salve works. A test looks at a process the way an
//! operator could (its memory, its sockets, its answers), runs the built
//! `salve` the way an operator would, and compares.
//!
//! | module | gives |
//! |---|---|
//! | [`corpus`] | the package pairs in `corpus/`, extracted into scratch directories |
//! | [`needs`] | what has to be installed from apt, and installing it |
//! | [`running`] | a child process that is killed when the test ends, however it ends |
//! | [`observe`] | its executable memory, private memory, sockets and identity |
//! | [`together`] | whether several processes change together |
//! | [`spinner`] | a program that measures how long it was stopped |
//! | [`sleeper`] | a program asleep in a function that is replaced |
//! | [`victim`] | small C programs that carry their expectations in the source |
//! | [`behaviour`] | small C programs that say what they answer before and after |
//! | [`backend`], [`load`] | an HTTP server and steady traffic, on loopback |
//! | [`haproxy`] | the real HAProxy and the request that tells old from new |
//! | [`nginx`] | the real nginx, master and workers, and the request that reads its heap |
//! | [`salve`] | running the built `salve` and reading its report |
//! | [`embedded`] | a library of the corpus inside a running program |
//! | [`patchfile`] | what `derive` and `inspect` say of a pair |
//! | [`events`] | the events that `salve` recorded |
//! | [`debian`] | a throw-away Debian root with a working apt |
//! | [`booted`] | the same under systemd |
//! | [`deb`] | Salve's own packages |
//! | [`meddler`] | a proxy in the middle that changes what it passes on |
//! | [`demo`] | the main job, end to end |
//! | [`services`] | real services under their load, healed and reverted many times |
//! | [`torture`], [`supervisor`] | Salve killed at every moment, and a victim that notices |
//! | [`tools`] | small C programs to measure with |
//! | [`not_run`] | saying loudly that something could not be run |
#![forbid(unsafe_code)]
#![expect(clippy::missing_panics_doc, reason = "only tests call this, and a panic is how a test fails")]

pub mod backend;
pub mod behaviour;
pub mod booted;
pub mod corpus;
pub mod deb;
pub mod debian;
pub mod demo;
pub mod embedded;
pub mod events;
pub mod haproxy;
pub mod load;
pub mod meddler;
pub mod needs;
pub mod nginx;
pub mod not_run;
pub mod observe;
pub mod patchfile;
pub mod running;
pub mod salve;
pub mod services;
pub mod sleeper;
pub mod spinner;
pub mod steps;
pub mod supervisor;
pub mod together;
pub mod tools;
pub mod torture;
pub mod tree;
pub mod victim;
