//! Who somebody is: claims -> [`Identity`], and [`headers`], THE TABLE of identity headers.
//!
//! Reads claims that `token` and `oidc` have verified; verifies nothing itself. A claim of a wrong
//! type is never read as something near to it.

pub mod headers;

use std::sync::Arc;

use serde_json::Value;

use crate::clock::UnixTime;
use crate::token::Claims;

/// Where in the claims the identity is.
#[derive(Clone, Debug)]
pub struct ClaimPaths {
    /// What the application is told as the user: `sub` by default.
    pub user: Arc<str>,
    /// `email` by default.
    pub email: Arc<str>,
    /// `preferred_username` by default.
    pub preferred_username: Arc<str>,
    /// `groups` by default; dotted paths such as `realm_access.roles`.
    pub groups: Arc<str>,
}

impl Default for ClaimPaths {
    fn default() -> Self {
        Self {
            user: "sub".into(),
            email: "email".into(),
            preferred_username: "preferred_username".into(),
            groups: "groups".into(),
        }
    }
}

/// A person as applications and policies see them.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The provider that says so.
    pub issuer: Arc<str>,
    /// The subject at that provider; with `issuer` the key of the user (ID-13).
    pub subject: Arc<str>,
    /// What the application is told as the user.
    pub user: Arc<str>,
    /// The e-mail address, if it is a string.
    pub email: Option<Arc<str>>,
    /// Whether `email_verified` is the boolean true, and `email` is the claim `email`: of another
    /// claim it says nothing.
    pub email_verified: bool,
    /// The name that the person goes by.
    pub preferred_username: Option<Arc<str>>,
    /// The groups; `None` where the claim is missing, no list of strings (one string is no list), or
    /// an overage reference (ID-18): routes that need a group then refuse. Empty names are left out.
    pub groups: Option<Vec<Arc<str>>>,
    /// How and when the provider knew them.
    pub authentication: Authentication,
}

/// How and when the provider authenticated the person, as the ID token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    /// The context class; `None` where it is missing or no string.
    pub acr: Option<Arc<str>>,
    /// The time; `None` where it is missing or no number.
    pub time: Option<UnixTime>,
}

impl Authentication {
    /// Reads `acr` and `auth_time` (Core 2). What is not of their types meets no rule (ID-15).
    #[must_use]
    pub fn of(claims: &Claims) -> Self {
        let seconds = claims.seconds("auth_time").ok().flatten();
        let acr = claims.string("acr").ok().flatten();
        Self { acr: acr.map(Arc::from), time: seconds.map(UnixTime::from_secs) }
    }
}

/// Why claims make no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// `iss` or `sub` missing, empty or no string.
    #[error("claim `{0}` is missing, empty or not a string")]
    Missing(&'static str),
    /// The claim chosen as the user is missing, empty or no string.
    #[error("claim `{0}`, configured as the user, is missing, empty or not a string")]
    NoUser(String),
}

impl Identity {
    /// Reads an identity out of verified claims.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_claims(claims: &Claims, paths: &ClaimPaths) -> Result<Self, IdentityError> {
        let required = |name| text_at(claims, name).ok_or(IdentityError::Missing(name));
        let email = text_at(claims, &paths.email);
        let is_verified = claims.value("email_verified") == Some(&Value::Bool(true));
        Ok(Self {
            issuer: required("iss")?,
            subject: required("sub")?,
            user: text_at(claims, &paths.user)
                .ok_or_else(|| IdentityError::NoUser(paths.user.to_string()))?,
            email_verified: email.is_some() && &*paths.email == "email" && is_verified,
            email,
            preferred_username: text_at(claims, &paths.preferred_username),
            groups: groups_at(claims, &paths.groups),
            authentication: Authentication::of(claims),
        })
    }
}

/// A string claim that says something.
fn text_at(claims: &Claims, path: &str) -> Option<Arc<str>> {
    claims.at(path)?.as_str().filter(|text| !text.is_empty()).map(Arc::from)
}

fn groups_at(claims: &Claims, path: &str) -> Option<Vec<Arc<str>>> {
    if is_elsewhere(claims, path) {
        return None;
    }
    let names: Vec<&str> = claims.at(path)?.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
    Some(names.into_iter().filter(|name| !name.is_empty()).map(Arc::from).collect())
}

