//! What goes wrong, in words for an operator: never a key, a value or a password, and nothing that the
//! server wrote beyond the first word of its error.

use std::fmt;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::settings::Address;
use crate::store::StoreError;

/// Why a server did not do what it was asked.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// What it said, where it said something; it then did not do what it was asked.
    pub(super) said: Option<RedisError>,
    reason: String,
}

impl Trouble {
    /// Something else than an answer.
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { said: None, reason: reason.into() }
    }

    /// No answer in time: what was sent may have been done, or may be done later.
    pub(super) fn late(address: &Address, limit: Duration) -> Self {
        Self::new(format!("Redis at {address} does not answer within {}", humantime::format_duration(limit)))
    }

    /// An error of the protocol, or of the connection.
    pub(super) fn of(address: &Address, error: RedisError) -> Self {
        let reason = format!("Redis at {address} {}", explain(&error));
        let is_said = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
        Self { said: is_said.then_some(error), reason }
    }

    /// What the server said.
    pub(super) fn kind(&self) -> Option<ServerErrorKind> {
        match self.said.as_ref().map(RedisError::kind) {
            Some(ErrorKind::Server(kind)) => Some(kind),
            _ => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        Self::new(trouble.reason)
    }
}

fn explain(error: &RedisError) -> String {
    let code = error.code().unwrap_or_default();
    let meaning = match code {
        "NOAUTH" => "wants a password: set redis.password",
        "WRONGPASS" => "refuses the user name or the password",
        "NOPERM" => "forbids its user what the gateway needs: ACL LOG on the server says what",
        "LOADING" => "is still reading its data",
        "READONLY" => "is a replica and takes no writes",
        "OOM" => "is out of memory: maxmemory is reached",
        "MISCONF" => "can't save its data and takes no writes",
        "CLUSTERDOWN" => "says that the cluster is down",
        "MASTERDOWN" => "has lost its master",
        "NOREPLICAS" => "has too few replicas that keep up and takes no writes",
        "BUSY" => "is busy with a script of somebody else",
        "MOVED" | "ASK" => "is part of a cluster: set redis.cluster = true",
        "TRYAGAIN" => "is moving the keys between its servers",
        "CROSSSLOT" => "spreads keys that belong together",
        _ => return explain_other(error, code),
    };
    format!("{meaning} ({code})")
}

fn explain_other(error: &RedisError, code: &str) -> String {
    let kind = error.kind();
    if kind == ErrorKind::AuthenticationFailed {
        return "refuses the user name or the password".to_owned();
    }
    if kind == ErrorKind::Io {
        return "has lost the connection".to_owned();
    }
    if kind == ErrorKind::Parse {
        return "does not speak the protocol of Redis".to_owned();
    }
    format!("answers with an error ({})", if code.is_empty() { error.category() } else { code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_server_are_told_without_its_words() {
        let address = Address { host: "redis.test".to_owned(), port: 6379 };
        let cases = [
            ("NOAUTH Authentication required.", "wants a password: set redis.password (NOAUTH)"),
            ("WRONGPASS secret", "refuses the user name or the password (WRONGPASS)"),
            ("LOADING secret", "is still reading its data (LOADING)"),
            ("READONLY secret", "is a replica and takes no writes (READONLY)"),
            ("OOM secret", "is out of memory: maxmemory is reached (OOM)"),
            ("CLUSTERDOWN secret", "says that the cluster is down (CLUSTERDOWN)"),
            ("MOVED 1 secret:1", "is part of a cluster: set redis.cluster = true (MOVED)"),
            ("MISCONF secret", "can't save its data and takes no writes (MISCONF)"),
            ("ERR secret", "answers with an error (ERR)"),
            ("WHATEVER secret", "answers with an error (WHATEVER)"),
        ];
        for (said, told) in cases {
            let value = redis::parse_redis_value(format!("-{said}\r\n").as_bytes()).unwrap();
            let error = value.extract_error().unwrap_err();
            let trouble = Trouble::of(&address, error);
            assert_eq!(trouble.to_string(), format!("Redis at redis.test:6379 {told}"));
            let store = StoreError::from(trouble);
            assert!(!format!("{store:?}").contains("secret"), "{said}");
        }
    }
}
