//! What a file is to a running system, by where it lies (hier(7), Filesystem
//! Hierarchy Standard) and by what is known of it. Unknown is data.

use super::{Listed, What};
use salve_patch::FileClass;

/// What only people read.
const DOCUMENTATION: &[&str] = &[
    "/usr/share/doc/",
    "/usr/share/doc-base/",
    "/usr/share/man/",
    "/usr/share/info/",
    "/usr/share/help/",
    "/usr/share/lintian/",
    "/usr/share/bug/",
    "/usr/share/gtk-doc/",
];

/// What the service manager and its like read.
const SERVICES: &[&str] = &[
    "/usr/lib/systemd/",
    "/usr/lib/tmpfiles.d/",
    "/usr/lib/sysusers.d/",
    "/usr/lib/sysctl.d/",
    "/usr/lib/modules-load.d/",
    "/usr/lib/udev/",
    "/usr/share/dbus-1/",
    "/usr/share/polkit-1/",
    "/etc/init.d/",
    "/etc/systemd/",
];

/// Endings of code that an interpreter executes from its file.
const INTERPRETED: &[&str] =
    &[".py", ".pl", ".pm", ".php", ".rb", ".lua", ".js", ".tcl", ".sh", ".bash", ".awk", ".el", ".jar", ".class"];

/// Where programs lie.
const PROGRAMS: &[&str] = &["/usr/bin/", "/usr/sbin/", "/usr/games/", "/usr/libexec/"];

/// `path` is given with its merged `/usr` ([`super::compare::merged`]).
pub(super) fn class(path: &str, file: &Listed) -> FileClass {
    let below = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    match file.what {
        What::Conffile => FileClass::Conffile,
        What::MaintainerScript => FileClass::MaintainerScript,
        What::Elf | What::File | What::Link if below(DOCUMENTATION) => FileClass::Documentation,
        What::Link => FileClass::Link,
        What::Elf | What::File if below(SERVICES) => FileClass::ServiceUnit,
        What::Elf | What::File => {
            let interpreted = file.script || INTERPRETED.iter().any(|ending| path.ends_with(ending));
            if interpreted || below(PROGRAMS) { FileClass::Script } else { FileClass::Data }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_its_place_and_its_owner_make_it() {
        let file = |what| Listed::of_md5(what, None, false);
        let cases = [
            ("/etc/nginx/nginx.conf", What::Conffile, FileClass::Conffile),
            ("/usr/share/doc/x/README", What::Conffile, FileClass::Conffile),
            ("postinst", What::MaintainerScript, FileClass::MaintainerScript),
            ("/usr/lib/systemd/system/x.service", What::File, FileClass::ServiceUnit),
            ("/usr/share/doc/x/changelog.gz", What::File, FileClass::Documentation),
            ("/usr/share/doc/x", What::Link, FileClass::Documentation),
            ("/usr/lib/libx.so.1", What::Link, FileClass::Link),
            ("/usr/lib/python3/dist-packages/x.py", What::File, FileClass::Script),
            ("/usr/sbin/tool", What::File, FileClass::Script),
            ("/usr/share/x/errors.html", What::File, FileClass::Data),
        ];
        for (path, what, expected) in cases {
            assert_eq!(class(path, &file(what)), expected, "{path}");
        }
        let script = Listed::of_md5(What::File, None, true);
        assert_eq!(class("/usr/share/x/run", &script), FileClass::Script);
    }
}
