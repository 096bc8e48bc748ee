use super::SandboxError;
use crate::pool::STACK_BYTES;
use rustix::process::{Resource, Rlimit, setrlimit};
use salve_protocol::ResourceLimits;

/// Address space that glibc's allocator reserves, not uses, for each thread.
const ARENA_BYTES: u64 = 128 << 20;
/// Program, libraries and the first stack.
const BASE_BYTES: u64 = 256 << 20;

/// Limits that hold from now on, for the starting of the workers too.
///
/// `RLIMIT_DATA` counts writable private memory, so it is the one that means
/// memory; `RLIMIT_AS` also counts what is only reserved and backs it up.
pub(super) fn bound_resources(limits: &ResourceLimits, threads: u32) -> Result<(), SandboxError> {
    let per_thread = u64::try_from(STACK_BYTES).unwrap_or(u64::MAX).saturating_add(ARENA_BYTES);
    let stacks = u64::try_from(STACK_BYTES).unwrap_or(u64::MAX).saturating_mul(u64::from(threads));
    let reserved = BASE_BYTES.saturating_add(per_thread.saturating_mul(u64::from(threads)));
    set(Resource::Data, limits.memory_bytes.saturating_add(stacks), "limit memory")?;
    set(Resource::As, limits.memory_bytes.saturating_add(reserved), "limit address space")?;
    // The soft limit sends SIGXCPU, which ends the process and names the cause.
    let soft = limits.cpu_seconds;
    let cpu = Rlimit { current: Some(soft), maximum: Some(soft.saturating_add(2)) };
    setrlimit(Resource::Cpu, cpu).map_err(|source| SandboxError::Step { what: "limit processor time", source })?;
    set(Resource::Fsize, limits.max_output_bytes, "limit output")?;
    set(Resource::Core, 0, "forbid core dumps")?;
    set(Resource::Memlock, 0, "forbid locked memory")?;
    set(Resource::Msgqueue, 0, "forbid message queues")
}

/// No further process, thread or descriptor. After the workers have started.
pub(super) fn forbid_growth() -> Result<(), SandboxError> {
    set(Resource::Nproc, 0, "forbid new processes")?;
    set(Resource::Nofile, 0, "forbid new descriptors")
}

fn set(resource: Resource, limit: u64, what: &'static str) -> Result<(), SandboxError> {
    // A lower limit that is already there stays: without privilege it cannot be raised.
    let present = rustix::process::getrlimit(resource).maximum;
    let limit = present.map_or(limit, |present| present.min(limit));
    setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
        .map_err(|source| SandboxError::Step { what, source })
}
