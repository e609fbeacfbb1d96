//! Real Redis (or Valkey) servers: one, a cluster of three, one with TLS and a user. The store's own tests
//! include this file, too.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::ports;

const DEADLINE: Duration = Duration::from_secs(30);

/// Ends the server with its input, so also when the tests are killed. A line on the input leaves its folder
/// for another start.
const KEEPER: &str = r#"
folder=$1
shift
"$@" >/dev/null 2>&1 &
echo $!
read -r keep || rm -rf "$folder"
kill -9 $!
wait
[ -n "$keep" ] || rm -rf "$folder"
"#;

/// A server; killed when dropped.
pub struct RedisServer {
    port: u16,
    folder: PathBuf,
    process: Option<Process>,
}

struct Process {
    keeper: Child,
    input: ChildStdin,
    pid: u32,
}

impl RedisServer {
    /// One that keeps nothing.
    pub fn start() -> Self {
        Self::with("save \"\"\nappendonly no")
    }

    /// One that has everything on disk before it answers.
    pub fn durable() -> Self {
        Self::with("save \"\"\nappendonly yes\nappendfsync always")
    }

    /// One with more lines of configuration.
    ///
    /// # Panics
    /// Without `redis-server`; `./dev setup` installs it.
    pub fn with(lines: &str) -> Self {
        let folder = tempfile::TempDir::with_prefix("portcullis-redis-").unwrap().keep();
        let port = ports::free();
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {folder}\nlogfile {folder}/log\nprotected-mode no\n{lines}\n",
            folder = folder.display()
        );
        fs::write(folder.join("redis.conf"), text).unwrap();
        let mut server = Self { port, folder, process: None };
        server.restart();
        server
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A folder that goes with it.
    pub fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// Starts it (again) at the same port with the same data.
    ///
    /// # Panics
    /// When it does not answer; its log is in the message.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "Redis runs already");
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.folder)
            .arg(program())
            .arg(self.folder.join("redis.conf"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().expect("the keeper tells the process id");
        let input = keeper.stdin.take().unwrap();
        self.process = Some(Process { keeper, input, pid });
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let own = format!("process_id:{}\r\n", self.process.as_ref().unwrap().pid);
        let started = Instant::now();
        loop {
            let info = self.try_ask(&["INFO"]).unwrap_or_default();
            // On a port of a neighbour a test would pass for the wrong reason.
            if info.contains(&own) && info.contains("loading:0") {
                return;
            }
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(started.elapsed() < DEADLINE, "Redis does not answer ({info:?}):\n{}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a command and gives its answer as text.
    ///
    /// # Panics
    /// When it fails.
    pub fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn try_ask(&self, command: &[&str]) -> redis::RedisResult<String> {
        let mut words = redis::cmd(command[0]);
        for word in &command[1..] {
            words.arg(*word);
        }
        let value: redis::Value = words.query(&mut self.connection()?)?;
        let text = redis::from_redis_value_ref(&value);
        Ok(text.unwrap_or_else(|_| format!("{value:?}")))
    }

    /// A connection as the default user.
    pub fn connection(&self) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        client.get_connection_with_timeout(Duration::from_secs(5))
    }

    /// Ends it like a power cut; its data stays for [`RedisServer::restart`].
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("Redis runs");
        writeln!(process.input, "keep").unwrap();
        process.keeper.wait().unwrap();
    }

    /// Stops it without an end: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().expect("Redis runs").pid.to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success(), "{signal} was not sent");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        match self.process.take() {
            Some(Process { mut keeper, input, .. }) => {
                drop(input);
                keeper.wait().ok();
            }
            None => fs::remove_dir_all(&self.folder).unwrap_or_default(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "./dev tells the tests by an environment variable")]
fn program() -> PathBuf {
    if let Ok(path) = std::env::var("PORTCULLIS_TEST_REDIS") {
        return path.into();
    }
    let found = ["redis-server", "valkey-server"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").stdout(Stdio::null()).status().is_ok());
    found.expect("there is no redis-server and no valkey-server: run ./dev setup").into()
}

/// Three masters, each with a third of the slots.
pub struct RedisCluster {
    /// The masters.
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the servers and makes a cluster of them.
    ///
    /// # Panics
    /// When they don't find each other.
    pub fn start() -> Self {
        let servers: Vec<_> = (0..3).map(|_| Self::member()).collect();
        for (server, (first, last)) in
            servers.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")])
        {
            server.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        for server in &servers[1..] {
            let bus = servers[0].ask(&["CONFIG", "GET", "cluster-port"]);
            let bus: String = bus.chars().filter(char::is_ascii_digit).collect();
            server.ask(&["CLUSTER", "MEET", "127.0.0.1", &servers[0].port().to_string(), &bus]);
        }
        let cluster = Self { servers };
        cluster.wait_until_ok();
        cluster
    }

    fn member() -> RedisServer {
        let bus = ports::free();
        RedisServer::with(&format!(
            "save \"\"\nappendonly no\ncluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 2000"
        ))
    }

    /// Waits until every server knows all slots and all servers.
    pub fn wait_until_ok(&self) {
        let started = Instant::now();
        let is_ok = |server: &RedisServer| {
            let info = server.ask(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        while !self.servers.iter().all(is_ok) {
            assert!(started.elapsed() < DEADLINE, "the cluster does not come together");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
