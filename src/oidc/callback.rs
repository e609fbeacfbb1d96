//! The provider's answer in the browser: checked before any call to the provider (CB-1 to CB-9).

use percent_encoding::percent_decode_str;

use super::authorize::LoginAttempt;
use super::printable;
use crate::clock::UnixTime;
use crate::secret::Secret;

/// The parameters of a callback, each at most once, sizes bounded.
#[derive(Clone, Debug)]
pub struct Params {
    /// `state`; always there.
    pub state: Secret<String>,
    /// `iss` (RFC 9207).
    pub iss: Option<String>,
    /// `code` or `error`.
    pub outcome: Outcome,
}

/// What the provider answered.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A code to exchange.
    Code(Secret<String>),
    /// An error; `description` is cut and cleaned, for the log only.
    Error {
        /// The error code: at most 64 characters of `[a-z_]`, else "unknown".
        error: String,
        /// Printable text, at most 200 characters.
        description: String,
    },
}

/// Why a callback was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// CB-2, CB-6, CB-9.
    #[error("the callback's parameters are malformed: {0}")]
    Malformed(&'static str),
    /// The state is not that of the attempt.
    #[error("the callback's state is not the one that was sent")]
    StateMismatch,
    /// CB-5.
    #[error("the sign-in took longer than ten minutes")]
    Expired,
    /// CB-7.
    #[error("the callback names another issuer, or none where one is needed")]
    IssuerMismatch,
    /// AR-7: it came back on the callback path of another provider or host.
    #[error("the callback came back on another path than the one that was sent")]
    WrongCallback,
}

/// How long an attempt lives.
pub const ATTEMPT_LIFETIME: std::time::Duration = std::time::Duration::from_mins(10);

/// The most bytes of a query; above it nothing is even decoded.
const MAX_QUERY_BYTES: usize = 16 * 1024;

/// The most bytes of a `state`: ours have 22 to 43.
const MAX_STATE_BYTES: usize = 512;

/// The most bytes of a `code`: Entra's have about 1,500.
const MAX_CODE_BYTES: usize = 4096;

/// Parameters of other flows: a token in the query was never asked for (CB-9).
const TOKENS: &[&str] = &["id_token", "access_token", "token", "refresh_token", "response"];

/// Reads the query (or form body) of a callback.
///
/// # Errors
/// [`CallbackError::Malformed`]: state or code missing, empty, too long (state over 512, code over
/// 4096 bytes) or repeated; both code and error; tokens in the query (CB-9); bytes that are no UTF-8.
/// Unknown parameters such as `session_state` are ignored.
pub fn parse(query: &str) -> Result<Params, CallbackError> {
    let fields = Fields::read(query)?;
    let state = fields.state.ok_or(CallbackError::Malformed("no state"))?;
    let outcome = match (fields.code, fields.error) {
        (Some(_), Some(_)) => return Err(CallbackError::Malformed("both code and error")),
        (None, None) => return Err(CallbackError::Malformed("neither code nor error")),
        (Some(code), None) => Outcome::Code(Secret::new(code)),
        (None, Some(error)) => Outcome::Error {
            error: super::error_code(&error),
            description: printable(&fields.description.unwrap_or_default(), 200),
        },
    };
    Ok(Params { state: Secret::new(state), iss: fields.iss, outcome })
}

/// Checks the parameters against the attempt that the cookie held, in the order of CB-3: state
/// (constant time), redirect URI, age, issuer. `here` is the redirect URI of the path that was called;
/// `iss_required` comes from the metadata.
///
/// # Errors
/// [`CallbackError`].
pub fn check(
    params: &Params,
    attempt: &LoginAttempt,
    here: &str,
    iss_required: bool,
    now: UnixTime,
) -> Result<(), CallbackError> {
    if params.state != attempt.state {
        return Err(CallbackError::StateMismatch);
    }
    if here != attempt.redirect_uri {
        return Err(CallbackError::WrongCallback);
    }
    if now.since(attempt.started_at) > ATTEMPT_LIFETIME {
        return Err(CallbackError::Expired);
    }
    check_issuer(params.iss.as_deref(), attempt, iss_required)
}

