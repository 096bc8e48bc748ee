//! How the upstream tests of each source are built, and what runs them.
//!
//! A recipe prepares a directory once, by a script of `sh -e` that finds the new
//! version's source in `$SOURCE` and leaves programs behind. What is under test never
//! is what was built there: tests get the shipped library by `LD_LIBRARY_PATH`, and
//! every program that uses it is started through `$ORACLE_RUN`, which is empty or
//! `salve run --patch …`.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One upstream test: what is executed, and where.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    pub name: String,
    /// With `$ORACLE_RUN` in front, where the test itself uses the library.
    pub command: String,
    pub directory: PathBuf,
}

pub(crate) struct Recipe {
    pub package: &'static str,
    pub prepare: &'static str,
    /// What these tests do not reach, in words.
    pub left_out: &'static str,
    list: fn(&Path, &Path) -> Result<Vec<Test>>,
}

impl Recipe {
    pub(crate) fn tests(&self, built: &Path, source: &Path) -> Result<Vec<Test>> {
        (self.list)(built, source)
    }
}

pub(crate) fn of(package: &str) -> Option<&'static Recipe> {
    ALL.iter().find(|recipe| recipe.package == package)
}

pub(crate) const ALL: &[Recipe] = &[
    Recipe {
        package: "liblzma5",
        prepare: r#"
            "$SOURCE/configure" --disable-static --disable-nls --disable-doc CFLAGS=-O1 >configure.log 2>&1
            make -j2 >make.log 2>&1
            make -C tests check TESTS= >>make.log 2>&1
            for program in xz xzdec; do
                printf '#!/bin/sh\nexec $ORACLE_RUN "%s/src/%s/.libs/%s" "$@"\n' "$PWD" "$program" "$program" >wrapper
                chmod 755 wrapper
                mv wrapper "src/${program%dec}/$program" 2>/dev/null || mv wrapper "src/$program/$program"
            done
        "#,
        left_out: "programs of other packages that use the library",
        list: xz,
    },
    Recipe {
        package: "libarchive13",
        prepare: r#"
            "$SOURCE/configure" --disable-static --enable-bsdtar=shared --enable-bsdcpio=shared --enable-bsdcat=shared \
                --without-xml2 CFLAGS=-O1 >configure.log 2>&1
            make -j2 >make.log 2>&1
            make -j2 bsdtar_test bsdcpio_test bsdcat_test >>make.log 2>&1
            for program in bsdtar bsdcpio bsdcat; do
                printf '#!/bin/sh\nexec $ORACLE_RUN "%s/.libs/%s" "$@"\n' "$PWD" "$program" >"through-$program"
                chmod 755 "through-$program"
            done
        "#,
        left_out: "`libarchive_test`, which compiles the library's own sources in and never loads the shared one",
        list: libarchive,
    },
    Recipe {
        package: "libpng16-16",
        prepare: r#"
            "$SOURCE/configure" --disable-static CFLAGS=-O1 >configure.log 2>&1
            make -j2 check TESTS= >make.log 2>&1
            for program in pngtest pngvalid pngstest pngunknown pngimage; do
                printf '#!/bin/sh\nexec $ORACLE_RUN "%s/.libs/%s" "$@"\n' "$PWD" "$program" >"$program"
            done
        "#,
        left_out: "programs of other packages that use the library",
        list: png,
    },
    Recipe {
        package: "redis-tools",
        prepare: r#"
            cp -r "$SOURCE/tests" "$SOURCE/runtest" .
            mkdir -p src
            cp "$SOURCE/redis.conf" "$SOURCE/sentinel.conf" .
            for program in redis-server redis-sentinel redis-check-rdb; do
                printf '#!/bin/sh\nexec $ORACLE_RUN "$ORACLE_TREE/usr/bin/%s" "$@"\n' "$program" >"src/$program"
            done
            for program in redis-cli redis-benchmark redis-check-aof; do
                printf '#!/bin/sh\nexec "$ORACLE_TREE/usr/bin/%s" "$@"\n' "$program" >"src/$program"
            done
            chmod 755 src/*
        "#,
        left_out: "the tests of modules, of the cluster and of replication; the client programs, which are not patched",
        list: redis,
    },
];

/// `tests/`: programs of their own, and scripts that run `xz`.
fn xz(built: &Path, source: &Path) -> Result<Vec<Test>> {
    let directory = built.join("tests");
    let mut tests = Vec::new();
    for program in names(&directory.join(".libs"), "test_")? {
        let command = format!("srcdir={} $ORACLE_RUN ./.libs/{program}", source.join("tests").display());
        tests.push(Test { name: program, command, directory: directory.clone() });
    }
    let scripts = source.join("tests");
    let script = |name: &str, command: String| Test { name: name.to_owned(), command, directory: directory.clone() };
    tests.push(script("test_files.sh", format!("srcdir={0} sh {0}/test_files.sh", scripts.display())));
    for data in ["abc", "random", "text"] {
        tests.push(script(
            &format!("test_compress_generated_{data}"),
            format!("srcdir={0} sh {0}/test_compress.sh compress_generated_{data}", scripts.display()),
        ));
    }
    ensure_some(&tests, 5)?;
    Ok(tests)
}

/// The scripts of `tests/`, which run the programs beside them.
fn png(built: &Path, source: &Path) -> Result<Vec<Test>> {
    let scripts = source.join("tests");
    let test = |name: String| Test {
        command: format!("srcdir={} sh {}/{name}", source.display(), scripts.display()),
        directory: built.to_path_buf(),
        name,
    };
    let mut tests: Vec<Test> =
        names(&scripts, "png")?.into_iter().filter(|name| !name.contains('.')).map(test).collect();
    ensure_some(&tests, 20)?;
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tests)
}

/// Each unit of `tests/unit`, whose own names are what `--single` takes.
fn redis(built: &Path, _source: &Path) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for part in ["unit", "unit/type"] {
        for file in names(&built.join("tests").join(part), "")? {
            let Some(unit) = file.strip_suffix(".tcl") else { continue };
            let name = format!("{part}/{unit}");
            let command = format!("tclsh tests/test_helper.tcl --clients 1 --single {name}");
            tests.push(Test { name, command, directory: built.to_path_buf() });
        }
    }
    ensure_some(&tests, 20)?;
    Ok(tests)
}

fn ensure_some(tests: &[Test], least: usize) -> Result<()> {
    if tests.len() < least {
        bail!("only {} tests were found", tests.len());
    }
    Ok(())
}

/// The tests of the three programs, each by its name.
fn libarchive(built: &Path, source: &Path) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for (program, part) in [("bsdtar", "tar"), ("bsdcpio", "cpio"), ("bsdcat", "cat")] {
        let list = source.join(part).join("test");
        let mut names: Vec<String> =
            names(&list, "test_")?.into_iter().filter_map(|name| name.strip_suffix(".c").map(str::to_owned)).collect();
        names.sort();
        for name in names {
            let command =
                format!("./{program}_test -q -r {} -p {}/through-{program} {name}", list.display(), built.display());
            tests.push(Test { name: format!("{program} {name}"), command, directory: built.to_path_buf() });
        }
    }
    Ok(tests)
}

fn names(directory: &Path, prefix: &str) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    Ok(names)
}

/// Runs the script of a recipe, once; what it leaves behind is kept.
pub(crate) fn prepare(recipe: &Recipe, source: &Path, built: &Path) -> Result<()> {
    let done = built.join("prepared");
    if done.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(built).with_context(|| format!("cannot make {}", built.display()))?;
    let mut shell = Command::new("sh");
    shell.current_dir(built).env("SOURCE", source).args(["-ec", recipe.prepare]);
    let said = shell.output().context("cannot run sh")?;
    if !said.status.success() {
        let last = String::from_utf8_lossy(&said.stderr).lines().last().unwrap_or("it said nothing").to_owned();
        bail!("the tests of {} do not build in {}: {last}", recipe.package, built.display());
    }
    std::fs::write(done, "").context("cannot mark it as done")
}
