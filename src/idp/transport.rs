//! HTTP to the provider, bounded (TE-1): TLS verified, no redirects, deadlines, body caps.
//!
//! The one place that names `reqwest`. Whoever calls may live on another runtime (the proxy's workers
//! do): every request is a task of the gateway's own runtime, so that connections outlive their callers,
//! and the caller only awaits its handle. A caller that goes away leaves a request that ends by itself
//! at its deadline.
//!
//! There are no cookies, no proxies from the environment and no retries: a code is sent once (TE-3). Which
//! addresses are called is for [`reach`] to say.

pub mod reach;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Identity, Request};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::secret::Secret;
use reach::Reach;

/// How long a connection may take to open, out of the whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many requests to one provider are in flight at once; the others wait for their turn, within their
/// own deadline (AX-234).
const MAX_IN_FLIGHT: usize = 64;

/// The most characters that an error tells.
const MAX_REASON_CHARS: usize = 300;

/// What a transport is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// CA certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The whole of one call, from waiting for a turn to the last byte of the answer.
    pub timeout: Duration,
    /// Whether plain http is allowed: only where the issuer itself is plain http.
    pub plain_http: bool,
    /// Which addresses may be called.
    pub reach: Reach,
}

/// What every client of a transport is built with.
#[derive(Debug)]
struct Recipe {
    options: Options,
    extra_roots: Vec<Certificate>,
}

/// Sends requests to one provider.
#[derive(Clone, Debug)]
pub struct Transport {
    client: Client,
    recipe: Arc<Recipe>,
    runtime: Handle,
    turns: Arc<Semaphore>,
}

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The CA file can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The CA file has no certificate, or something that is none.
    #[error("{}: not a file of PEM certificates", path.display())]
    Certificates {
        /// Which file.
        path: PathBuf,
    },
    /// The HTTP client can't be set up, for example because the system has no CA certificates.
    #[error("{0}")]
    Client(String),
}

/// Why there is no answer. The text holds no query, no token and nothing of a body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No whole answer within the deadline.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer is larger than the caller wants.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// Name, connection or TLS: nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// HTTP: what was sent may have been heard.
    #[error("{0}")]
    Failed(String),
    /// The gateway is shutting down.
    #[error("the request was interrupted")]
    Interrupted,
}

impl Transport {
    /// Sets a transport up; nothing is connected yet.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn new(options: &Options, runtime: Handle) -> Result<Self, BuildError> {
        let extra_roots = options.ca_file.as_deref().map(load_certificates).transpose()?.unwrap_or_default();
        let recipe = Arc::new(Recipe { options: options.clone(), extra_roots });
        let client = build(&recipe, None)?;
        let turns = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        Ok(Self { client, recipe, runtime, turns })
    }

    /// The same for a client with a certificate: it is shown to whoever asks for one. `pem` holds the chain
    /// and its private key. Connections are not shared with the one without.
    ///
    /// # Errors
    /// [`BuildError::Client`] where the text holds no such pair; it holds nothing of it.
    pub fn with_certificate(&self, pem: &Secret<String>) -> Result<Self, BuildError> {
        let identity = Identity::from_pem(pem.expose().as_bytes());
        let identity = identity.map_err(|error| BuildError::Client(reason(&error)))?;
        Ok(Self { client: build(&self.recipe, Some(&identity))?, ..self.clone() })
    }

    /// Sends a request once and reads the answer, of whatever status, up to `max_bytes` after
    /// decompression. Redirects are answers like any other.
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn send(
        &self,
        request: http::Request<Vec<u8>>,
        max_bytes: usize,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let request = Request::try_from(request).map_err(|error| failed(&error.without_url()))?;
        let reach = &self.recipe.options.reach;
        reach.check(request.url()).map_err(|refused| TransportError::Unreachable(refused.to_string()))?;
        let (client, turns) = (self.client.clone(), Arc::clone(&self.turns));
        let timeout = self.recipe.options.timeout;
        let task = self.runtime.spawn(async move {
            let exchange = exchange(&client, &turns, request, max_bytes);
            tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(TransportError::Timeout(timeout)))
        });
        task.await.unwrap_or(Err(TransportError::Interrupted))
    }
}

