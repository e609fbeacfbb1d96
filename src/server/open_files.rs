//! How many files, and with them connections, the system lets this process have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as it may be: the soft limit of 1,024 that most systems start a process with is for
/// programs that can't do with more.
pub(super) fn raise_limit(max_connections: usize) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(event = "open_files", %error, "the limit of open files can't be raised");
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Each client's connection, and one to its application.
    let wanted = (max_connections as u64).saturating_mul(2);
    if limit < wanted {
        let text = "the system allows fewer open files than max_connections may need";
        tracing::warn!(event = "open_files", limit, wanted, "{text}");
    } else {
        tracing::debug!(event = "open_files", limit);
    }
}
