//! What the client shows itself with: its secrets and keys, as they are on disk now.
//!
//! Files are read anew when a request is built that needs them, on a thread for blocking work of the
//! gateway's runtime. A file that is gone, empty or no key leaves the last good value, and is told once.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::flight::Flight;
use super::transport::Transport;
use crate::oidc::ProviderId;
use crate::oidc::client_auth::ClientAuth;
use crate::secret::{self, LoadError, Secret};
use crate::token::Algorithm;
use crate::token::private_key;
use crate::token::sign::SigningKey;

/// How long a request waits for the files; a disk answers in less than a millisecond.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// How a client shows who it is, by the names of OIDC Core 9 and RFC 8705 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthMethod {
    /// `client_secret_basic`.
    ClientSecretBasic,
    /// `client_secret_post`.
    ClientSecretPost,
    /// `client_secret_jwt`.
    ClientSecretJwt,
    /// `private_key_jwt`.
    PrivateKeyJwt,
    /// `tls_client_auth`: the certificate of the TLS connection, by its name.
    TlsClientAuth,
    /// `self_signed_tls_client_auth`: the same, registered by its key.
    SelfSignedTlsClientAuth,
    /// `none`.
    None,
}

/// Whom a client assertion is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AssertionAudience {
    /// The issuer identifier.
    #[default]
    Issuer,
    /// The token endpoint, for providers that know nothing else.
    TokenEndpoint,
}

/// A value of the configuration, and where newer ones come from.
#[derive(Clone, Debug)]
pub struct Held<T> {
    /// As it was when it was read last.
    pub value: T,
    /// The text that it was read from.
    pub text: Secret<String>,
    /// The file that it is read from anew; `None` where it can't change.
    pub file: Option<PathBuf>,
}

/// A certificate chain and its private key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How the client shows who it is, as configured.
#[derive(Clone, Debug, Default)]
pub struct ClientSettings {
    /// The method; `None`: the best that this and the provider's metadata allow.
    pub method: Option<ClientAuthMethod>,
    /// The secrets: the first is tried first, a second one during a rotation.
    pub secrets: Vec<Held<Secret<String>>>,
    /// The keys: the first signs, the public halves of all are published.
    pub keys: Vec<Held<SigningKey>>,
    /// What the keys sign with; `None`: what is usual for each.
    pub key_algorithm: Option<Algorithm>,
    /// Whom assertions are for.
    pub audience: AssertionAudience,
    /// What is shown in TLS, whatever the method: to authenticate, or to bind tokens (RFC 8705 3).
    pub certificate: Option<CertificateFiles>,
}

/// What the client has to show.
#[derive(Clone, Debug)]
pub(super) enum Credential {
    /// As it is.
    Plain(ClientAuth),
    /// By assertions that a secret signs.
    Secret(Secret<String>),
    /// By assertions that a key signs.
    Key(SigningKey),
}

/// The credentials of one provider's client.
#[derive(Debug)]
pub(super) struct Credentials {
    provider: ProviderId,
    method: Option<ClientAuthMethod>,
    key_algorithm: Option<Algorithm>,
    certificate: Option<CertificateFiles>,
    transport: Transport,
    state: Mutex<State>,
    reading: Flight<()>,
}

#[derive(Debug)]
struct State {
    secrets: Vec<Item<Secret<String>>>,
    keys: Vec<Item<SigningKey>>,
    /// The way to the provider with the client's certificate.
    certified: Option<Item<Transport>>,
    /// The secret that worked last.
    worked: usize,
}

/// A value, and how the last reading went.
#[derive(Debug)]
struct Item<T> {
    held: Held<T>,
    /// Whether the last reading failed: that is told once.
    failed: bool,
}

impl ClientAuthMethod {
    /// Its name in metadata and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::ClientSecretJwt => "client_secret_jwt",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
            Self::None => "none",
        }
    }
}

impl Credentials {
    /// Those of the settings; a certificate is read from its files.
    pub(super) fn new(
        provider: &ProviderId,
        settings: &ClientSettings,
        transport: &Transport,
    ) -> Result<Self, String> {
        let certified = settings.certificate.as_ref().map(|files| certified(files, transport)).transpose()?;
        let state = State {
            secrets: settings.secrets.iter().cloned().map(Item::from).collect(),
            keys: settings.keys.iter().cloned().map(Item::from).collect(),
            certified: certified.map(Item::from),
            worked: 0,
        };
        Ok(Self {
            provider: provider.clone(),
            method: settings.method,
            key_algorithm: settings.key_algorithm,
            certificate: settings.certificate.clone(),
            transport: transport.clone(),
            state: Mutex::new(state),
            reading: Flight::default(),
        })
    }

