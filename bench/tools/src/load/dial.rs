//! Connections to the proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Options;
use crate::Outcome;

/// What connections are made with.
pub struct Dialer {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection.
pub enum Wire {
    /// Without TLS.
    Plain(TcpStream),
    /// With it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Dialer {
    /// As the arguments have it.
    pub fn new(options: &Options) -> Outcome<Self> {
        let tls = options.tls.as_ref().map(|ca| {
            let mut authorities = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(ca)? {
                authorities.add(certificate?)?;
            }
            let mut config =
                ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth();
            config.alpn_protocols = vec![if options.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
            config.resumption = Resumption::disabled();
            let name = ServerName::try_from(name_of(&options.host).to_owned())?;
            Outcome::Ok((TlsConnector::from(Arc::new(config)), name))
        });
        Ok(Self { address: options.connect, tls: tls.transpose()? })
    }

    /// Makes one.
    pub async fn dial(&self) -> Outcome<Wire> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some((connector, name)) = &self.tls else { return Ok(Wire::Plain(stream)) };
        Ok(Wire::Tls(Box::new(connector.connect(name.clone(), stream).await?)))
    }
}

/// The name alone, of what may have a port.
fn name_of(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}
