//! What the demo's provider knows: two people, and the codes, tokens and sessions it gave out.
//!
//! Pure: time and random values are arguments. Everything is bounded and forgets what has ended.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::clock::UnixTime;
use crate::secret;

/// Somebody who can sign in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    /// What the sign-in form sends.
    pub(super) login: &'static str,
    /// The subject.
    pub(super) sub: &'static str,
    /// The name, with letters that show how headers are encoded.
    pub(super) name: &'static str,
    /// The e-mail address.
    pub(super) email: &'static str,
    /// The groups.
    pub(super) groups: &'static [&'static str],
}

/// Everybody: one may open the admins' page, one may not.
pub(super) static USERS: &[User] = &[
    User {
        login: "alice",
        sub: "demo-1001",
        name: "Alice Ångström",
        email: "alice@demo.example",
        groups: &["staff"],
    },
    User {
        login: "bob",
        sub: "demo-1002",
        name: "Bob Meyer",
        email: "bob@demo.example",
        groups: &["staff", "admins"],
    },
];

/// The person with this login.
pub(super) fn find_user(login: &str) -> Option<&'static User> {
    USERS.iter().find(|user| user.login == login)
}

/// How long a code can be redeemed.
pub(super) const CODE_LIFETIME: Duration = Duration::from_mins(1);

/// How long an access token works.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_hours(1);

/// How long a browser stays signed in at the provider.
pub(super) const SESSION_LIFETIME: Duration = Duration::from_hours(8);

/// The most entries of each kind; a demo on loopback never has so many.
const MAX_ENTRIES: usize = 1000;

/// A browser that is signed in at the provider.
#[derive(Clone, Debug)]
pub(super) struct BrowserSession {
    /// Who.
    pub(super) user: &'static User,
    /// The session's name in ID tokens.
    pub(super) sid: String,
    /// When they signed in.
    pub(super) since: UnixTime,
}

/// What a code stands for.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// Whose session.
    pub(super) session: BrowserSession,
    /// The nonce of the authorization request.
    pub(super) nonce: Option<String>,
    /// The PKCE challenge (S256).
    pub(super) challenge: String,
    /// Where the code was sent.
    pub(super) redirect_uri: String,
}

impl Grant {
    /// Whether the token request fits the authorization request (RFC 6749 4.1.3, RFC 7636 4.6).
    pub(super) fn fits(&self, redirect_uri: &str, verifier: &str) -> bool {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        self.redirect_uri == redirect_uri && secret::equal(challenge.as_bytes(), self.challenge.as_bytes())
    }
}

/// Everything that was given out.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    codes: Entries<Grant>,
    tokens: Entries<&'static User>,
    sessions: Entries<BrowserSession>,
}

/// The demo gave out all that it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Ledger {
    /// Gives out a code.
    pub(super) fn put_code(&mut self, code: String, grant: Grant, now: UnixTime) -> Result<(), Full> {
        self.codes.put(code, grant, now + CODE_LIFETIME, now)
    }

    /// Takes a code back: it works once, whatever comes of it.
    pub(super) fn take_code(&mut self, code: &str, now: UnixTime) -> Option<Grant> {
        self.codes.take(code, now)
    }

    /// Gives out an access token.
    pub(super) fn put_token(
        &mut self,
        token: String,
        user: &'static User,
        now: UnixTime,
    ) -> Result<(), Full> {
        self.tokens.put(token, user, now + TOKEN_LIFETIME, now)
    }

    /// Whose access token it is.
    pub(super) fn find_token(&self, token: &str, now: UnixTime) -> Option<&'static User> {
        self.tokens.find(token, now).copied()
    }

    /// Signs a browser in.
    pub(super) fn put_session(
        &mut self,
        cookie: String,
        session: BrowserSession,
        now: UnixTime,
    ) -> Result<(), Full> {
        self.sessions.put(cookie, session, now + SESSION_LIFETIME, now)
    }

    /// Who is signed in in the browser with this cookie.
    pub(super) fn find_session(&self, cookie: &str, now: UnixTime) -> Option<&BrowserSession> {
        self.sessions.find(cookie, now)
    }

    /// Signs a browser out.
    pub(super) fn end_session(&mut self, cookie: &str, now: UnixTime) {
        self.sessions.take(cookie, now);
    }
}

