//! `portcullis demo`: a local provider, a local application, and the gateway in front, on loopback only.
//!
//! The gateway runs from a real configuration file, written to a directory that only this user can read
//! and that is removed at the end. Keys and secrets are made at start and never leave the process but
//! for that directory.

mod application;
mod ledger;
mod page;
mod provider;
mod scratch;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use tokio::runtime::{Builder, Runtime};

use self::provider::{Client, Provider};
use self::scratch::Scratch;
use crate::clock::Clock;
use crate::config::{self, ConfigError, Settings};
use crate::gateway::Paths;
use crate::random::{RandomError, random_token};
use crate::secret::Secret;
use crate::server::{self, RunError};
use crate::telemetry::logging;
use crate::token::sign::SignError;

/// The port of the gateway where nobody asks for another one.
const DEFAULT_PORT: u16 = 8080;

/// Where the gateway's endpoints are, in the demo's configuration as by default.
const PREFIX: &str = "/oauth2";

/// The client id of the gateway at the demo's provider.
const CLIENT_ID: &str = "portcullis-demo";

/// How often the gateway's port is tried at start.
const POLL: Duration = Duration::from_millis(20);

/// How the demo is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DemoOptions {
    /// The gateway's port; `None`: 8080, or any free one where that is taken.
    pub port: Option<u16>,
}

/// Why the demo did not start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The port that was asked for.
    #[error("port {port} can't be used: {source}")]
    Port {
        /// Which.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Sockets, files or threads.
    #[error("the demo can't be set up: {0}")]
    Setup(#[from] io::Error),
    /// No secrets.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// No signing key for the provider.
    #[error(transparent)]
    Key(#[from] SignError),
    /// The demo's own configuration is wrong, which is a mistake of this program.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The gateway.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Runs the demo until Ctrl-C. Blocks.
///
/// # Errors
/// [`DemoError`].
pub fn run(options: DemoOptions) -> Result<(), DemoError> {
    let demo = Demo::prepare(options)?;
    let settings = demo.settings()?;
    // A caller that has set up the log already keeps its own.
    let _ = logging::init(&settings.log);
    tracing::warn!(event = "demo", "this is a demo: its people need no password, its keys are made at start");
    let others = demo.start_others()?;
    others.spawn(greet(demo.gateway_port, demo.greeting()));
    server::run(settings)?;
    others.shutdown_background();
    Ok(())
}

/// Everything that is chosen at start.
struct Demo {
    gateway_port: u16,
    port_was_taken: bool,
    admin_port: u16,
    provider: TcpListener,
    application: TcpListener,
    client: Client,
    scratch: Scratch,
}

impl Demo {
    fn prepare(options: DemoOptions) -> Result<Self, DemoError> {
        let gateway_port = choose_port(options.port)?;
        let secret = Secret::new(random_token::<32>()?);
        let scratch = Scratch::new()?;
        scratch.write("client_secret", secret.expose())?;
        Ok(Self {
            gateway_port,
            port_was_taken: options.port.is_none() && gateway_port != DEFAULT_PORT,
            admin_port: free_port(0)?,
            provider: listen()?,
            application: listen()?,
            client: client(gateway_port, secret),
            scratch,
        })
    }

    /// Writes the configuration and reads it back as the gateway does.
    fn settings(&self) -> Result<Settings, DemoError> {
        let text = self.configuration()?;
        let mut settings = config::load(&self.scratch.write("portcullis.toml", &text)?)?;
        settings.gateway.demo = true;
        Ok(settings)
    }

    fn configuration(&self) -> io::Result<String> {
        let Self { gateway_port, admin_port, .. } = self;
        let (issuer, application) = (origin(&self.provider)?, origin(&self.application)?);
        Ok(format!(
            r#"# The configuration of the demo. `portcullis example-config` shows every key.

[[listener]]
address = "127.0.0.1:{gateway_port}"

[[provider]]
id = "demo"
name = "the demo's provider"
issuer = "{issuer}"
client_id = "{CLIENT_ID}"
client_secret = {{ file = "client_secret" }}

[[host]]
name = "localhost"
public_url = "http://localhost:{gateway_port}"

[session]
store = "memory"

[headers.claims]
X-Forwarded-Name = "name"

[[route]]
host = "localhost"
upstream = "{application}"
access = "signed-in"

[[route]]
host = "localhost"
path = "/admin/"
upstream = "{application}"
require = {{ groups = ["admins"] }}

[[route]]
host = "localhost"
path = "/optional/"
upstream = "{application}"
access = "optional"

[[route]]
host = "localhost"
path = "/public/"
upstream = "{application}"
access = "public"

[admin]
address = "127.0.0.1:{admin_port}"
"#
        ))
    }

    /// Starts provider and application on threads of their own.
    fn start_others(&self) -> Result<Runtime, DemoError> {
        let issuer = origin(&self.provider)?;
        let provider = Provider::new(issuer, self.client.clone(), Clock::system())?;
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("demo").enable_all().build()?;
        serve(&runtime, self.provider.try_clone()?, provider.router())?;
        serve(&runtime, self.application.try_clone()?, application::router(PREFIX))?;
        Ok(runtime)
    }

    fn greeting(&self) -> String {
        let (port, admin) = (self.gateway_port, self.admin_port);
        let mut text =
            String::from("\nThis is a demo of Portcullis. Everything runs on this machine only.\n\n");
        if self.port_was_taken {
            // Writing to a String never fails, here and below.
            let _ = writeln!(text, "  Port {DEFAULT_PORT} is taken, so this is another one.");
        }
        let _ = writeln!(text, "  Open         http://localhost:{port}/");
        for user in ledger::USERS {
            let _ = writeln!(text, "  Sign in as   {} (in {})", user.login, user.groups.join(" and "));
        }
        let _ = writeln!(text, "  Metrics      http://127.0.0.1:{admin}/metrics");
        let _ = writeln!(text, "  Configured   by {}", self.config_path().display());
        text.push_str("\nCtrl-C ends it.\n\n");
        text
    }

    fn config_path(&self) -> PathBuf {
        self.scratch.path("portcullis.toml")
    }
}

/// Prints the greeting once the gateway takes connections: who opens the page at once must find it.
async fn greet(port: u16, text: String) {
    while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
        tokio::time::sleep(POLL).await;
    }
    let mut out = io::stdout().lock();
    // Where nobody reads there is nobody to greet.
    let _unread = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn client(gateway_port: u16, secret: Secret<String>) -> Client {
    let (paths, host) = (Paths::new(PREFIX), format!("localhost:{gateway_port}"));
    Client {
        id: CLIENT_ID,
        secret,
        redirect_uri: format!("http://{host}{}", paths.of("callback")),
        post_logout_redirect_uri: format!("http://{host}{}", paths.of("signed_out")),
        name: host,
    }
}

fn serve(runtime: &Runtime, listener: TcpListener, router: Router) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let _entered = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(event = "demo", %error, "a part of the demo ended");
        }
    });
    Ok(())
}

fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

fn origin(listener: &TcpListener) -> io::Result<String> {
    Ok(format!("http://{}", listener.local_addr()?))
}

/// The port that was asked for, or else the default, or else any.
fn choose_port(wanted: Option<u16>) -> Result<u16, DemoError> {
    if let Some(port) = wanted {
        return free_port(port).map_err(|source| DemoError::Port { port, source });
    }
    Ok(free_port(DEFAULT_PORT).or_else(|_taken| free_port(0))?)
}

/// A port that is free now; 0 asks for any. Browsers try `localhost` over IPv6 first, so that a program
/// there would be taken for the demo: the port must be free there too, where there is IPv6 at all.
fn free_port(wanted: u16) -> io::Result<u16> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))?.local_addr()?.port();
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Ok(_) | Err(_) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Demo {
        Demo::prepare(DemoOptions { port: Some(0) }).unwrap()
    }

    #[test]
    fn its_configuration_is_one_that_the_gateway_accepts_and_is_marked_as_a_demo() {
        let demo = demo();
        let settings = demo.settings().unwrap();
        assert!(settings.gateway.demo);
        let listeners: Vec<_> = settings.listeners.iter().map(|listener| listener.address).collect();
        assert_eq!(listeners, [SocketAddr::from((Ipv4Addr::LOCALHOST, demo.gateway_port))]);
        assert_eq!(settings.admin, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, demo.admin_port))));
        let [provider] = settings.providers.as_slice() else { panic!("{:?}", settings.providers) };
        let [secret] = provider.client.secrets.as_slice() else { panic!("{:?}", provider.client) };
        assert_eq!(secret.value, demo.client.secret);
        let redirect = format!("/{}", provider.callback_path);
        assert!(demo.client.redirect_uri.ends_with(&redirect), "{redirect}");
    }

    #[test]
    fn two_demos_share_no_secret() {
        assert_ne!(demo().client.secret, demo().client.secret);
    }

    #[test]
    fn a_port_that_is_taken_on_either_loopback_address_is_not_chosen() {
        let taken = listen().unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(matches!(choose_port(Some(port)), Err(DemoError::Port { .. })));
        if let Ok(taken) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
            let port = taken.local_addr().unwrap().port();
            assert!(free_port(port).is_err(), "over IPv6");
        }
    }

    #[test]
    fn the_greeting_tells_where_and_as_whom() {
        let mut demo = demo();
        let text = demo.greeting();
        assert!(text.contains(&format!("http://localhost:{}/", demo.gateway_port)), "{text}");
        assert!(text.contains("alice") && text.contains("bob") && text.contains("demo"), "{text}");
        assert!(!text.contains("taken"), "{text}");
        demo.port_was_taken = true;
        assert!(demo.greeting().contains("Port 8080 is taken"));
    }
}
