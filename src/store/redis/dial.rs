//! A connection to one server: TCP, TLS, password; all of it within one time.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::settings::{Address, RedisSettings, Trust};
use super::trouble::Trouble;

/// How many commands may wait for the socket before their senders do.
const WAITING_COMMANDS: usize = 1024;

/// Bytes from and to a server.
trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// Moves the bytes of a connection; it ends with the connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes connections.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) settings: RedisSettings,
}

impl Dialer {
    /// A connection for commands of many senders at once.
    pub(super) async fn commands(
        &self,
        address: &Address,
    ) -> Result<(MultiplexedConnection, Driver), Trouble> {
        self.in_time(address, async {
            let (info, stream) = self.open(address).await?;
            // Each command has its own deadline.
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_pipeline_buffer_size(WAITING_COMMANDS);
            let connected = MultiplexedConnection::new_with_config(&info, stream, config).await;
            let (connection, driver) = connected.map_err(|error| Trouble::of(address, error))?;
            let mut driver: Driver = Box::pin(driver);
            if !self.settings.cluster {
                self.refuse_replica(address, connection.clone(), &mut driver).await?;
            }
            Ok((connection, driver))
        })
        .await
    }

    /// A replica answers with what it has got so far, which may be what was signed out. In a cluster it would send
    /// the gateway to its master.
    async fn refuse_replica(
        &self,
        address: &Address,
        mut connection: MultiplexedConnection,
        driver: &mut Driver,
    ) -> Result<(), Trouble> {
        let mut command = redis::cmd("INFO");
        command.arg("replication");
        let info = tokio::select! {
            biased;
            info = command.query_async::<String>(&mut connection) => info,
            () = driver => return Err(Trouble::new(format!("Redis at {address} has lost the connection"))),
        };
        match info {
            Ok(info) if info.lines().any(|line| line == "role:slave") => {
                Err(Trouble::new(format!("Redis at {address} is a replica and takes no writes")))
            }
            Ok(_) => Ok(()),
            // Who may not ask finds out with the first write.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(()),
            Err(error) => Err(Trouble::of(address, error)),
        }
    }

    /// A connection that hears what is published on a channel.
    pub(super) async fn subscriber(&self, address: &Address, channel: &str) -> Result<PubSub, Trouble> {
        self.in_time(address, async {
            let (info, stream) = self.open(address).await?;
            let failed = |error: RedisError| Trouble::of(address, error);
            let mut subscriber = PubSub::new(&info, stream).await.map_err(failed)?;
            subscriber.subscribe(channel).await.map_err(failed)?;
            Ok(subscriber)
        })
        .await
    }

    async fn in_time<T>(
        &self,
        address: &Address,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let limit = self.settings.connect_timeout;
        timeout(limit, work).await.unwrap_or_else(|_late| Err(Trouble::late(address, limit)))
    }

    async fn open(&self, address: &Address) -> Result<(RedisConnectionInfo, Box<dyn Bytes>), Trouble> {
        let failed = |error| Trouble::new(format!("Redis at {address} can't be reached: {error}"));
        let stream = TcpStream::connect((&*address.host, address.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let stream: Box<dyn Bytes> = match &self.settings.tls {
            None => Box::new(stream),
            Some(trust) => {
                let (connector, name) = (connector(trust).await?, server_name(address)?);
                let failed = |error| Trouble::new(format!("TLS with Redis at {address} failed: {error}"));
                Box::new(connector.connect(name, stream).await.map_err(failed)?)
            }
        };
        Ok((self.credentials(), stream))
    }

    fn credentials(&self) -> RedisConnectionInfo {
        let settings = &self.settings;
        let mut info =
            RedisConnectionInfo::default().set_db(settings.database.into()).set_skip_set_lib_name();
        if let Some(username) = &settings.username {
            info = info.set_username(username);
        }
        if let Some(password) = &settings.password {
            info = info.set_password(password.present().expose());
        }
        info
    }
}

fn server_name(address: &Address) -> Result<ServerName<'static>, Trouble> {
    ServerName::try_from(address.host.clone())
        .map_err(|_invalid| Trouble::new(format!("{:?} is no name for TLS", address.host)))
}

/// Read anew for each connection, so that a CA that is exchanged counts from the next one on.
async fn connector(trust: &Trust) -> Result<TlsConnector, Trouble> {
    let trust = trust.clone();
    let config = tokio::task::spawn_blocking(move || client_config(&trust)).await;
    let config = config.unwrap_or_else(|lost| Err(Trouble::new(format!("TLS was not set up: {lost}"))))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn client_config(trust: &Trust) -> Result<ClientConfig, Trouble> {
    let roots = match trust {
        Trust::System => system_roots(),
        Trust::File(file) => roots_of(file)?,
    };
    if roots.is_empty() {
        return Err(Trouble::new("there is no CA certificate that could vouch for Redis"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Trouble::new(format!("TLS can't be set up: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // One that can't be read or used vouches for nobody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn roots_of(file: &Path) -> Result<RootCertStore, Trouble> {
    let failed =
        |error: &dyn std::fmt::Display| Trouble::new(format!("the CA file {}: {error}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))? {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    Ok(roots)
}
