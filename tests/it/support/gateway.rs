//! The program under test: the real binary with a configuration of its own.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use sha2::Digest as _;
use tempfile::TempDir;

use super::certificate::{Authority, Certificate};
use super::client::{Place, Request, Response};
use super::redis_server::RedisServer;
use super::upstream::Upstream;
use super::{ports, wait_for};

/// The host that most tests use; a load balancer in front of the gateway is thought to end its TLS.
pub const WIKI: &str = "wiki.test";

const NO_LIMITS: &str = "sign_in_starts = \"off\"\nfailed_sign_ins = \"off\"";

const UNLIMITED: &str = "unlimited";

/// A provider as the configuration has it.
#[derive(Clone, Debug)]
pub struct ProviderEntry {
    /// `id`.
    pub id: String,
    /// `issuer`.
    pub issuer: String,
    /// `client_id`.
    pub client_id: String,
    /// The secret; it is written to a file.
    pub client_secret: Option<String>,
    /// More lines of the entry.
    pub more: String,
}

/// A gateway to be started.
pub struct Builder {
    folder: TempDir,
    address: SocketAddr,
    tls: Option<(Authority, Certificate)>,
    listener: String,
    top: String,
    session: String,
    limits: Option<String>,
    sections: String,
    log_level: &'static str,
    environment: Vec<(String, String)>,
    file_limit: Option<String>,
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    folder: TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    authority: Option<Authority>,
    environment: Vec<(String, String)>,
    file_limit: Option<String>,
    process: Option<Process>,
    log: Log,
}

type Log = Arc<Mutex<Vec<String>>>;

struct Process {
    child: Child,
    readers: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// One signed-in route for [`WIKI`] to this application.
    pub fn in_front_of(upstream: &Upstream) -> Builder {
        Self::empty().route(&format!("host = \"{WIKI}\"\nupstream = \"{}\"", upstream.url()))
    }

    /// A gateway without routes.
    pub fn empty() -> Builder {
        Builder {
            folder: TempDir::with_prefix("portcullis-it-").unwrap(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free())),
            tls: None,
            listener: String::new(),
            top: String::new(),
            session: String::new(),
            limits: None,
            sections: String::new(),
            log_level: "debug",
            environment: Vec::new(),
            file_limit: None,
        }
    }
}

impl Builder {
    /// One more provider.
    #[must_use]
    pub fn provider(mut self, entry: ProviderEntry) -> Self {
        let ProviderEntry { id, issuer, client_id, client_secret, more } = entry;
        let mut lines = format!("id = \"{id}\"\nissuer = \"{issuer}\"\nclient_id = \"{client_id}\"\n");
        if let Some(secret) = client_secret {
            let file = self.folder.path().join(format!("secret-{id}"));
            std::fs::write(&file, secret).unwrap();
            writeln!(lines, "client_secret = {{ file = \"{}\" }}", file.display()).unwrap();
        }
        self.section(&format!("[[provider]]\n{lines}{more}"));
        self
    }

    /// One more route.
    #[must_use]
    pub fn route(mut self, lines: &str) -> Self {
        self.section(&format!("[[route]]\n{lines}"));
        self
    }

    /// One more route of [`WIKI`] at a path, to the same kind of application.
    #[must_use]
    pub fn path(self, path: &str, upstream: &Upstream, lines: &str) -> Self {
        let url = upstream.url();
        self.route(&format!("host = \"{WIKI}\"\npath = \"{path}\"\nupstream = \"{url}\"\n{lines}"))
    }

    /// More of the configuration: whole sections.
    #[must_use]
    pub fn config(mut self, section: &str) -> Self {
        self.section(section);
        self
    }

    /// Lines before the first section.
    #[must_use]
    pub fn top(mut self, lines: &str) -> Self {
        self.top.push_str(lines);
        self
    }

    /// Lines of its `[[listener]]`.
    #[must_use]
    pub fn listener(mut self, lines: &str) -> Self {
        self.listener.push_str(lines);
        self
    }

    /// Lines of `[session]`.
    #[must_use]
    pub fn session(mut self, lines: &str) -> Self {
        self.session.push_str(lines);
        self
    }

    /// Lines of `[limits]`, instead of no limit for tests that fail on purpose, all from one address.
    #[must_use]
    pub fn limits(mut self, lines: &str) -> Self {
        self.limits = Some(lines.to_owned());
        self
    }