/// RFC 9207 2.4; CB-7: `iss`, where it is there or has to be, equals the issuer of the attempt.
fn check_issuer(iss: Option<&str>, attempt: &LoginAttempt, required: bool) -> Result<(), CallbackError> {
    match iss {
        Some(iss) if iss == &*attempt.issuer.0 => Ok(()),
        None if !required => Ok(()),
        None | Some(_) => Err(CallbackError::IssuerMismatch),
    }
}

/// The parameters that mean something, each at most once.
#[derive(Default)]
struct Fields {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    description: Option<String>,
}

impl Fields {
    fn read(query: &str) -> Result<Self, CallbackError> {
        if query.len() > MAX_QUERY_BYTES {
            return Err(CallbackError::Malformed("too long"));
        }
        let mut fields = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.take(&decode(name)?, decode(value)?)?;
        }
        Ok(fields)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), CallbackError> {
        match name {
            "state" => set(&mut self.state, value, MAX_STATE_BYTES),
            "code" => set(&mut self.code, value, MAX_CODE_BYTES),
            "iss" => set(&mut self.iss, value, 1024),
            "error" => set(&mut self.error, value, 1024),
            // For the log only, so an empty or second one is no reason to refuse.
            "error_description" => {
                self.description.get_or_insert(value);
                Ok(())
            }
            name if TOKENS.contains(&name) => Err(CallbackError::Malformed("a token in the query")),
            _ => Ok(()),
        }
    }
}

/// CB-2, CB-6; RFC 6749 3.1 and A.5, A.11: once, not empty, not too long, without control characters.
fn set(field: &mut Option<String>, value: String, max_bytes: usize) -> Result<(), CallbackError> {
    if field.is_some() {
        return Err(CallbackError::Malformed("a parameter is repeated"));
    }
    if value.is_empty() || value.len() > max_bytes {
        return Err(CallbackError::Malformed("a parameter is empty or too long"));
    }
    if value.chars().any(char::is_control) {
        return Err(CallbackError::Malformed("a parameter holds control characters"));
    }
    *field = Some(value);
    Ok(())
}