    /// Reads the files anew. Whoever comes while they are being read waits for that, and for a disk that
    /// does not answer not long: what was read last is good enough then.
    pub(super) async fn renew(self: &Arc<Self>, runtime: &Handle) {
        let begin = || {
            let (own, runtime) = (Arc::clone(self), runtime.clone());
            let has_files = self.state().has_files();
            has_files.then_some(async move {
                // An interrupted reading leaves what was there.
                let _ = runtime.spawn_blocking(move || own.read()).await;
            })
        };
        let _ = tokio::time::timeout(READ_TIMEOUT, self.reading.join(runtime, begin)).await;
    }

    /// What to show, in the order to try: the client is shown in one way, and in a second one only where
    /// two secrets overlap. `listed` is what the provider says that it takes.
    pub(super) fn candidates(&self, listed: &[String]) -> Vec<(usize, Credential)> {
        let state = self.state();
        let method = self.method.unwrap_or_else(|| state.best(listed));
        let by_secret = |make: fn(Secret<String>) -> Credential| state.secrets_in_order(make);
        match method {
            ClientAuthMethod::ClientSecretBasic => {
                by_secret(|secret| Credential::Plain(ClientAuth::Basic(secret)))
            }
            ClientAuthMethod::ClientSecretPost => {
                by_secret(|secret| Credential::Plain(ClientAuth::Post(secret)))
            }
            ClientAuthMethod::ClientSecretJwt => by_secret(Credential::Secret),
            ClientAuthMethod::PrivateKeyJwt => state.first_key(),
            // The connection says who it is; the form only names the client (RFC 8705 2).
            ClientAuthMethod::TlsClientAuth
            | ClientAuthMethod::SelfSignedTlsClientAuth
            | ClientAuthMethod::None => vec![(0, Credential::Plain(ClientAuth::None))],
        }
    }

    /// The way to the provider on which the client shows itself: with its certificate, where it has one.
    pub(super) fn transport(&self) -> Transport {
        let state = self.state();
        state.certified.as_ref().map_or(&self.transport, |item| &item.held.value).clone()
    }

    /// Remembers the secret that worked: it is tried first from now on.
    pub(super) fn worked(&self, index: usize) {
        self.state().worked = index;
    }