    /// Sessions in Redis, sealed with a key that all such gateways have.
    #[must_use]
    pub fn redis(self, server: &RedisServer) -> Self {
        let bytes = sha2::Sha256::digest("the key of gateways that share sessions");
        let key = portcullis::session::Key::from_bytes(bytes.into()).to_text();
        let file = self.file("session_key", key.expose());
        self.session(&format!("store = \"redis\"\nkeys = [{{ file = \"{}\" }}]\n", file.display()))
            .config(&format!("[redis]\naddresses = [\"{}\"]", server.address()))
    }

    /// `log.level`; `debug` where this is not said.
    #[must_use]
    pub fn log_level(mut self, level: &'static str) -> Self {
        self.log_level = level;
        self
    }

    /// Lets [`Gateway::limit_files`] play a full disk.
    #[must_use]
    pub fn where_files_may_be_limited(mut self) -> Self {
        self.file_limit = Some(UNLIMITED.to_owned());
        self
    }

    /// Listens with TLS of its own, a certificate for these names.
    #[must_use]
    pub fn tls(mut self, names: &[&str]) -> Self {
        let authority = Authority::new();
        let certificate = authority.issue(names);
        self.tls = Some((authority, certificate));
        self
    }

    /// Where it will listen; for URLs with a port in configurations of others.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A file beside the configuration.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; its log is in the message.
    pub fn start(self) -> Gateway {
        let mut gateway = self.prepare();
        gateway.restart();
        gateway
    }

    /// Writes the configuration and starts nothing.
    pub fn prepare(self) -> Gateway {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        let folder = self.folder.path();
        let mut text = format!("data_dir = \"{}\"\n{}", folder.join("data").display(), self.top);
        write!(text, "\n[[listener]]\naddress = \"{}\"\n{}\n", self.address, self.listener).unwrap();
        if let Some((_, certificate)) = &self.tls {
            let (chain, key) = certificate.write(folder);
            let (chain, key) = (chain.display(), key.display());
            writeln!(text, "tls = {{ certificate = \"{chain}\", key = \"{key}\" }}").unwrap();
        }
        write!(text, "\n[admin]\naddress = \"{admin}\"\n\n[log]\nformat = \"json\"\n").unwrap();
        write!(text, "level = \"{}\"\n\n[session]\n{}\n{}", self.log_level, self.session, self.sections)
            .unwrap();
        let limits = self.limits.as_deref().unwrap_or(NO_LIMITS);
        write!(text, "\n[limits]\n{limits}\n").unwrap();
        std::fs::write(folder.join("portcullis.toml"), text).unwrap();
        Gateway {
            folder: self.folder,
            address: self.address,
            admin,
            authority: self.tls.map(|(authority, _)| authority),
            environment: self.environment,
            file_limit: self.file_limit,
            process: None,
            log: Log::default(),
        }
    }

    fn section(&mut self, text: &str) {
        self.sections.push('\n');
        self.sections.push_str(text);
        self.sections.push('\n');
    }
}

impl Gateway {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How to reach it as `name`.
    pub fn place(&self, name: &str) -> Place {
        let tls = self.authority.as_ref().map(|authority| (authority.client(), name.to_owned()));
        Place { address: self.address, tls, from: None }
    }

    /// Sends one request for [`WIKI`].
    pub fn request(&self, request: &Request) -> Response {
        self.place(WIKI).request(&request.clone().with("Host", WIKI))
    }

    /// Where its admin listener is.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Asks the admin listener.
    pub fn admin(&self, path: &str) -> Response {
        self.ask_admin(&Request::get(path).with("Host", &self.admin.to_string()))
    }

    /// Sends one request to the admin listener.
    pub fn ask_admin(&self, request: &Request) -> Response {
        Place::plain(self.admin).request(request)
    }