async fn exchange(
    client: &Client,
    turns: &Semaphore,
    request: Request,
    max_bytes: usize,
) -> Result<http::Response<Bytes>, TransportError> {
    let _turn = turns.acquire().await.or(Err(TransportError::Interrupted))?;
    let mut answer = client.execute(request).await.map_err(|error| failed(&error.without_url()))?;
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| failed(&error.without_url()))? {
        if body.len() + chunk.len() > max_bytes {
            return Err(TransportError::TooLarge(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = http::Response::new(body.freeze());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

fn load_certificates(path: &Path) -> Result<Vec<Certificate>, BuildError> {
    let pem = std::fs::read(path).map_err(|source| BuildError::Read { path: path.to_owned(), source })?;
    let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if certificates.is_empty() {
        return Err(BuildError::Certificates { path: path.to_owned() });
    }
    Ok(certificates)
}

fn build(recipe: &Recipe, identity: Option<&Identity>) -> Result<Client, BuildError> {
    let Recipe { options, extra_roots } = recipe;
    let built = builder(options, identity).tls_certs_merge(extra_roots.clone()).build();
    // A machine without any CA certificate can still talk to a provider over plain http.
    let built = match built {
        Err(_) if options.plain_http => {
            builder(options, identity).tls_certs_only(extra_roots.clone()).build()
        }
        built => built,
    };
    built.map_err(|error| BuildError::Client(reason(&error)))
}

fn builder(options: &Options, identity: Option<&Identity>) -> ClientBuilder {
    let builder = Client::builder();
    let builder = match identity {
        Some(identity) => builder.identity(identity.clone()),
        None => builder,
    };
    builder
        .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
        .https_only(!options.plain_http)
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .dns_resolver(options.reach.clone())
        .connect_timeout(CONNECT_TIMEOUT.min(options.timeout))
        .pool_idle_timeout(Duration::from_secs(30))
        // Fewer would have people who sign in at one time pay for handshakes over and over.
        .pool_max_idle_per_host(MAX_IN_FLIGHT)
}

fn failed(error: &reqwest::Error) -> TransportError {
    if error.is_connect() {
        return TransportError::Unreachable(reason(error));
    }
    TransportError::Failed(reason(error))
}

/// An error with its causes; the caller has taken the URL out of it.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Writing to a string can't fail.
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text.chars().take(MAX_REASON_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use axum::Router;
    use axum::body::Body;
    use axum::extract::Request as Incoming;
    use axum::http::header::{CONTENT_ENCODING, COOKIE, LOCATION, SET_COOKIE, USER_AGENT};
    use axum::response::Response;
    use axum::serve::ListenerExt as _;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures::future::join_all;
    use futures::{StreamExt as _, stream};
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::server::WebPkiClientVerifier;
    use tokio::sync::Barrier;

    use super::reach::tests::Names;
    use super::*;
    use crate::idp::loopback::serve;

    const LIMIT: usize = 64 * 1024;

    fn options() -> Options {
        let reach = Reach::new("http://127.0.0.1", false);
        Options { ca_file: None, timeout: Duration::from_secs(20), plain_http: true, reach }
    }

    fn transport(options: &Options) -> Transport {
        Transport::new(options, Handle::current()).unwrap()
    }

    fn get(url: &str) -> http::Request<Vec<u8>> {
        http::Request::get(url).body(Vec::new()).unwrap()
    }

    /// A body without a length.
    fn chunks(count: usize) -> Body {
        let chunk = stream::repeat(Bytes::from_static(&[b'x'; 1024]));
        Body::from_stream(chunk.take(count).map(Ok::<_, std::io::Error>))
    }

    fn gzip(zeros: usize) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; zeros]).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn an_answer_comes_back_whole() {
        let url = serve(|request: Incoming| async move {
            let agent = request.headers()[USER_AGENT].clone();
            Response::builder().status(418).header("x-agent", agent).body(Body::from("tea")).unwrap()
        })
        .await;
        let answer = transport(&options()).send(get(&url), LIMIT).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (418, &b"tea"[..]));
        assert_eq!(answer.headers()["x-agent"], concat!("portcullis/", env!("CARGO_PKG_VERSION")));
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let paths = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&paths);
        let url = serve(move |request: Incoming| {
            seen.lock().unwrap().push(request.uri().path().to_owned());
            async {
                Response::builder().status(302).header(LOCATION, "/metadata").body(Body::empty()).unwrap()
            }
        })
        .await;
        let answer = transport(&options()).send(get(&format!("{url}/start")), LIMIT).await.unwrap();
        assert_eq!(answer.status(), 302, "AX-235");
        assert_eq!(*paths.lock().unwrap(), ["/start"]);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let bomb = gzip(32 * 1024 * 1024);
        assert!(bomb.len() < LIMIT, "the compressed body alone is within the limit");
        let url = serve(move |request: Incoming| {
            let bomb = bomb.clone();
            async move {
                match request.uri().path() {
                    "/length" => Response::new(Body::from(vec![b'x'; LIMIT + 1])),
                    "/chunks" => Response::new(chunks(LIMIT / 1024 + 1)),
                    "/endless" => Response::new(chunks(usize::MAX)),
                    "/gzip" => {
                        Response::builder().header(CONTENT_ENCODING, "gzip").body(Body::from(bomb)).unwrap()
                    }
                    _ => Response::new(Body::from(vec![b'x'; LIMIT])),
                }
            }
        })
        .await;
        let transport = transport(&options());
        for path in ["length", "chunks", "endless", "gzip"] {
            let error = transport.send(get(&format!("{url}/{path}")), LIMIT).await.unwrap_err();
            assert_eq!(error, TransportError::TooLarge(LIMIT), "TK-131, AX-235 {path}");
        }
        let answer = transport.send(get(&format!("{url}/within")), LIMIT).await.unwrap();
        assert_eq!(answer.body().len(), LIMIT);
    }

    #[tokio::test]
    async fn a_slow_answer_is_cut_at_the_deadline() {
        let url = serve(|request: Incoming| async move {
            if request.uri().path() == "/head" {
                std::future::pending::<()>().await;
            }
            let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
            Response::new(Body::from_stream(first.chain(stream::pending())))
        })
        .await;
        let timeout = Duration::from_millis(200);
        let transport = transport(&Options { timeout, ..options() });
        for path in ["head", "body"] {
            let started = Instant::now();
            let error = transport.send(get(&format!("{url}/{path}")), LIMIT).await.unwrap_err();
            assert_eq!(error, TransportError::Timeout(timeout), "TK-131 {path}");
            assert!(started.elapsed() < Duration::from_secs(10), "{path}: {:?}", started.elapsed());
        }
    }

    #[tokio::test]
    async fn as_many_connections_are_kept_as_requests_may_be_in_flight() {
        let together = Arc::new(Barrier::new(MAX_IN_FLIGHT));
        let answer = move || {
            let together = Arc::clone(&together);
            async move {
                together.wait().await;
            }
        };
        let opened = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&opened);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let listener = listener.tap_io(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        Handle::current().spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });

        let transport = transport(&options());
        for round in 0..5 {
            let sent = (0..MAX_IN_FLIGHT).map(|_| transport.send(get(&url), LIMIT));
            let answers = join_all(sent).await;
            assert!(answers.iter().all(Result::is_ok), "round {round}");
        }
        // A few may be missed that are just being given back; with eight it was five times as many.
        assert!(opened.load(Ordering::SeqCst) < 2 * MAX_IN_FLIGHT, "{opened:?}");
    }

    #[tokio::test]
    async fn no_cookie_is_kept() {
        let cookies = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&cookies);
        let url = serve(move |request: Incoming| {
            seen.lock().unwrap().push(request.headers().get(COOKIE).cloned());
            async { Response::builder().header(SET_COOKIE, "a=b; Path=/").body(Body::empty()).unwrap() }
        })
        .await;
        let transport = transport(&options());
        for _ in 0..2 {
            transport.send(get(&url), LIMIT).await.unwrap();
        }
        assert_eq!(*cookies.lock().unwrap(), [None, None]);
    }

    #[tokio::test]
    async fn plain_http_needs_an_issuer_that_is_plain_http() {
        let hits = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&hits);
        let url = serve(move |_: Incoming| {
            seen.fetch_add(1, Ordering::SeqCst);
            async { Response::new(Body::empty()) }
        })
        .await;
        let strict = transport(&Options { plain_http: false, ..options() });
        let error = strict.send(get(&url), LIMIT).await.unwrap_err();
        assert!(matches!(error, TransportError::Failed(_)), "{error}");
        assert_eq!(hits.load(Ordering::SeqCst), 0);
    }

    /// A server that counts the connections that it gets, and answers none.
    fn count_connections() -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&connections);
        std::thread::spawn(move || {
            while listener.accept().is_ok() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        });
        (port, connections)
    }

    #[tokio::test]
    async fn ax_235_nothing_is_connected_to_a_forbidden_address() {
        let (port, connections) = count_connections();
        let names = Names::default();
        let reach = names.reach("https://op.test", false);
        names.set("op.test", &["192.0.2.1"]);
        reach.of("op.test").await.unwrap();
        names.set("op.test", &["127.0.0.1"]);
        names.set("keys.test", &["127.0.0.1", "::1"]);
        let transport = transport(&Options { reach, ..options() });
        let urls = ["op.test", "keys.test", "127.0.0.1", "127.1", "[::ffff:127.0.0.1]", "0"];
        for host in urls {
            let error = transport.send(get(&format!("http://{host}:{port}/")), LIMIT).await.unwrap_err();
            let TransportError::Unreachable(reason) = error else { panic!("{host}: {error}") };
            assert!(reason.contains("an internal address"), "{host}: {reason}");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 0);
        let inside = Options { reach: names.reach("http://op.test", false), ..options() };
        let timeout = Duration::from_secs(1);
        let url = format!("http://op.test:{port}/");
        let error = self::transport(&Options { timeout, ..inside }).send(get(&url), LIMIT).await.unwrap_err();
        assert!(
            !matches!(error, TransportError::Unreachable(_)),
            "a provider inside is connected to: {error}"
        );
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_error_tells_neither_path_nor_query() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/private?code=verysecret");
        let error = transport(&options()).send(get(&url), LIMIT).await.unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains("refused"), "{told}");
        assert!(!told.contains("private") && !told.contains("verysecret"), "{told}");
    }

    #[test]
    fn a_connection_outlives_the_runtime_of_its_caller() {
        let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&connections);
        let listener = own.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app =
            axum::Router::new().fallback(move |peer: axum::extract::ConnectInfo<std::net::SocketAddr>| {
                seen.lock().unwrap().push(peer.0);
                async { "ok" }
            });
        let app = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
        own.spawn(async move { axum::serve(listener, app).await });
        let transport = Transport::new(&options(), own.handle().clone()).unwrap();
        for _ in 0..3 {
            let caller = tokio::runtime::Builder::new_current_thread().build().unwrap();
            caller.block_on(transport.send(get(&url), LIMIT)).unwrap();
        }
        let connections = connections.lock().unwrap();
        assert_eq!(connections.len(), 3);
        assert!(connections.iter().all(|peer| *peer == connections[0]), "{connections:?}");
    }

    #[test]
    fn a_ca_file_has_to_hold_certificates() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let build = |path: PathBuf| {
            let options = Options { ca_file: Some(path), ..options() };
            Transport::new(&options, runtime.handle().clone()).unwrap_err()
        };
        assert!(matches!(build(directory.path().join("absent")), BuildError::Read { .. }));
        for (name, text) in [("empty", ""), ("text", "no certificate")] {
            let error = build(file(name, text));
            assert!(matches!(error, BuildError::Certificates { .. }), "{name}: {error}");
        }
    }

    /// An https server that answers every connection once, on a certificate of the given CA; where that is
    /// wanted, to clients with a certificate of it alone.
    fn serve_tls(ca: &CertifiedIssuer<'_, KeyPair>, mutual: bool) -> String {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, ca).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
        let verifier = if mutual { verifier } else { WebPkiClientVerifier::no_client_auth() };
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let config = Arc::new(config);
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut tls = rustls::StreamOwned::new(connection, socket);
                // A client that does not trust the certificate ends here.
                if tls.read(&mut [0; 4096]).is_ok() {
                    tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                        .unwrap();
                }
            }
        });
        url
    }

    #[tokio::test]
    async fn a_private_ca_is_trusted_where_it_is_configured_and_nowhere_else() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let url = serve_tls(&ca, false);
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, ca.pem()).unwrap();

        let trusting = Options { ca_file: Some(ca_file), plain_http: false, ..options() };
        let answer = transport(&trusting).send(get(&url), LIMIT).await.unwrap();
        assert_eq!(&answer.body()[..], b"ok");

        let error = transport(&options()).send(get(&url), LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }

    #[tokio::test]
    async fn a_certificate_is_shown_to_whoever_asks_for_one() {
        let ca = || {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (ca, stranger) = (ca(), ca());
        let pair = |ca: &CertifiedIssuer<'_, KeyPair>| {
            let key = KeyPair::generate().unwrap();
            let names = vec!["client.test".to_owned()];
            let chain = CertificateParams::new(names).unwrap().signed_by(&key, ca).unwrap();
            Secret::new(format!("{}{}", chain.pem(), key.serialize_pem()))
        };
        let url = serve_tls(&ca, true);
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, ca.pem()).unwrap();
        let plain = transport(&Options { ca_file: Some(ca_file), plain_http: false, ..options() });
        plain.send(get(&url), LIMIT).await.unwrap_err();
        let known = plain.with_certificate(&pair(&ca)).unwrap();
        assert_eq!(&known.send(get(&url), LIMIT).await.unwrap().body()[..], b"ok");
        let unknown = plain.with_certificate(&pair(&stranger)).unwrap();
        unknown.send(get(&url), LIMIT).await.unwrap_err();
        for text in ["", "hunter2", &ca.pem()] {
            let error = plain.with_certificate(&Secret::new(text.to_owned())).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
