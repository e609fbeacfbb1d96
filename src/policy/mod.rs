//! May they: [`evaluate`] turns a rule and a subject into a [`Permit`] or a [`Denial`]. Pure.

pub mod step_up;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::identity::Identity;
use crate::oidc::step_up::StepUp;
use step_up::Unmet;

/// Who the gateway decided is asking.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Somebody, and how they showed it.
    Known(Arc<Identity>, Via),
    /// Nobody, and why.
    Anonymous(Why),
}

impl Subject {
    /// Who it is, where that is known.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Known(identity, _) => Some(identity),
            Self::Anonymous(_) => None,
        }
    }
}

/// How somebody showed who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A session cookie.
    Session,
}

/// Why nobody is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The route is public: nobody was asked.
    NotAsked,
    /// No session cookie came.
    NoCredential,
    /// A session cookie came that can't be opened, or came twice.
    BadCredential,
    /// The session is not in the store: signed out, expired, revoked.
    NoSession,
    /// The session's idle or absolute lifetime is over.
    Expired,
    /// The session is past the limits of the route, or has no access token any more that the route promises;
    /// it lives on for others.
    PastRoute,
}

/// Who may pass a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Access {
    /// Only people who signed in.
    #[default]
    SignedIn,
    /// Everybody; the upstream is told who, if known.
    Optional,
    /// Everybody; the upstream is told nothing.
    Public,
}

/// A route's rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Who may pass.
    pub access: Access,
    /// Groups of which the person must have at least one; empty: any. Only with
    /// [`Access::SignedIn`] (`config` refuses it elsewhere).
    pub groups: Vec<Arc<str>>,
    /// How the person must have been authenticated; as with `groups`.
    pub step_up: StepUp,
}

/// The right to be forwarded. Only [`evaluate`] makes one: forgetting to authorize does not compile.
#[derive(Debug)]
pub struct Permit {
    identity: Option<Arc<Identity>>,
}

impl Permit {
    /// Whom the upstream may be told about.
    #[must_use]
    pub const fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }
}

/// Why a request may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nobody is known where somebody must be.
    #[error("nobody is signed in")]
    SignInRequired(Why),
    /// None of the groups that the route asks for.
    #[error("the person is in none of the groups that the route asks for")]
    GroupMissing,
    /// Not authenticated as the route asks for; another sign-in may bring that.
    #[error(transparent)]
    StepUpRequired(#[from] Unmet),
}

/// Applies a rule to a subject at a time, with the tolerated difference of clocks.
///
/// # Errors
/// [`Denial`]; groups first, because no sign-in brings those.
pub fn evaluate(rule: &Rule, subject: &Subject, now: UnixTime, leeway: Duration) -> Result<Permit, Denial> {
    match (rule.access, subject) {
        (Access::Public, _) | (Access::Optional, Subject::Anonymous(_)) => Ok(Permit { identity: None }),
        (Access::SignedIn, Subject::Anonymous(why)) => Err(Denial::SignInRequired(*why)),
        (Access::Optional | Access::SignedIn, Subject::Known(identity, _)) => {
            require_group(&rule.groups, identity)?;
            step_up::check(&rule.step_up, &identity.authentication, now, leeway)?;
            Ok(Permit { identity: Some(Arc::clone(identity)) })
        }
    }
}

/// ID-18: groups that are unknown count as none.
fn require_group(wanted: &[Arc<str>], identity: &Identity) -> Result<(), Denial> {
    if wanted.is_empty() {
        return Ok(());
    }
    let has = identity.groups.as_deref().unwrap_or_default();
    if has.iter().any(|group| wanted.contains(group)) { Ok(()) } else { Err(Denial::GroupMissing) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Authentication;

    fn person(groups: Option<&[&str]>) -> Subject {
        let identity = Identity {
            issuer: "https://op.example".into(),
            subject: "1".into(),
            user: "1".into(),
            email: None,
            email_verified: false,
            preferred_username: None,
            groups: groups.map(|groups| groups.iter().map(|&group| group.into()).collect()),
            authentication: Authentication { acr: Some("pwd".into()), time: Some(UnixTime::from_secs(900)) },
        };
        Subject::Known(Arc::new(identity), Via::Session)
    }

    fn rule(access: Access, groups: &[&str]) -> Rule {
        Rule {
            access,
            groups: groups.iter().map(|&group| group.into()).collect(),
            step_up: StepUp::default(),
        }
    }

    fn asking(groups: &[&str], acr: &str, max_age: u64) -> Rule {
        let step_up = StepUp { acr: vec![acr.into()], max_age: Some(Duration::from_secs(max_age)) };
        Rule { step_up, ..rule(Access::SignedIn, groups) }
    }

    #[test]
    fn a_rule_and_a_subject_make_one_verdict() {
        let nobody = Subject::Anonymous(Why::NoCredential);
        let sign_in = Err(Denial::SignInRequired(Why::NoCredential));
        let cases: &[(&str, Rule, &Subject, Result<bool, Denial>)] = &[
            ("public, nobody", rule(Access::Public, &[]), &nobody, Ok(false)),
            ("public, somebody is not told", rule(Access::Public, &[]), &person(None), Ok(false)),
            ("optional, nobody", rule(Access::Optional, &[]), &nobody, Ok(false)),
            ("optional, somebody", rule(Access::Optional, &[]), &person(None), Ok(true)),
            ("signed in, nobody", rule(Access::SignedIn, &[]), &nobody, sign_in),
            ("signed in, somebody", rule(Access::SignedIn, &[]), &person(None), Ok(true)),
            ("one of two groups", rule(Access::SignedIn, &["a", "b"]), &person(Some(&["b"])), Ok(true)),
            (
                "another group",
                rule(Access::SignedIn, &["a"]),
                &person(Some(&["b"])),
                Err(Denial::GroupMissing),
            ),
            ("case counts", rule(Access::SignedIn, &["a"]), &person(Some(&["A"])), Err(Denial::GroupMissing)),
            ("no groups", rule(Access::SignedIn, &["a"]), &person(Some(&[])), Err(Denial::GroupMissing)),
            ("unknown groups", rule(Access::SignedIn, &["a"]), &person(None), Err(Denial::GroupMissing)),
            ("nobody before groups", rule(Access::SignedIn, &["a"]), &nobody, sign_in),
            ("authenticated as asked", asking(&[], "pwd", 100), &person(None), Ok(true)),
            (
                "too long ago",
                asking(&[], "pwd", 94),
                &person(None),
                Err(Denial::StepUpRequired(Unmet::TooOld)),
            ),
            (
                "in another way",
                asking(&[], "phr", 100),
                &person(None),
                Err(Denial::StepUpRequired(Unmet::Acr)),
            ),
            (
                "groups before what a sign-in could bring",
                asking(&["a"], "phr", 1),
                &person(None),
                Err(Denial::GroupMissing),
            ),
            ("nobody before step-up", asking(&[], "phr", 1), &nobody, sign_in),
        ];
        for (name, rule, subject, wanted) in cases {
            let found = evaluate(rule, subject, UnixTime::from_secs(1000), Duration::from_secs(5))
                .map(|permit| permit.identity().is_some());
            assert_eq!(found, *wanted, "{name}");
        }
    }
}