    /// The value of a metric with exactly these labels as they are written, 0 where it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.admin("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a metric is a number"))
    }

    /// Everything that it wrote so far, on both outputs, of all its runs.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line with all these pieces.
    pub fn wait_for_log(&self, pieces: &[&str]) -> String {
        wait_for(&format!("a log line with {pieces:?}"), || {
            let fits = |line: &&String| pieces.iter().all(|piece| line.contains(piece));
            self.log.lock().unwrap().iter().find(fits).cloned()
        })
    }

    /// Whether it was started, and not ended.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the gateway runs").child.id()
    }

    /// Its configuration.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("portcullis.toml")
    }

    /// Writes a file beside the configuration anew, in one step.
    pub fn replace_file(&self, name: &str, text: &str) {
        let draft = self.folder.path().join(format!("{name}.new"));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.folder.path().join(name)).unwrap();
    }

    /// From now on its files end here, as on a disk that is full; `None` for no end.
    ///
    /// # Panics
    /// When it was not built for that.
    pub fn limit_files(&mut self, bytes: Option<u64>) {
        assert!(self.file_limit.is_some(), "it would be killed by SIGXFSZ");
        let limit = bytes.map_or(UNLIMITED.to_owned(), |bytes| format!("{bytes}:{UNLIMITED}"));
        if let Some(process) = &self.process {
            let pid = process.child.id().to_string();
            let status = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}")]).status();
            assert!(status.expect("prlimit of util-linux is there").success());
        }
        self.file_limit = Some(limit);
    }

    /// Removes a file beside the configuration.
    pub fn remove_file(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS is told");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    /// Ends it like a power cut.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("the gateway runs");
        process.child.kill().unwrap();
        process.finish();
    }

    /// Sends SIGTERM and returns at once.
    pub fn send_terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "SIGTERM was not sent");
    }

    /// Waits for its end and says how it ended.
    ///
    /// # Panics
    /// When it goes on.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("the gateway runs");
        let status = wait_for("the gateway to end", || process.child.try_wait().unwrap());
        self.process.take().expect("the gateway ran").finish();
        status
    }

    /// SIGTERM, and its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.send_terminate();
        self.wait_for_exit()
    }

    /// SIGTERM, and an end without complaint.
    ///
    /// # Panics
    /// When it complains.
    pub fn terminate_cleanly(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "the gateway ended with {status}");
    }

    /// Starts it (again) with the same configuration and data, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; its log is in the message.
    pub fn restart(&mut self) {
        self.spawn();
        wait_for("the gateway to be ready", || {
            let process = self.process.as_mut().expect("the gateway was started");
            if let Some(status) = process.child.try_wait().unwrap() {
                self.process.take().expect("the gateway was started").finish();
                panic!("the gateway ended with {status}:\n{}", self.log().join("\n"));
            }
            self.is_ready().then_some(())
        });
    }

    /// Starts it without waiting.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the gateway runs already");
        let mut child = self
            .program()
            .args(["run", "--config"])
            .arg(self.config_file())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = capture(child.stdout.take().unwrap(), &self.log);
        let err = capture(child.stderr.take().unwrap(), &self.log);
        self.process = Some(Process { child, readers: vec![out, err] });
    }

    /// The binary; where files may be limited, in a shell's place that has it told of its limit by an
    /// error, and not killed.
    fn program(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_portcullis");
        let Some(limit) = &self.file_limit else { return Command::new(binary) };
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec prlimit --fsize=\"$0\" \"$@\"", limit, binary]);
        command
    }

    /// Whether this very process listens for the admin and says that it is ready.
    fn is_ready(&self) -> bool {
        self.listens() && self.admin("/readyz").status == 200
    }

    /// Whether this very process listens, ready or not.
    pub fn listens(&self) -> bool {
        listens(self.pid(), self.admin.port()) && listens(self.pid(), self.address.port())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.child.kill();
            process.finish();
        }
        if std::thread::panicking() {
            eprintln!("---- log of the gateway ----\n{}", self.log().join("\n"));
        }
    }
}

impl Process {
    fn finish(mut self) {
        self.child.wait().unwrap();
        for reader in self.readers {
            reader.join().unwrap();
        }
    }
}

fn capture(from: impl Read + Send + 'static, into: &Log) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            into.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

/// Whether a process owns the socket that listens on a port: on a neighbour's port a test would pass for
/// the wrong reason.
pub fn listens(pid: u32, port: u16) -> bool {
    let table =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let local = format!(":{port:04X}");
    let inodes: Vec<String> = table
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        // Column 1: local address; 3: state, 0A is LISTEN; 9: inode.
        .filter(|columns| columns[1].ends_with(&local) && columns[3] == "0A")
        .map(|columns| format!("socket:[{}]", columns[9]))
        .collect();
    let open = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(open) => open,
        // The gateway shows its files to root alone; whoever else runs the tests takes its word.
        Err(error) => return error.kind() == ErrorKind::PermissionDenied && !inodes.is_empty(),
    };
    open.flatten()
        .filter_map(|file| std::fs::read_link(file.path()).ok())
        .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
}
