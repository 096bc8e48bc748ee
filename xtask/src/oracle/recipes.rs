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
    /// The end of the path of the image under test, where that is not the largest of the package.
    pub image: Option<&'static str>,
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
        image: None,
        prepare: r#"
            "$SOURCE/configure" --disable-static --disable-nls --disable-doc CFLAGS=-O1 >configure.log 2>&1
            make -j2 >make.log 2>&1
            make -C tests check TESTS= >>make.log 2>&1
            for program in xz xzdec; do
                printf '#!/bin/sh\nexec $ORACLE_RUN "%s/src/%s/.libs/%s" "$@"\n' "$PWD" "$program" "$program" >wrapper
                chmod 755 wrapper
                mv wrapper "src/$program/$program"
            done
        "#,
        left_out: "programs of other packages that use the library",
        list: xz,
    },
    Recipe {
        package: "libarchive13",
        image: None,
        prepare: r#"
            # What made its build system is older than what it was made for.
            rm -rf source
            cp -r "$SOURCE" source
            (cd source && autoreconf -fi >autoreconf.log 2>&1)
            SOURCE=$PWD/source
            "$SOURCE/configure" --disable-static --enable-bsdtar=shared --enable-bsdcpio=shared --enable-bsdcat=shared \
                CFLAGS=-O1 >configure.log 2>&1
            make -j2 >make.log 2>&1
            make -j2 bsdtar_test bsdcpio_test bsdcat_test >>make.log 2>&1
            for program in bsdtar bsdcpio bsdcat; do
                printf '#!/bin/sh\nexec $ORACLE_RUN "%s/.libs/%s" "$@"\n' "$PWD" "$program" >"through-$program"
                chmod 755 "through-$program"
            done
            # Its own tests, linked with the shared library; without those that call what it keeps to itself.
            mkdir -p shared
            cd shared
            flags="-O1 -w -DHAVE_CONFIG_H -I.. -I. -I$SOURCE/libarchive -I$SOURCE/libarchive/test -I$SOURCE/test_utils"
            nm -D --defined-only ../.libs/libarchive.so | awk '{print $3}' | sort -u >exported
            nm --defined-only ../.libs/libarchive.a ../libarchive/.libs/*.o 2>/dev/null | awk 'NF==3 {print $3}' | sort -u >defined
            comm -23 defined exported >private
            for file in "$SOURCE"/libarchive/test/*.c; do
                object=$(basename "$file" .c).o
                gcc $flags -c "$file" -o "$object" 2>>compile.log || { rm -f "$object"; echo "$file" >>left-out; continue; }
                nm -u "$object" | awk '{print $2}' | sort -u >needed
                if [ -n "$(comm -12 needed private)" ]; then
                    echo "$file" >>left-out
                    rm "$object"
                    continue
                fi
                grep -h '^DEFINE_TEST(' "$file" >>list.h || true
            done
            for file in "$SOURCE"/test_utils/*.c; do gcc $flags -c "$file"; done
            gcc -o libarchive_test *.o -L../.libs -larchive $(sed -n 's/^LIBS = //p' ../Makefile) >link.log 2>&1
        "#,
        left_out: "tests of functions that the shared library does not export; `libarchive_test` compiles the \
                   library's sources in, so its tests were linked with the shared library instead",
        list: libarchive,
    },
    Recipe {
        package: "libpng16-16",
        image: None,
        prepare: r#"
            # The distributor's patches add programs to `Makefile.am`.
            cp -r "$SOURCE" source
            (cd source && autoreconf -fi >autoreconf.log 2>&1)
            source/configure --disable-static CFLAGS=-O1 >configure.log 2>&1
            make -j2 check TESTS= >make.log 2>&1
            for program in pngtest pngvalid pngstest pngunknown pngimage pnggetset; do
                [ -x ".libs/$program" ] || continue
                printf '#!/bin/sh\nexec $ORACLE_RUN "%s/.libs/%s" "$@"\n' "$PWD" "$program" >"$program"
            done
        "#,
        left_out: "`pngimage-full`, which tries every combination of what `pngimage-quick` tries one by one",
        list: png,
    },
    Recipe {
        package: "redis-tools",
        image: Some("/redis-check-rdb"),
        prepare: r#"
            cp -r "$SOURCE/tests" "$SOURCE/runtest" .
            mkdir -p src
            cp "$SOURCE/redis.conf" "$SOURCE/sentinel.conf" .
            # The server is this program under another name, by which it knows what it is.
            for program in redis-server redis-sentinel redis-check-rdb; do
                {
                    echo '#!/bin/sh'
                    echo 'mkdir -p "$ORACLE_TREE/oracle"'
                    echo "ln -sf ../usr/bin/redis-check-rdb \"\$ORACLE_TREE/oracle/$program\" 2>/dev/null"
                    echo "exec \$ORACLE_RUN \"\$ORACLE_TREE/oracle/$program\" \"\$@\""
                } >"src/$program"
            done
            for program in redis-cli redis-benchmark redis-check-aof; do
                printf '#!/bin/sh\nexec "$ORACLE_TREE/usr/bin/%s" "$@"\n' "$program" >"src/$program"
            done
            chmod 755 src/*
        "#,
        left_out: "the tests of modules, of the cluster and most of `tests/integration`; the client programs, which are not patched",
        list: redis,
    },
    Recipe {
        package: "haproxy",
        image: None,
        prepare: r#"
            cp -r "$SOURCE/reg-tests" "$SOURCE/scripts" .
            # The program that reads the tests is varnish's.
            apt-get download -qq -o APT::Sandbox::User=root varnish libvarnishapi3 2>apt.log
            for deb in *.deb; do dpkg-deb -x "$deb" root; done
            {
                echo '#!/bin/sh'
                echo "LD_LIBRARY_PATH=$PWD/root/usr/lib/x86_64-linux-gnu:$PWD/root/usr/lib/x86_64-linux-gnu/varnish"
                echo "export LD_LIBRARY_PATH"
                echo "exec $PWD/root/usr/bin/varnishtest \"\$@\""
            } >vtest
            printf '#!/bin/sh\nexec $ORACLE_RUN "$ORACLE_TREE/usr/sbin/haproxy" "$@"\n' >haproxy
            chmod 755 vtest haproxy
            LD_LIBRARY_PATH= ./vtest -h >vtest.log 2>&1 || grep -q -i usage vtest.log
        "#,
        left_out: "what a master process starts by executing itself again, which is not patched; `halog`",
        list: haproxy,
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
    let mut tests: Vec<Test> = names(&scripts, "png")?
        .into_iter()
        .filter(|name| !name.contains('.') && !["pngimage-full", "pngstest"].contains(&name.as_str()))
        .map(test)
        .collect();
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
    // What comes with fixes of the formats: each case of its own, for one that fails hides the others.
    let file = built.join("tests/integration/corrupt-dump.tcl");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let case = |line: &str| line.trim().strip_prefix("test {")?.strip_suffix("} {").map(str::to_owned);
    for case in text.lines().filter_map(case) {
        let quoted = case.replace('\'', r"'\''");
        let command = format!(
            "tclsh tests/test_helper.tcl --clients 1 --single integration/corrupt-dump --large-memory --only '{quoted}'"
        );
        let name = format!("corrupt-dump: {case}");
        tests.push(Test { name, command, directory: built.to_path_buf() });
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

/// Each file of `reg-tests/`, through the script that knows which can run.
fn haproxy(built: &Path, _source: &Path) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for part in names(&built.join("reg-tests"), "")? {
        let directory = built.join("reg-tests").join(&part);
        if !directory.is_dir() {
            continue;
        }
        for file in names(&directory, "")? {
            let Some(test) = file.strip_suffix(".vtc") else { continue };
            let name = format!("{part}/{test}");
            let settings = "HAPROXY_PROGRAM=$PWD/haproxy VTEST_PROGRAM=$PWD/vtest HAPROXY_ARGS=-dM";
            // The script ends well where it left the test out.
            let command = format!(
                "said=$({settings} sh scripts/run-regtests.sh reg-tests/{name}.vtc 2>&1); code=$?; echo \"$said\"; \
                 case \"$said\" in *'No tests found'*) exit 77;; esac; exit $code"
            );
            tests.push(Test { name, command, directory: built.to_path_buf() });
        }
    }
    ensure_some(&tests, 100)?;
    Ok(tests)
}

/// The tests of the three programs and of the library, each by its name.
fn libarchive(built: &Path, source: &Path) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    let references = source.join("libarchive/test");
    for name in defined(&built.join("shared/list.h"))? {
        let command = format!("$ORACLE_RUN ./libarchive_test -q -r {} {name}", references.display());
        tests.push(Test { name: format!("library {name}"), command, directory: built.join("shared") });
    }
    for (program, part) in [("bsdtar", "tar"), ("bsdcpio", "cpio"), ("bsdcat", "cat")] {
        let list = source.join(part).join("test");
        for name in defined(&built.join(part).join("test/list.h"))? {
            let command =
                format!("./{program}_test -q -r {} -p {}/through-{program} {name}", list.display(), built.display());
            tests.push(Test { name: format!("{program} {name}"), command, directory: built.to_path_buf() });
        }
    }
    ensure_some(&tests, 400)?;
    Ok(tests)
}

/// The names in lines like `DEFINE_TEST(name)`.
fn defined(list: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let name = |line: &str| line.trim().strip_prefix("DEFINE_TEST(")?.split(')').next().map(str::to_owned);
    Ok(text.lines().filter_map(name).collect())
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

pub(crate) fn is_prepared(built: &Path) -> bool {
    built.join(DONE).exists()
}

const DONE: &str = "prepared";

/// Runs the script of a recipe, once; what it leaves behind is kept.
pub(crate) fn prepare(recipe: &Recipe, source: &Path, built: &Path) -> Result<()> {
    if is_prepared(built) {
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
    std::fs::write(built.join(DONE), "").context("cannot mark it as done")
}