/// `application/x-www-form-urlencoded`, but bytes that are no UTF-8 are an error, not a replacement.
fn decode(text: &str) -> Result<String, CallbackError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    Ok(decoded.or(Err(CallbackError::Malformed("not UTF-8")))?.into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::oidc::{ClientId, Issuer, ProviderId};
    use crate::web::return_to::ReturnTo;

    const HERE: &str = "https://app.test/oauth2/callback";
    const START: UnixTime = UnixTime::from_secs(1_000_000);

    fn attempt() -> LoginAttempt {
        LoginAttempt {
            provider: ProviderId("main".into()),
            issuer: Issuer("https://op.test".into()),
            client_id: ClientId("client".into()),
            state: Secret::new("s1".to_owned()),
            nonce: Secret::new("n1".to_owned()),
            verifier: Secret::new("v1".to_owned()),
            redirect_uri: HERE.to_owned(),
            return_to: ReturnTo::root(),
            started_at: START,
            step_up: crate::oidc::step_up::StepUp::default(),
            again: false,
            replaces: None,
        }
    }

    #[test]
    fn a_code_is_read_and_unknown_parameters_are_not() {
        let params = parse("code=a%2Fb+c&state=s1&session_state=x").unwrap();
        let Outcome::Code(code) = params.outcome else { panic!("no code") };
        assert_eq!(code.expose(), "a/b c");
        assert_eq!(params.state.expose(), "s1");
        assert_eq!(params.iss, None);
    }

    #[test]
    fn malformed_parameters_are_refused() {
        let long_state = format!("code=c&state={}", "s".repeat(100 * 1024));
        let state_of_513 = format!("code=c&state={}", "s".repeat(513));
        let code_of_4097 = format!("state=s&code={}", "c".repeat(4097));
        let long_query = format!("code=c&state=s&x={}", "x".repeat(MAX_QUERY_BYTES));
        let rows = [
            ("too long in all", long_query.as_str()),
            ("LC-079 nothing", ""),
            ("LC-079 code only", "code=c"),
            ("LC-079 state only", "state=s"),
            ("LC-079 empty values", "code=&state="),
            ("LC-079 empty code", "code=&state=s"),
            ("LC-079 names without values", "code&state"),
            ("LC-079 100 KB state", &long_state),
            ("state over its bound", &state_of_513),
            ("code over its bound", &code_of_4097),
            ("LC-079 NUL", "code=c&state=%00"),
            ("LC-079 no UTF-8", "code=c&state=%FF"),
            ("newline in the code", "code=c%0d%0a&state=s"),
            ("LC-082 code twice", "code=good&code=evil&state=s"),
            ("LC-082 state twice", "code=c&state=s&state=x"),
            ("LC-082 state twice, encoded name", "code=c&state=s&%73tate=s"),
            ("LC-082 iss twice", "code=c&state=s&iss=a&iss=b"),
            ("LC-082 code and error", "code=a&error=access_denied&state=s"),
            ("error twice", "error=a&error=b&state=s"),
            ("LC-088 error without state", "error=access_denied"),
            ("LC-089 ID token", "id_token=x&state=s"),
            ("LC-089 ID token beside a code", "code=c&id_token=x&state=s"),
            ("LC-089 access token", "access_token=x&token_type=Bearer&state=s&code=c"),
            ("CB-9 token", "token=x&state=s&code=c"),
        ];
        for (name, query) in rows {
            let verdict = parse(query).map(drop);
            assert!(matches!(verdict, Err(CallbackError::Malformed(_))), "{name}: {verdict:?}");
        }
    }

    #[test]
    fn an_error_is_cleaned_and_cut() {
        let description = format!("%22%3E%3Cimg%0a%1b{}", "x".repeat(300));
        let query =
            format!("error=%3Cscript%3E&error_description={description}&state=s&error_uri=javascript:1");
        let Outcome::Error { error, description } = parse(&query).unwrap().outcome else {
            panic!("no error")
        };
        assert_eq!(error, "unknown", "LC-087");
        assert_eq!(description.len(), 200);
        assert!(description.starts_with("\"><img??xxx"), "{description}");
        let known = parse("error=access_denied&state=s").unwrap().outcome;
        assert!(matches!(known, Outcome::Error { error, .. } if error == "access_denied"));
    }

    #[test]
    fn lc_090_a_callback_has_to_belong_to_its_attempt() {
        let minute = Duration::from_mins(1);
        let good = "code=c&state=s1";
        let rows = [
            ("good", good, HERE, false, START + minute, Ok(())),
            ("at ten minutes", good, HERE, false, START + 10 * minute, Ok(())),
            ("LC-090 later", good, HERE, false, START + 11 * minute, Err(CallbackError::Expired)),
            ("LC-100 state", "code=c&state=s2", HERE, false, START, Err(CallbackError::StateMismatch)),
            (
                "LC-086 path",
                good,
                "https://app.test/oauth2/callback/b",
                false,
                START,
                Err(CallbackError::WrongCallback),
            ),
            ("LC-084 no iss", good, HERE, true, START, Err(CallbackError::IssuerMismatch)),
            ("iss", "code=c&state=s1&iss=https://op.test", HERE, true, START, Ok(())),
            (
                "iss though not announced",
                "code=c&state=s1&iss=https%3A%2F%2Fop.test",
                HERE,
                false,
                START,
                Ok(()),
            ),
            (
                "LC-084 slash",
                "code=c&state=s1&iss=https://op.test/",
                HERE,
                true,
                START,
                Err(CallbackError::IssuerMismatch),
            ),
            (
                "LC-084 case",
                "code=c&state=s1&iss=https://OP.test",
                HERE,
                false,
                START,
                Err(CallbackError::IssuerMismatch),
            ),
            (
                "LC-084 port",
                "code=c&state=s1&iss=https://op.test:443",
                HERE,
                false,
                START,
                Err(CallbackError::IssuerMismatch),
            ),
            (
                "CB-7 on errors too",
                "error=x&state=s1&iss=https://op2.test",
                HERE,
                false,
                START,
                Err(CallbackError::IssuerMismatch),
            ),
            (
                "CB-3 state before the rest",
                "code=c&state=x&iss=y",
                "z",
                true,
                START + 11 * minute,
                Err(CallbackError::StateMismatch),
            ),
        ];
        for (name, query, here, iss_required, now, wanted) in rows {
            let verdict = check(&parse(query).unwrap(), &attempt(), here, iss_required, now);
            assert_eq!(verdict, wanted, "{name}");
        }
    }
}