    /// The public halves of the keys, the one that signs first.
    pub(super) fn public_keys(&self) -> Vec<serde_json::Value> {
        self.state().keys.iter().filter_map(|key| key.held.value.public_jwk().ok()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks on the disk, and not with the lock.
    fn read(&self) {
        let (secrets, keys) = self.state().files();
        let load = |file: &Option<PathBuf>| file.as_deref().map(secret::load_again);
        let (secrets, keys): (Vec<_>, Vec<_>) =
            (secrets.iter().map(load).collect(), keys.iter().map(load).collect());
        let pair = self.certificate.as_ref().map(load_pair);
        let mut state = self.state();
        if let Some(item) = &mut state.certified {
            item.take(pair, &self.provider, |pem| self.transport.with_certificate(pem));
        }
        let mut changed = false;
        for (item, found) in state.secrets.iter_mut().zip(secrets) {
            let found = found.map(|text| text.and_then(|text| secret::one_line(&text)));
            changed |= item.take(found, &self.provider, |text| Ok::<_, LoadError>(text.clone()));
        }
        for (item, found) in state.keys.iter_mut().zip(keys) {
            item.take(found, &self.provider, |text| private_key::parse(text, self.key_algorithm));
        }
        if changed {
            // Which one worked says nothing of others.
            state.worked = 0;
        }
    }
}

impl State {
    fn has_files(&self) -> bool {
        let (secrets, keys) = self.files();
        self.certified.is_some() || secrets.iter().chain(&keys).any(Option::is_some)
    }

    fn files(&self) -> (Vec<Option<PathBuf>>, Vec<Option<PathBuf>>) {
        let secrets = self.secrets.iter().map(|item| item.held.file.clone());
        (secrets.collect(), self.keys.iter().map(|item| item.held.file.clone()).collect())
    }

    /// The best method that the configuration has what is needed for and the provider lists; where it lists
    /// none of them, the best.
    ///
    /// A key or certificate is better than a secret, which travels. Between the ways to use a secret the plain ones come
    /// first: providers list `client_secret_jwt` for all clients and take it of those alone that are
    /// registered with it.
    fn best(&self, listed: &[String]) -> ClientAuthMethod {
        let with_key: &[_] = &[ClientAuthMethod::PrivateKeyJwt];
        let with_certificate: &[_] =
            &[ClientAuthMethod::TlsClientAuth, ClientAuthMethod::SelfSignedTlsClientAuth];
        let with_secret: &[_] = &[
            ClientAuthMethod::ClientSecretBasic,
            ClientAuthMethod::ClientSecretPost,
            ClientAuthMethod::ClientSecretJwt,
        ];
        let with_key = if self.keys.is_empty() { &[] } else { with_key };
        let with_certificate = if self.certified.is_none() { &[] } else { with_certificate };
        let with_secret = if self.secrets.is_empty() { &[] } else { with_secret };
        let possible: Vec<_> = with_key.iter().chain(with_certificate).chain(with_secret).copied().collect();
        let found = possible.iter().find(|method| listed.iter().any(|name| name == method.name()));
        found.or(possible.first()).copied().unwrap_or(ClientAuthMethod::None)
    }

    fn first_key(&self) -> Vec<(usize, Credential)> {
        self.keys.iter().take(1).map(|key| (0, Credential::Key(key.held.value.clone()))).collect()
    }

    /// The secrets, the one that worked last first.
    fn secrets_in_order(&self, make: fn(Secret<String>) -> Credential) -> Vec<(usize, Credential)> {
        let mut secrets: Vec<_> = self.secrets.iter().enumerate().collect();
        secrets.sort_by_key(|(index, _)| *index != self.worked);
        // The same secret again would be refused again.
        secrets.dedup_by(|a, b| a.1.held.value == b.1.held.value);
        secrets.into_iter().map(|(index, secret)| (index, make(secret.held.value.clone()))).collect()
    }
}

fn certified(files: &CertificateFiles, transport: &Transport) -> Result<Held<Transport>, String> {
    let told = |error: &dyn std::error::Error| format!("{}: {error}", files.certificate.display());
    let text = load_pair(files).map_err(|error| told(&error))?;
    let value = transport.with_certificate(&text).map_err(|error| told(&error))?;
    Ok(Held { value, text, file: Some(files.certificate.clone()) })
}

/// The chain and its key in one text.
fn load_pair(files: &CertificateFiles) -> Result<Secret<String>, LoadError> {
    let (chain, key) = (secret::load_again(&files.certificate)?, secret::load_again(&files.key)?);
    Ok(Secret::new(format!("{}\n{}", chain.expose(), key.expose())))
}

impl<T> From<Held<T>> for Item<T> {
    fn from(held: Held<T>) -> Self {
        Self { held, failed: false }
    }
}

impl<T> Item<T> {
    /// Takes what its file holds; says whether that is something new.
    fn take<E: ToString>(
        &mut self,
        found: Option<Result<Secret<String>, LoadError>>,
        provider: &ProviderId,
        parse: impl FnOnce(&Secret<String>) -> Result<T, E>,
    ) -> bool {
        let Some(found) = found else { return false };
        if found.as_ref().is_ok_and(|text| *text == self.held.text) {
            self.failed = false;
            return false;
        }
        let parsed = found.map_err(|error| error.to_string()).and_then(|text| {
            let value = parse(&text).map_err(|error| error.to_string())?;
            Ok((value, text))
        });
        match parsed {
            Ok((value, text)) => self.replace(value, text, provider),
            Err(error) => self.keep(&error, provider),
        }
    }

    fn replace(&mut self, value: T, text: Secret<String>, provider: &ProviderId) -> bool {
        let (file, provider) = (self.file(), &*provider.0);
        tracing::info!(event = "client_credential_changed", provider, file);
        (self.held.value, self.held.text, self.failed) = (value, text, false);
        true
    }

    fn keep(&mut self, error: &str, provider: &ProviderId) -> bool {
        if !self.failed {
            let (file, provider) = (self.file(), &*provider.0);
            tracing::warn!(
                event = "client_credential_unreadable",
                provider,
                file,
                error,
                "the last good one is used"
            );
        }
        self.failed = true;
        false
    }

    fn file(&self) -> Option<String> {
        self.held.file.as_deref().map(|file| file.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::LazyLock;

    use tokio::runtime::Runtime;

    use super::*;
    use crate::idp::transport::Options;
    use crate::idp::transport::reach::Reach;
    use crate::telemetry::logging::{Format, Level, captured};

    const KEYS: [&str; 2] = [
        include_str!("../../tests/data/keys/p256.pkcs8.pem"),
        include_str!("../../tests/data/keys/p384.pkcs8.pem"),
    ];

    fn transport() -> Transport {
        static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
        let reach = Reach::new("http://127.0.0.1", false);
        let options = Options { ca_file: None, timeout: READ_TIMEOUT, plain_http: true, reach };
        Transport::new(&options, RUNTIME.handle().clone()).unwrap()
    }

    fn held<T>(value: T, text: &str, file: &Path) -> Held<T> {
        Held { value, text: Secret::new(text.to_owned()), file: Some(file.to_owned()) }
    }

    fn secrets(files: &[(&str, &Path)]) -> Credentials {
        let held = |(text, file): &(&str, &Path)| held(Secret::new((*text).to_owned()), text, file);
        let secrets = files.iter().map(held).collect();
        let settings = ClientSettings { secrets, ..ClientSettings::default() };
        Credentials::new(&ProviderId("main".into()), &settings, &transport()).unwrap()
    }

    /// The secrets in the order in which they would be shown.
    fn shown(credentials: &Credentials) -> Vec<String> {
        let secret = |(_, credential)| {
            let Credential::Plain(ClientAuth::Basic(secret)) = credential else { panic!("{credential:?}") };
            secret.expose().clone()
        };
        credentials.candidates(&["client_secret_basic".to_owned()]).into_iter().map(secret).collect()
    }

    fn read(credentials: &Credentials) -> Vec<String> {
        let event = |line: &String| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["event"].as_str().unwrap().to_owned()
        };
        let lines = captured(Format::Json, Level::Info, || credentials.read());
        assert!(lines.iter().all(|line| !line.contains("hunter")), "{lines:?}");
        lines.iter().map(event).collect()
    }

    #[test]
    fn a_file_that_is_gone_or_no_secret_leaves_the_last_good_one_and_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let credentials = secrets(&[("hunter1", &file)]);
        let bad: [(&str, Option<&[u8]>); 5] = [
            ("gone", None),
            ("empty", Some(b"")),
            ("a newline alone", Some(b"\n")),
            ("two lines", Some(b"hunter2\nhunter3\n")),
            ("no UTF-8", Some(b"hunter2\xff")),
        ];
        for (name, contents) in bad {
            std::fs::write(&file, "hunter1\n").unwrap();
            assert_eq!(read(&credentials), [""; 0], "{name}: as before");
            match contents {
                Some(contents) => std::fs::write(&file, contents).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            assert_eq!(read(&credentials), ["client_credential_unreadable"], "{name}");
            assert_eq!(read(&credentials), [""; 0], "{name}: told once");
            assert_eq!(shown(&credentials), ["hunter1"], "{name}");
        }
        std::fs::write(&file, "hunter2").unwrap();
        assert_eq!(read(&credentials), ["client_credential_changed"]);
        assert_eq!(shown(&credentials), ["hunter2"]);
    }

    #[test]
    fn a_pipe_is_read_at_the_start_only_and_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("secret");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let credentials = secrets(&[("hunter1", &pipe)]);
        assert_eq!(read(&credentials), ["client_credential_unreadable"]);
        assert_eq!(shown(&credentials), ["hunter1"]);
    }

    #[test]
    fn the_secret_that_worked_comes_first_until_one_of_them_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::write(&one, "new").unwrap();
        std::fs::write(&two, "old").unwrap();
        let credentials = secrets(&[("new", &one), ("old", &two)]);
        assert_eq!(shown(&credentials), ["new", "old"]);
        credentials.worked(1);
        read(&credentials);
        assert_eq!(shown(&credentials), ["old", "new"]);
        std::fs::write(&two, "newer").unwrap();
        read(&credentials);
        assert_eq!(shown(&credentials), ["new", "newer"]);
        std::fs::write(&one, "newer").unwrap();
        read(&credentials);
        assert_eq!(shown(&credentials), ["newer"], "nothing is sent twice without need");
    }

    #[test]
    fn a_key_that_changes_on_disk_signs_and_is_published_and_garbage_is_neither() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        let key = |text: &str| private_key::parse(&Secret::new(text.to_owned()), None).unwrap();
        let settings =
            ClientSettings { keys: vec![held(key(KEYS[0]), KEYS[0], &file)], ..ClientSettings::default() };
        let credentials = Credentials::new(&ProviderId("main".into()), &settings, &transport()).unwrap();
        let kid = |text| key(text).public_jwk().unwrap()["kid"].clone();
        let published = || credentials.public_keys()[0]["kid"].clone();
        for (name, contents, wanted) in [
            ("the first", KEYS[0], kid(KEYS[0])),
            ("another", KEYS[1], kid(KEYS[1])),
            ("garbage", "hunter2", kid(KEYS[1])),
            ("the first again", KEYS[0], kid(KEYS[0])),
        ] {
            std::fs::write(&file, contents).unwrap();
            read(&credentials);
            assert_eq!(published(), wanted, "{name}");
            let [(0, Credential::Key(signer))] = &credentials.candidates(&[])[..] else { panic!("{name}") };
            assert_eq!(signer.public_jwk().unwrap()["kid"], wanted, "{name}");
        }
    }
}
