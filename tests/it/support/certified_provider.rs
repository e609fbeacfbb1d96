//! A provider that nobody here wrote: the OpenID-certified `oidc-provider` from npm.

use std::time::Duration;

use serde_json::{Value, json};

use super::certificate::{Authority, Certificate};
use super::gateway::{ProviderEntry, WIKI};
use super::node::Program;
use super::ports;

/// A secret with everything that has to be form-encoded before it is put into a Basic header.
pub const AWKWARD_SECRET: &str = "a b:c+d/e%f&g=h?i@j\"k";

/// A secret that is long enough to sign with.
pub const LONG_SECRET: &str = "a secret of more than 32 bytes: +/%=&";

/// The name in the certificate of the client `tls_client_auth`.
pub const CLIENT_NAME: &str = "gateway.client.test";

/// The ways in which the clients authenticate; the name is the `client_id`.
pub const CLIENTS: &[&str] =
    &["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"];

/// A provider to be started.
pub struct Builder {
    settings: Value,
    path: &'static str,
    port: u16,
    hosts: Vec<String>,
    backchannel_logout: Option<String>,
    has_refresh_tokens: bool,
}

/// The provider; accounts `alice`, `bob` and `carol`, the password is the name.
pub struct CertifiedProvider {
    program: Program,
    issuer: String,
    client_ids: Vec<&'static str>,
}

impl CertifiedProvider {
    /// One with an issuer as authentik has them: a path and a trailing slash.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// One to be changed before it starts.
    pub fn builder() -> Builder {
        Builder {
            settings: json!({}),
            path: "/application/o/intranet/",
            port: ports::free(),
            hosts: vec![format!("https://{WIKI}")],
            backchannel_logout: None,
            has_refresh_tokens: false,
        }
    }
}

impl Builder {
    /// The issuer's path, with or without a slash at its end.
    #[must_use]
    pub fn path(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    /// One more origin of the gateway that may be returned to.
    #[must_use]
    pub fn host(mut self, origin: &str) -> Self {
        self.hosts.push(origin.into());
        self
    }

    /// Without an `end_session_endpoint`.
    #[must_use]
    pub fn without_end_session(mut self) -> Self {
        self.settings["end_session"] = json!(false);
        self
    }

    /// Tells this URL of every sign-out, and of which session.
    #[must_use]
    pub fn backchannel_logout(mut self, url: &str) -> Self {
        self.backchannel_logout = Some(url.into());
        self
    }

    /// Takes no authorization request but pushed ones.
    #[must_use]
    pub fn requires_pushed_requests(mut self) -> Self {
        self.settings["requires_pushed_requests"] = json!(true);
        self
    }

    /// Access tokens live for this many seconds, and every sign-in gets a refresh token, which a refresh
    /// replaces. One that comes twice ends all that its sign-in gave.
    #[must_use]
    pub fn refresh_tokens(mut self, access_token_secs: u64) -> Self {
        self.settings["access_token_ttl"] = json!(access_token_secs);
        self.has_refresh_tokens = true;
        self
    }

    /// With a client `tls_client_auth`, which shows a certificate of this authority for the name
    /// [`CLIENT_NAME`]; together with [`Builder::tls`].
    #[must_use]
    pub fn client_authority(mut self, authority: &Authority) -> Self {
        self.settings["client_authority"] = json!(authority.pem());
        self
    }

    /// With TLS.
    #[must_use]
    pub fn tls(mut self, certificate: &Certificate) -> Self {
        self.settings["tls"] = json!({ "certificate": certificate.chain, "key": certificate.key });
        self
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(mut self) -> CertifiedProvider {
        let scheme = if self.settings["tls"].is_null() { "http" } else { "https" };
        let issuer = format!("{scheme}://localhost:{}{}", self.port, self.path);
        self.settings["issuer"] = json!(issuer);
        self.settings["port"] = json!(self.port);
        let with_certificate = (!self.settings["client_authority"].is_null()).then_some("tls_client_auth");
        let client_ids: Vec<_> = CLIENTS.iter().copied().chain(with_certificate).collect();
        self.settings["clients"] = client_ids.iter().map(|method| self.client(method)).collect();
        let mut program = Program::start("provider.mjs");
        assert_eq!(program.ask(&self.settings)["ready"], json!(issuer));
        CertifiedProvider { program, issuer, client_ids }
    }

    fn client(&self, method: &str) -> Value {
        let at =
            |path: &str| -> Value { self.hosts.iter().map(|host| json!(format!("{host}{path}"))).collect() };
        let mut client = json!({
            "client_id": method,
            "token_endpoint_auth_method": method,
            "redirect_uris": at("/oauth2/callback"),
            "post_logout_redirect_uris": at("/oauth2/signed_out"),
        });
        if let Some(secret) = secret(method) {
            client["client_secret"] = json!(secret);
        }
        if self.has_refresh_tokens {
            client["grant_types"] = json!(["authorization_code", "refresh_token"]);
        }
        if method == "tls_client_auth" {
            client["tls_client_auth_san_dns"] = json!(CLIENT_NAME);
        }
        if method == "private_key_jwt" {
            client["jwks"] = json!({ "keys": [] });
        }
        if let Some(url) = &self.backchannel_logout {
            client["backchannel_logout_uri"] = json!(url);
            client["backchannel_logout_session_required"] = json!(true);
        }
        client
    }
}

fn secret(method: &str) -> Option<&'static str> {
    match method {
        "client_secret_basic" | "client_secret_post" => Some(AWKWARD_SECRET),
        "client_secret_jwt" => Some(LONG_SECRET),
        _ => None,
    }
}

impl CertifiedProvider {
    /// Its entry in a gateway's configuration, with `client_secret_basic`.
    pub fn entry(&self) -> ProviderEntry {
        self.entry_for("client_secret_basic")
    }

