//! Step-up authentication on the wire: what a sign-in is asked to bring.
//!
//! OpenID Connect Core 3.1.2.1 (`acr_values`, `max_age`), RFC 9470. Whether a sign-in brought it is
//! decided in [`crate::policy`].

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a sign-in has to bring besides a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepUp {
    /// Authentication context classes of which one is enough; empty: any. Each is visible ASCII without
    /// space, quote and backslash.
    pub acr: Vec<Arc<str>>,
    /// How long ago the person may have been authenticated, in whole seconds; `None`: at any time.
    pub max_age: Option<Duration>,
}

impl StepUp {
    /// Whether nothing is asked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.acr.is_empty() && self.max_age.is_none()
    }

    /// The parameters of the authorization request (Core 3.1.2.1).
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let acr = (!self.acr.is_empty()).then(|| ("acr_values", self.acr.join(" ")));
        let age = self.max_age.map(|age| ("max_age", age.as_secs().to_string()));
        acr.into_iter().chain(age).collect()
    }

    /// The parameters of a `WWW-Authenticate` challenge (RFC 9470 3).
    #[must_use]
    pub fn challenge(&self) -> String {
        let mut challenge = "error=\"insufficient_user_authentication\"".to_owned();
        for (name, value) in self.parameters() {
            // Writing into a string does not fail.
            let _ = write!(challenge, ", {name}=\"{value}\"");
        }
        challenge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_told_to_the_provider_and_in_the_challenge_alike() {
        let (acr, age) = (vec!["urn:mfa".into(), "phr".into()], Some(Duration::from_mins(5)));
        let error = "error=\"insufficient_user_authentication\"";
        let rows = [
            (StepUp::default(), vec![], String::new()),
            (
                StepUp { acr: acr.clone(), max_age: None },
                vec![("acr_values", "urn:mfa phr")],
                ", acr_values=\"urn:mfa phr\"".to_owned(),
            ),
            (StepUp { acr: vec![], max_age: age }, vec![("max_age", "300")], ", max_age=\"300\"".to_owned()),
            (
                StepUp { acr, max_age: age },
                vec![("acr_values", "urn:mfa phr"), ("max_age", "300")],
                ", acr_values=\"urn:mfa phr\", max_age=\"300\"".to_owned(),
            ),
        ];
        for (asked, parameters, challenge) in rows {
            let found = asked.parameters();
            let found: Vec<_> = found.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(found, parameters, "{asked:?}");
            assert_eq!(asked.challenge(), format!("{error}{challenge}"), "{asked:?}");
            assert_eq!(asked.is_empty(), parameters.is_empty(), "{asked:?}");
        }
    }
}
