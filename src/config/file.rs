//! The file as written: one struct for each table, one field for each key.
//!
//! A key that is added here is not read by anybody until its check takes it: the checks take the
//! structs apart field by field, so that the compiler asks for it.

use std::time::Duration;

use toml::de::DeTable;

use super::problem::{Place, Problems};
use super::read::{Field, Named, OneOrMore, Read as _, SecretRef, Size, SizeOrOff, section};

/// A list of `T`, each element with its own place.
pub(super) type List<T> = Vec<Field<T>>;

section! {
    /// The whole file.
    struct File {
        /// Where the disk store and generated keys are.
        data_dir: String,
        /// Where the gateway's own endpoints are.
        endpoint_prefix: String,
        /// Where it listens.
        listener: List<Listener>,
        /// Who signs people in.
        provider: List<Provider>,
        /// Public URLs of hosts.
        host: List<Host>,
        /// Sessions.
        session: Session,
        /// The servers of the store in Redis.
        redis: Redis,
        /// Where the identity is in the claims.
        identity: Identity,
        /// The identity headers.
        headers: Headers,
        /// Which application.
        route: List<Route>,
        /// How often anybody may do something.
        limits: Limits,
        /// Connections and shutdown.
        server: Server,
        /// The admin listener.
        admin: Admin,
        /// The log.
        log: Log,
    }

    /// `[[listener]]`.
    struct Listener {
        /// Address and port.
        address: String,
        /// With TLS of its own.
        tls: Tls,
        /// Whether connections begin with a PROXY header.
        proxy_protocol: bool,
    }

    /// `tls = { … }` of a listener, `client_certificate = { … }` of a provider.
    struct Tls {
        /// The chain, PEM.
        certificate: String,
        /// Its private key, PEM.
        key: String,
    }

    /// `[[provider]]`.
    struct Provider {
        /// Its name in paths and logs.
        id: String,
        /// What people read.
        name: String,
        /// The issuer identifier.
        issuer: String,
        /// The client identifier.
        client_id: String,
        /// The client secrets.
        client_secret: OneOrMore<SecretRef>,
        /// The client's private keys.
        client_key: OneOrMore<SecretRef>,
        /// How the client authenticates.
        client_auth: String,
        /// What the keys sign with.
        client_key_algorithm: String,
        /// What the client shows in TLS.
        client_certificate: Tls,
        /// Whom client assertions are for.
        client_assertion_audience: String,
        /// What is asked for.
        scopes: List<String>,
        /// Whether authorization requests are pushed where that is not demanded.
        pushed_authorization_requests: bool,
        /// Extra parameters of the authorization request.
        authorization_params: Named<String>,
        /// How the answer comes back.
        response_mode: String,
        /// Whose addresses sign in here.
        email_domains: List<String>,
        /// Accepted signature algorithms.
        id_token_algorithms: List<String>,
        /// Audiences that may stand beside the client.
        trusted_audiences: List<String>,
        /// Whether userinfo is asked.
        userinfo: bool,
        /// How userinfo is signed.
        userinfo_signed_response_alg: String,
        /// Tolerated clock skew.
        leeway: Duration,
        /// Whether logout tokens need `exp` and `typ`.
        strict_logout_tokens: bool,
        /// Whether pages of the provider may end sessions.
        frontchannel_logout: bool,
        /// How long after a lost answer a refresh token may be sent once more.
        refresh_reuse_grace: Duration,
        /// CA certificates that vouch for the provider.
        ca_file: String,
        /// Whether internal addresses may be called.
        danger_internal_addresses: bool,
        /// The whole of one call.
        timeout: Duration,
    }

    /// `[[host]]`.
    struct Host {
        /// The name, or `*.` and a name.
        name: String,
        /// What people's browsers open.
        public_url: String,
        /// The one provider of this host.
        provider: String,
        /// Plain http on a host that is not loopback.
        danger_insecure_http: bool,
    }

    /// `[session]`.
    struct Session {
        /// Where sessions live.
        store: String,
        /// Until an unused session ends.
        idle_timeout: Duration,
        /// Until any session ends.
        max_lifetime: Duration,
        /// The key ring.
        keys: List<SecretRef>,
        /// How old keys grow that the gateway makes itself, or `off`.
        key_rotation: String,
        /// Memory for ready sessions.
        cache_size: Size,
        /// How long a session is served without asking a shared store.
        cache_staleness: Duration,
        /// How long sessions in memory are served while the store is down.
        outage_window: Duration,
        /// The most sessions of one user.
        max_per_user: usize,
        /// What happens at that limit.
        at_limit: String,
    }

    /// `[redis]`.
    struct Redis {
        /// The server, or some of a cluster.
        addresses: List<String>,
        /// Whether they are a cluster.
        cluster: bool,
        /// Whether they are reached over TLS.
        tls: bool,
        /// CA certificates that vouch for them.
        ca_file: String,
        /// The ACL user.
        username: String,
        /// Its password.
        password: SecretRef,
        /// The number of the database.
        database: usize,
        /// What all keys start with.
        key_prefix: String,
        /// Connections to each server.
        connections: usize,
        /// A connect: TCP, TLS, password.
        connect_timeout: Duration,
        /// One answer.
        timeout: Duration,
    }

    /// `[identity]`.
    struct Identity {
        /// The claim that is the user.
        user: String,
        /// The claim that is the e-mail address.
        email: String,
        /// The claim that is the name a person goes by.
        preferred_username: String,
        /// The claim that lists the groups.
        groups: String,
    }

    /// `[headers]`.
    struct Headers {
        /// Sets of names that applications already read.
        presets: List<String>,
        /// Header name = claim path.
        claims: Named<String>,
    }

    /// `[[route]]`.
    struct Route {
        /// Its name in logs.
        name: String,
        /// Which hosts.
        host: String,
        /// Which paths.
        path: String,
        /// Where to.
        upstream: String,
        /// CA certificates that vouch for the upstream.
        ca_file: String,
        /// Who may pass.
        access: String,
        /// Who of those that signed in.
        require: Require,
        /// Shorter limits of sessions on this route.
        session: RouteSession,
        /// The provider of this route's sign-ins.
        provider: String,
        /// Extra parameters of the authorization requests of this route's sign-ins.
        authorization_params: Named<String>,
        /// What the upstream sees as `Host`.
        host_header: String,
        /// Whether the upstream gets the access token.
        forward_access_token: bool,
        /// Whether the upstream gets the client's `Authorization`.
        forward_authorization: bool,
        /// Whether a name in a path may hold an escaped slash.
        allow_encoded_slash: bool,
        /// Bytes of a request's body.
        max_body_size: SizeOrOff,
        /// A connect, TCP and TLS.
        connect_timeout: Duration,
        /// Silence before and within an answer.
        read_timeout: Duration,
        /// Silence on a WebSocket.
        idle_timeout: Duration,
        /// What pages of other sites may do.
        cross_site: String,
        /// How many requests anybody may send.
        rate_limit: String,
        /// Whose requests are counted together.
        rate_limit_by: String,
    }

    /// `require = { … }` of a route.
    struct Require {
        /// Any of these groups.
        groups: List<String>,
        /// Any of these authentication contexts.
        acr: List<String>,
        /// The longest time since the authentication.
        max_age: Duration,
    }

    /// `session = { … }` of a route.
    struct RouteSession {
        /// Until an unused session is too old here.
        idle_timeout: Duration,
        /// Until any session is too old here.
        max_lifetime: Duration,
    }

    /// `[limits]`.
    struct Limits {
        /// Sign-ins that begin, by address.
        sign_in_starts: String,
        /// Sign-ins that fail, by address.
        failed_sign_ins: String,
        /// Logout calls that lead to nothing, by address.
        failed_logouts: String,
    }

    /// `[server]`.
    struct Server {
        /// Worker threads.
        threads: usize,
        /// Who may name the client.
        trusted_proxies: List<String>,
        /// In which header they do.
        client_address_header: String,
        /// Open client connections.
        max_connections: usize,
        /// Of those, from one address.
        max_connections_per_address: usize,
        /// Requests on one HTTP/1 connection.
        max_requests_per_connection: usize,
        /// First to last byte of a request head.
        request_head_timeout: Duration,
        /// TLS handshake.
        tls_handshake_timeout: Duration,
        /// Idle keep-alive.
        keepalive_timeout: Duration,
        /// Bytes of a request head.
        max_request_head_size: Size,
        /// Fields of a request head.
        max_request_headers: usize,
        /// Bytes of a request target.
        max_request_target_size: Size,
        /// Silence within a request's body.
        body_idle_timeout: Duration,
        /// Bytes of a request's body for each second that it takes.
        min_body_rate: Size,
        /// HTTP/2 on listeners with TLS.
        http2: bool,
        /// Requests of a connection at a time.
        http2_max_streams: usize,
        /// Requests that are taken back or refused.
        http2_max_resets: usize,
        /// Frames that carry nothing.
        http2_max_control_frames: usize,
        /// Bytes of a body that may be on their way.
        http2_window: Size,
        /// Not ready, before the listeners close.
        shutdown_delay: Duration,
        /// For requests in flight after that.
        shutdown_timeout: Duration,
    }

    /// `[admin]`.
    struct Admin {
        /// Address and port, or `off`.
        address: String,
    }

    /// `[log]`.
    struct Log {
        /// The shape of lines.
        format: String,
        /// The least level that is written.
        level: String,
        /// Whether each request writes a line.
        access: bool,
    }
}

impl File {
    /// Reads the text of a file; mistakes of its grammar and of its keys go to `problems`. Nothing is
    /// read out of a text that is no TOML.
    pub(super) fn parse(text: &str, problems: &mut Problems) -> Option<Self> {
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            problems.add(&Place { path: position(text, offset), offset }, error.message());
        }
        errors.is_empty().then(|| Self::from_entries(root.get_ref(), &Place::default(), problems))
    }

    /// Every key of the file: `route.require.groups`; free keys are given by their table.
    pub(super) fn all_keys() -> Vec<String> {
        let mut found = Vec::new();
        Self::keys("", &mut found);
        found
    }
}

/// Line and column of a byte, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}