    /// Its entry for one of [`CLIENTS`]; the key of `private_key_jwt` is to be added, and registered with
    /// [`CertifiedProvider::change_client`].
    pub fn entry_for(&self, method: &str) -> ProviderEntry {
        assert!(self.client_ids.contains(&method), "{method} is no client");
        ProviderEntry {
            id: "main".into(),
            issuer: self.issuer.clone(),
            client_id: method.into(),
            client_secret: secret(method).map(str::to_owned),
            more: format!(
                "client_auth = \"{method}\"\nscopes = [\"openid\", \"profile\", \"email\", \"groups\"]\n"
            ),
        }
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// How often an endpoint was called: `token`, `me`, `jwks`, `session/end`, `auth` …
    pub fn calls(&mut self, endpoint: &str) -> u64 {
        self.program.ask(&json!({ "command": "counts" }))["counts"][endpoint].as_u64().unwrap_or(0)
    }

    /// What the client showed at the token endpoint: the scheme of `Authorization`, the parameters' names.
    pub fn last_token_request(&mut self) -> Value {
        self.program.ask(&json!({ "command": "counts" }))["last_token_request"].clone()
    }

    /// How many sign-ins it took back all tokens of: at a sign-out, or because a refresh token came twice.
    pub fn revoked_grants(&mut self) -> u64 {
        self.program.ask(&json!({ "command": "counts" }))["revoked_grants"].as_u64().unwrap_or(0)
    }

    /// Does at once what the token endpoint is asked for, and answers this much later.
    pub fn delay_tokens(&mut self, delay: Duration) {
        self.program.ask(&json!({ "command": "delay_tokens", "milliseconds": delay.as_millis() }));
    }

    /// Signs with new keys from now on; the old ones stay published unless `forget`.
    pub fn rotate_keys(&mut self, forget: bool) {
        self.program.ask(&json!({ "command": "rotate_keys", "forget": forget }));
    }

    /// Registers a client with other metadata from now on.
    pub fn change_client(&mut self, client_id: &str, metadata: &Value) {
        let mut message = metadata.clone();
        message["command"] = json!("change_client");
        message["client_id"] = json!(client_id);
        self.program.ask(&message);
    }

    /// Goes away: connections are refused.
    pub fn stop(&mut self) {
        self.program.ask(&json!({ "command": "stop" }));
    }

    /// Comes back, knowing all that it knew.
    pub fn come_back(&mut self) {
        self.program.ask(&json!({ "command": "start" }));
    }
}
