//! Who may have something done over the admin listener: whoever can read a file in `data_dir`.
//!
//! The listener is open to every user of the machine, and to every page that a browser on it shows.
//! What only tells is for all of them; what costs disk or changes something asks for the token that
//! the gateway writes at each start to a file of its own user's. A browser is refused whatever it
//! brings, and so is a request under a name, which a page's owner can point at any address.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::random::{RandomError, random_token};
use crate::secret::{self, LoadError, Secret, equal};

const NAME: &str = "admin.token";

/// What browsers send and programs don't.
const OF_BROWSERS: [HeaderName; 4] =
    [header::ORIGIN, header::REFERER, header::COOKIE, HeaderName::from_static("sec-fetch-site")];

/// The token of this run.
#[derive(Debug)]
pub struct Token(Secret<String>);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be written.
    #[error("{path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No entropy.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Why a request may not have something done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has not the token.
    Token,
    /// It came from a browser.
    Browser,
    /// It was sent to a name.
    Host,
}

impl Refused {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Browser | Self::Host => StatusCode::FORBIDDEN,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Browser => "browser",
            Self::Host => "host",
        }
    }
}

impl Token {
    /// Where the token of the gateway with this `data_dir` is.
    #[must_use]
    pub fn file(data_dir: &Path) -> PathBuf {
        data_dir.join(NAME)
    }

    /// A new token, written to its file for the gateway's user only. Only the process that has the
    /// store of `data_dir` open may call this.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn make(data_dir: &Path) -> Result<Self, TokenError> {
        let token = Secret::new(random_token::<32>()?);
        let path = Self::file(data_dir);
        write(&path, &token).map_err(|source| TokenError::Write { path, source })?;
        Ok(Self(token))
    }

    /// The value that shows the token of a running gateway.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn authorization(data_dir: &Path) -> Result<Secret<String>, LoadError> {
        let token = secret::one_line(&secret::load_again(&Self::file(data_dir))?)?;
        Ok(Secret::new(format!("Bearer {}", token.expose())))
    }

    /// Whether a request to the listener at `address` may have something done.
    pub(super) fn admit(&self, address: SocketAddr, headers: &HeaderMap) -> Result<(), Refused> {
        if OF_BROWSERS.iter().any(|name| headers.contains_key(name)) {
            return Err(Refused::Browser);
        }
        if !is_sent_to_an_address(headers, address) {
            return Err(Refused::Host);
        }
        let shown = one(headers, &header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let token = shown.and_then(|value| value.strip_prefix(b"Bearer "));
        let is_shown = token.is_some_and(|token| equal(token, self.0.expose().as_bytes()));
        if is_shown { Ok(()) } else { Err(Refused::Token) }
    }
}

/// The listener's own address; where it listens on all of them, any.
fn is_sent_to_an_address(headers: &HeaderMap, address: SocketAddr) -> bool {
    let host = one(headers, &header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<SocketAddr>().ok());
    host.is_some_and(|host| {
        host.port() == address.port() && (address.ip().is_unspecified() || host.ip() == address.ip())
    })
}

/// The value of a field that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Over the token of the last run, in one step, and through nothing that stands under the draft's name.
fn write(path: &Path, token: &Secret<String>) -> io::Result<()> {
    let draft = path.with_extension("token.new");
    let mut file = secret::create_private(&draft)?;
    file.write_all(token.expose().as_bytes())?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const ADDRESS: &str = "127.0.0.1:9321";

    fn admit(token: &Token, address: &str, fields: &[(&'static str, &str)]) -> Result<(), Refused> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        token.admit(address.parse().unwrap(), &headers)
    }

    #[test]
    fn each_start_has_a_token_of_its_own_for_the_gateways_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = [(); 2].map(|()| {
            let token = Token::make(folder.path()).unwrap();
            let shown = Token::authorization(folder.path()).unwrap();
            assert_eq!(*shown.expose(), format!("Bearer {}", token.0.expose()));
            token
        });
        assert!(tokens[0].0 != tokens[1].0);
        let file = Token::file(folder.path());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_token_is_never_written_through_a_link() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = elsewhere.path().join("seen by others");
        fs::write(&target, "").unwrap();
        for name in ["admin.token", "admin.token.new"] {
            symlink(&target, folder.path().join(name)).unwrap();
        }
        Token::make(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(target).unwrap(), "");
    }

    #[test]
    fn only_the_token_opens_and_never_to_a_browser_or_under_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::make(folder.path()).unwrap();
        let good = Token::authorization(folder.path()).unwrap();
        let good = good.expose().as_str();
        let (host, shown) = (("host", ADDRESS), ("authorization", good));
        let longer = format!("{good}A");
        let shorter = good.get(..good.len() - 1).unwrap();
        let cases: [(&str, Vec<_>, Result<(), Refused>); 16] = [
            ("as the command asks", vec![host, shown], Ok(())),
            ("nothing", vec![host], Err(Refused::Token)),
            ("another token", vec![host, ("authorization", "Bearer other")], Err(Refused::Token)),
            ("a longer one", vec![host, ("authorization", &longer)], Err(Refused::Token)),
            ("a shorter one", vec![host, ("authorization", shorter)], Err(Refused::Token)),
            ("an empty one", vec![host, ("authorization", "Bearer ")], Err(Refused::Token)),
            ("twice", vec![host, shown, shown], Err(Refused::Token)),
            (
                "a page of another site",
                vec![host, shown, ("origin", "https://a.test")],
                Err(Refused::Browser),
            ),
            ("a page without origin", vec![host, shown, ("origin", "null")], Err(Refused::Browser)),
            ("a browser's request", vec![host, shown, ("sec-fetch-site", "none")], Err(Refused::Browser)),
            ("a link", vec![host, shown, ("referer", "http://127.0.0.1:9321/")], Err(Refused::Browser)),
            ("cookies", vec![host, shown, ("cookie", "a=b")], Err(Refused::Browser)),
            ("a name", vec![("host", "rebound.test:9321"), shown], Err(Refused::Host)),
            ("localhost", vec![("host", "localhost:9321"), shown], Err(Refused::Host)),
            ("another port", vec![("host", "127.0.0.1:80"), shown], Err(Refused::Host)),
            ("no host", vec![shown], Err(Refused::Host)),
        ];
        for (name, fields, wanted) in cases {
            assert_eq!(admit(&token, ADDRESS, &fields), wanted, "{name}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_at_any_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::make(folder.path()).unwrap();
        let shown = Token::authorization(folder.path()).unwrap();
        let cases = [
            ("0.0.0.0:9321", "127.0.0.1:9321", Ok(())),
            ("[::]:9321", "[::1]:9321", Ok(())),
            ("127.0.0.1:9321", "127.0.0.2:9321", Err(Refused::Host)),
            ("0.0.0.0:9321", "rebound.test:9321", Err(Refused::Host)),
        ];
        for (address, host, wanted) in cases {
            let fields = [("host", host), ("authorization", shown.expose())];
            assert_eq!(admit(&token, address, &fields), wanted, "{address}, {host}");
        }
    }
}