/// Whether the provider says that a claim, or what holds it, is to be fetched elsewhere: what stands
/// in the token is then not all of it, and nothing is fetched.
///
/// OIDC Core 5.6.2: the members of `_claim_names` are the names of such claims.
fn is_elsewhere(claims: &Claims, path: &str) -> bool {
    let Some(names) = claims.value("_claim_names") else { return false };
    let holds = |name: &str| names.as_object().is_none_or(|names| names.contains_key(name));
    holds(path) || path.split('.').next().is_some_and(holds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        Claims::new(value.as_object().unwrap().clone())
    }

    /// The identity of `iss`, `sub` and these claims.
    fn identity(more: &Value, paths: &ClaimPaths) -> Result<Identity, IdentityError> {
        let mut all = json!({"iss": "https://op.example", "sub": "248289"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Identity::from_claims(&claims(&all), paths)
    }

    fn groups(more: &Value, path: &str) -> Option<Vec<String>> {
        let paths = ClaimPaths { groups: path.into(), ..ClaimPaths::default() };
        let groups = identity(more, &paths).unwrap().groups?;
        Some(groups.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn claims_make_an_identity() {
        let more = json!({
            "email": "zoe@example.com", "email_verified": true, "preferred_username": "zoe",
            "groups": ["staff", "wiki"], "acr": "urn:mfa", "auth_time": 1_700_000_000,
        });
        let wanted = Identity {
            issuer: "https://op.example".into(),
            subject: "248289".into(),
            user: "248289".into(),
            email: Some("zoe@example.com".into()),
            email_verified: true,
            preferred_username: Some("zoe".into()),
            groups: Some(vec!["staff".into(), "wiki".into()]),
            authentication: Authentication {
                acr: Some("urn:mfa".into()),
                time: Some(UnixTime::from_secs(1_700_000_000)),
            },
        };
        assert_eq!(identity(&more, &ClaimPaths::default()), Ok(wanted));
    }

    #[test]
    fn an_authentication_of_a_wrong_type_is_unknown() {
        let wrong = [json!(null), json!(1), json!(["phr"]), json!({}), json!(true)];
        for value in wrong {
            let found = identity(&json!({ "acr": value }), &ClaimPaths::default()).unwrap();
            assert_eq!(found.authentication.acr, None, "acr {value}");
        }
        for value in [json!(null), json!("1700000000"), json!(-1), json!([1]), json!(true)] {
            let found = identity(&json!({ "auth_time": value }), &ClaimPaths::default()).unwrap();
            assert_eq!(found.authentication.time, None, "auth_time {value}");
        }
    }

    #[test]
    fn everything_but_issuer_and_subject_may_be_missing() {
        let found = identity(&json!({}), &ClaimPaths::default()).unwrap();
        assert_eq!((found.email, found.preferred_username, found.groups), (None, None, None));
        assert!(!found.email_verified);
    }

    #[test]
    fn without_issuer_or_subject_nobody_is_known() {
        let cases = [
            ("no sub", json!({"iss": "i"}), "sub"),
            ("no iss", json!({"sub": "s"}), "iss"),
            ("number", json!({"iss": "i", "sub": 7}), "sub"),
            ("null", json!({"iss": null, "sub": "s"}), "iss"),
            ("list", json!({"iss": ["i"], "sub": "s"}), "iss"),
            ("empty", json!({"iss": "i", "sub": ""}), "sub"),
        ];
        for (name, value, wanted) in cases {
            let found = Identity::from_claims(&claims(&value), &ClaimPaths::default());
            assert_eq!(found, Err(IdentityError::Missing(wanted)), "{name}");
        }
    }

    #[test]
    fn the_user_is_the_claim_that_was_chosen_and_no_other() {
        let paths = ClaimPaths { user: "upn".into(), ..ClaimPaths::default() };
        assert_eq!(&*identity(&json!({"upn": "zoe"}), &paths).unwrap().user, "zoe");
        for value in
            [json!({}), json!({"upn": null}), json!({"upn": 7}), json!({"upn": ""}), json!({"upn": ["zoe"]})]
        {
            assert_eq!(identity(&value, &paths), Err(IdentityError::NoUser("upn".into())), "{value}");
        }
    }

    #[test]
    fn a_claim_of_a_wrong_type_is_as_good_as_none() {
        for wrong in [json!(null), json!(true), json!(7), json!({"a": 1}), json!(["x"]), json!("")] {
            let more = json!({"email": wrong, "preferred_username": wrong, "email_verified": true});
            let found = identity(&more, &ClaimPaths::default()).unwrap();
            assert_eq!((found.email, found.preferred_username), (None, None), "{wrong}");
            assert!(!found.email_verified, "{wrong}");
        }
    }

    #[test]
    fn an_address_is_verified_only_by_the_boolean_true() {
        let verified = |value: &Value| {
            let more = json!({"email": "z@example.com", "email_verified": value});
            identity(&more, &ClaimPaths::default()).unwrap().email_verified
        };
        assert!(verified(&json!(true)));
        for value in [json!(false), json!("true"), json!(1), json!(null), json!([true])] {
            assert!(!verified(&value), "{value}");
        }
    }

    #[test]
    fn email_verified_says_nothing_of_another_claim() {
        let paths = ClaimPaths { email: "mail".into(), ..ClaimPaths::default() };
        let more = json!({"mail": "root@example.com", "email": "z@example.com", "email_verified": true});
        let found = identity(&more, &paths).unwrap();
        assert_eq!((found.email.as_deref(), found.email_verified), (Some("root@example.com"), false));
    }

    #[test]
    fn groups_are_a_list_of_strings_or_unknown() {
        let cases = [
            ("a list", json!({"groups": ["a", "b"]}), Some(vec!["a", "b"])),
            ("an empty list", json!({"groups": []}), Some(vec![])),
            ("an empty name", json!({"groups": ["", "a"]}), Some(vec!["a"])),
            ("missing", json!({}), None),
            ("one string", json!({"groups": "a"}), None),
            ("names in one string", json!({"groups": "a,b"}), None),
            ("null", json!({"groups": null}), None),
            ("object", json!({"groups": {"a": true}}), None),
            ("number", json!({"groups": 7}), None),
            ("a number within", json!({"groups": ["a", 7]}), None),
            ("a list within", json!({"groups": ["a", ["b"]]}), None),
            ("null within", json!({"groups": ["a", null]}), None),
        ];
        for (name, more, wanted) in cases {
            let wanted = wanted.map(|names| names.iter().map(ToString::to_string).collect());
            assert_eq!(groups(&more, "groups"), wanted, "{name}");
        }
    }

    #[test]
    fn groups_may_stand_at_a_dotted_path() {
        let nested = json!({"realm_access": {"roles": ["a"]}});
        assert_eq!(groups(&nested, "realm_access.roles"), Some(vec!["a".to_owned()]));
        let url = json!({"https://example.com/groups": ["a"]});
        assert_eq!(groups(&url, "https://example.com/groups"), Some(vec!["a".to_owned()]));
        assert_eq!(groups(&json!({"realm_access": ["a"]}), "realm_access.roles"), None);
    }

    #[test]
    fn groups_that_are_to_be_fetched_elsewhere_are_unknown() {
        let source = json!({"src1": {"endpoint": "https://evil.test/groups"}});
        let cases = [
            ("overage", json!({"_claim_names": {"groups": "src1"}, "_claim_sources": source}), "groups"),
            ("beside a list", json!({"_claim_names": {"groups": "src1"}, "groups": ["a"]}), "groups"),
            ("what holds it", json!({"_claim_names": {"x": "src1"}, "x": {"roles": ["a"]}}), "x.roles"),
            (
                "the whole path",
                json!({"_claim_names": {"x.roles": "src1"}, "x": {"roles": ["a"]}}),
                "x.roles",
            ),
            ("no object", json!({"_claim_names": ["groups"], "groups": ["a"]}), "groups"),
        ];
        for (name, more, path) in cases {
            assert_eq!(groups(&more, path), None, "{name}");
        }
        let others = json!({"_claim_names": {"address": "src1"}, "groups": ["a"]});
        assert_eq!(groups(&others, "groups"), Some(vec!["a".to_owned()]));
    }
}
