use super::SandboxError;
use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use salve_protocol::Enforcement;

/// Newest landlock that is asked for; an older kernel gives what it has.
const WANTED: ABI = ABI::V6;

/// No file system at all, no TCP, no abstract socket and no signal to anybody
/// outside: a rule set that handles every access and allows none (landlock(7)).
pub(super) fn close_off() -> Result<Enforcement, SandboxError> {
    let failed = |source| SandboxError::Landlock { source };
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(WANTED)))
        .and_then(|rules| rules.scope(Scope::from_all(WANTED)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(failed)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Enforcement::Full,
        RulesetStatus::PartiallyEnforced => Enforcement::Partial,
        RulesetStatus::NotEnforced => Enforcement::Missing,
    })
}