/// Values under random names, each with its end.
#[derive(Debug)]
struct Entries<T>(HashMap<String, (T, UnixTime)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Entries<T> {
    fn put(&mut self, name: String, value: T, ends: UnixTime, now: UnixTime) -> Result<(), Full> {
        self.0.retain(|_, (_, ends)| *ends > now);
        if self.0.len() >= MAX_ENTRIES {
            return Err(Full);
        }
        self.0.insert(name, (value, ends));
        Ok(())
    }

    fn find(&self, name: &str, now: UnixTime) -> Option<&T> {
        self.0.get(name).filter(|(_, ends)| *ends > now).map(|(value, _)| value)
    }

    fn take(&mut self, name: &str, now: UnixTime) -> Option<T> {
        self.0.remove(name).filter(|(_, ends)| *ends > now).map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_000_000);

    fn session() -> BrowserSession {
        BrowserSession { user: &USERS[0], sid: "s1".to_owned(), since: NOW }
    }

    /// The challenge of the verifier in RFC 7636, appendix B.
    fn grant() -> Grant {
        Grant {
            session: session(),
            nonce: None,
            challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned(),
            redirect_uri: "http://localhost/cb".to_owned(),
        }
    }

    #[test]
    fn a_code_works_once_and_not_for_long() {
        let mut ledger = Ledger::default();
        ledger.put_code("c1".to_owned(), grant(), NOW).unwrap();
        ledger.put_code("c2".to_owned(), grant(), NOW).unwrap();
        assert!(ledger.take_code("c1", NOW).is_some());
        assert!(ledger.take_code("c1", NOW).is_none(), "a second time");
        assert!(ledger.take_code("c2", NOW + CODE_LIFETIME).is_none(), "too late");
        assert!(ledger.take_code("c3", NOW).is_none(), "never given out");
    }

    #[test]
    fn a_code_goes_only_to_who_holds_the_verifier() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let cases = [
            ("right", "http://localhost/cb", verifier, true),
            ("another redirect URI", "http://localhost/cb/", verifier, false),
            ("another verifier", "http://localhost/cb", "dBjftJeZ4CVP", false),
            (
                "the challenge itself",
                "http://localhost/cb",
                "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
                false,
            ),
        ];
        for (name, redirect_uri, verifier, wanted) in cases {
            assert_eq!(grant().fits(redirect_uri, verifier), wanted, "{name}");
        }
    }

    #[test]
    fn tokens_and_sessions_end() {
        let mut ledger = Ledger::default();
        ledger.put_token("t".to_owned(), &USERS[1], NOW).unwrap();
        ledger.put_session("s".to_owned(), session(), NOW).unwrap();
        assert_eq!(ledger.find_token("t", NOW).map(|user| user.login), Some("bob"));
        assert_eq!(ledger.find_token("t", NOW + TOKEN_LIFETIME), None);
        assert!(ledger.find_session("s", NOW).is_some());
        assert!(ledger.find_session("s", NOW + SESSION_LIFETIME).is_none());
        ledger.end_session("s", NOW);
        assert!(ledger.find_session("s", NOW).is_none(), "signed out");
    }

    #[test]
    fn the_ledger_is_bounded_and_forgets_what_has_ended() {
        let mut ledger = Ledger::default();
        for n in 0..MAX_ENTRIES {
            ledger.put_code(n.to_string(), grant(), NOW).unwrap();
        }
        assert_eq!(ledger.put_code("x".to_owned(), grant(), NOW), Err(Full));
        assert_eq!(ledger.put_code("x".to_owned(), grant(), NOW + CODE_LIFETIME), Ok(()));
    }
}
