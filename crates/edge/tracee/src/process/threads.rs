//! The threads of a process.

use super::{Process, ReadError};
use crate::limits::Limits;
use rustix::fs::OFlags;

impl Process {
    /// Whether each of its threads has ended, or was told to by a signal that nobody holds up:
    /// on a busy machine, or with a tracer, that may take a while.
    pub(super) fn is_ending(&self) -> bool {
        let threads = self.threads(&Limits::default());
        threads.is_ok_and(|threads| threads.iter().all(|tid| crate::seize::ends(*tid)))
    }

    /// The numbers of its threads, sorted.
    pub fn threads(&self, limits: &Limits) -> Result<Vec<i32>, ReadError> {
        let what = "task";
        let directory = self.open_entry("task", what, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut tids = Vec::new();
        for entry in rustix::fs::Dir::new(directory).map_err(|errno| ReadError::of(what, errno))? {
            let entry = entry.map_err(|errno| ReadError::of(what, errno))?;
            let Some(tid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else { continue };
            tids.push(tid);
            if tids.len() > limits.max_threads {
                let limit_bytes = u64::try_from(limits.max_threads).unwrap_or(u64::MAX);
                return Err(ReadError::TooLarge { what: "list of threads", limit_bytes });
            }
        }
        tids.sort_unstable();
        Ok(tids)
    }

    /// How many threads it has: links of the directory that lists them, besides its own two.
    pub(crate) fn thread_count(&self) -> Option<usize> {
        usize::try_from(self.stat_entry("task").ok()?.st_nlink.checked_sub(2)?).ok()
    }

    /// A thread's name; empty when it is gone.
    pub(crate) fn thread_name(&self, tid: i32) -> String {
        let bytes = self.read_entry(&format!("task/{tid}/comm"), "comm", 64).unwrap_or_default();
        String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted_as_they_are_listed() {
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().expect("it starts");
        let process = Process::open(i32::try_from(sleeper.id()).expect("fits")).expect("it runs");
        assert_eq!(process.thread_count(), Some(1));
        sleeper.kill().and_then(|()| sleeper.wait()).expect("it ends");
        assert_ne!(process.thread_count(), Some(1));
        let own = Process::open(i32::try_from(std::process::id()).expect("fits")).expect("it runs");
        let others: Vec<_> = (0..3).map(|_| std::thread::spawn(std::thread::park)).collect();
        // Tests that run beside this one come and go.
        let agree = || own.thread_count() == own.threads(&Limits::default()).ok().map(|tids| tids.len());
        assert!((0..1000).any(|_| agree()));
        assert!(own.thread_count() > Some(3));
        for other in others {
            other.thread().unpark();
            other.join().expect("it ends");
        }
    }
}
