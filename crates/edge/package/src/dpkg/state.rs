//! The state of one package (`dpkg(1)`, "INFORMATION ABOUT PACKAGES").

/// The last word of `Status:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    NotInstalled,
    ConfigFiles,
    HalfInstalled,
    Unpacked,
    HalfConfigured,
    TriggersAwaited,
    TriggersPending,
    Installed,
}

impl State {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "not-installed" => Self::NotInstalled,
            "config-files" => Self::ConfigFiles,
            "half-installed" => Self::HalfInstalled,
            "unpacked" => Self::Unpacked,
            "half-configured" => Self::HalfConfigured,
            "triggers-awaited" => Self::TriggersAwaited,
            "triggers-pending" => Self::TriggersPending,
            "installed" => Self::Installed,
            _unknown => return None,
        })
    }
}

/// `Status: want flag state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `unknown`, `install`, `hold`, `deinstall`, `purge`.
    pub want: String,
    /// The error flag says that the package needs to be installed again.
    pub reinstall_required: bool,
    pub state: State,
}

impl Status {
    /// `None` for anything but the three words that dpkg writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (want, flag, state) = (words.next()?, words.next()?, words.next()?);
        let reinstall_required = match flag {
            "ok" => false,
            "reinstreq" => true,
            _unknown => return None,
        };
        if words.next().is_some() || !["unknown", "install", "hold", "deinstall", "purge"].contains(&want) {
            return None;
        }
        Some(Self { want: want.to_owned(), reinstall_required, state: State::parse(state)? })
    }

    /// Whether its files are on the disk, perhaps only some of them.
    pub fn has_files(&self) -> bool {
        !matches!(self.state, State::NotInstalled | State::ConfigFiles)
    }

    /// Whether nothing is under way: either it is configured or it is not
    /// there. Waiting for a trigger counts as configured: the package's own
    /// scripts have run.
    pub fn is_settled(&self) -> bool {
        let settled = match self.state {
            State::NotInstalled
            | State::ConfigFiles
            | State::Installed
            | State::TriggersAwaited
            | State::TriggersPending => true,
            State::HalfInstalled | State::Unpacked | State::HalfConfigured => false,
        };
        settled && !self.reinstall_required
    }

    /// Whether the operator holds the package at its version (`apt-mark hold`).
    pub fn is_held(&self) -> bool {
        self.want == "hold"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_in_the_middle_of_something_is_not_settled() {
        for (text, has_files, settled) in [
            ("install ok installed", true, true),
            ("hold ok installed", true, true),
            ("install ok triggers-pending", true, true),
            ("install ok unpacked", true, false),
            ("install ok half-configured", true, false),
            ("install reinstreq half-installed", true, false),
            ("install reinstreq installed", true, false),
            ("deinstall ok config-files", false, true),
            ("unknown ok not-installed", false, true),
        ] {
            let status = Status::parse(text);
            assert_eq!(status.as_ref().map(Status::has_files), Some(has_files), "{text}");
            assert_eq!(status.as_ref().map(Status::is_settled), Some(settled), "{text}");
        }
    }

    #[test]
    fn a_status_that_dpkg_would_not_write_is_none() {
        for text in [
            "",
            "install ok",
            "install ok running",
            "install bad installed",
            "want ok installed",
            "install ok installed x",
        ] {
            assert_eq!(Status::parse(text), None, "{text}");
        }
    }
}
