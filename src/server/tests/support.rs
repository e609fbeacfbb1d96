//! A gateway in this process, raw sockets in front of it and scripted applications behind it.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::config::{self, Settings};
use crate::gateway::Gateway;
use crate::server::{Assembly, Open, Running, Runtimes};

/// No step of a test takes longer, or it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that runs.
pub(super) struct Fixture {
    pub(super) running: Running,
    pub(super) gateway: Arc<Gateway>,
    pub(super) address: SocketAddr,
}

/// Settings out of a configuration's text; the listener takes a free port.
pub(super) fn settings(text: &str) -> Settings {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.toml");
    let base = "[[listener]]\naddress = \"127.0.0.1:8080\"\n[admin]\naddress = \"off\"\n[session]\nstore = \"memory\"\n[log]\naccess = false\n";
    std::fs::write(&file, format!("{base}{text}")).unwrap();
    let mut settings = config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    for listener in &mut settings.listeners {
        listener.address.set_port(0);
    }
    settings
}

/// A public route for every path of `app.test`.
pub(super) fn public(upstream: SocketAddr, more: &str) -> String {
    format!("[[route]]\nhost = \"app.test\"\naccess = \"public\"\nupstream = \"http://{upstream}\"\n{more}\n")
}

/// Starts a gateway.
pub(super) fn start(text: &str) -> Fixture {
    start_settings(settings(text))
}

pub(super) fn start_settings(settings: Settings) -> Fixture {
    start_at(settings, Clock::system())
}

/// Starts a gateway whose clock the test moves.
pub(super) fn start_at(settings: Settings, clock: Clock) -> Fixture {
    let runtimes = Runtimes::new(&settings.server).unwrap();
    let open = Open::new(&settings, runtimes.control.handle()).unwrap();
    let assembly = Assembly::new(settings, clock, runtimes.control.handle()).unwrap();
    let gateway = Arc::clone(&assembly.gateway);
    let running = runtimes.launch(assembly, open).unwrap();
    let address = running.addresses()[0];
    Fixture { running, gateway, address }
}

impl Fixture {
    pub(super) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own, and everything that comes back.
    pub(super) fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect();
        client.send(bytes);
        client.read_all()
    }

    /// How many requests ended, by the metrics.
    pub(super) fn finished(&self) -> usize {
        let metrics = self.gateway.shared().events.metrics().render();
        let counts = metrics.lines().filter(|line| line.starts_with("portcullis_requests_total{"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    }

    /// Waits until the drain is over.
    pub(super) fn wait_finished(&self) {
        let runtime = self.running.runtimes.as_ref().unwrap();
        let finished = self.running.finished();
        runtime.control.block_on(async { tokio::time::timeout(PATIENCE, finished).await }).unwrap();
    }
}

/// Waits until something is so.
pub(super) fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "it did not come to pass");
        std::thread::yield_now();
    }
}

/// A raw client connection.
pub(super) struct Client(BufReader<TcpStream>);

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        self.0.get_mut()
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// A head, up to its blank line; empty where the other side has closed.
    pub(super) fn read_head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).unwrap() == 0 {
                break;
            }
        }
        head
    }

    pub(super) fn read_exactly(&mut self, len: usize) -> String {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    pub(super) fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// A line, or nothing where the other side is gone.
    pub(super) fn try_read_line(&mut self) -> String {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        read.map_or_else(|_gone| String::new(), |_| line)
    }

    /// One answer with a length.
    pub(super) fn read_answer(&mut self) -> String {
        let head = self.read_head();
        let len = field(&head, "content-length").map_or(0, |len| len.parse().unwrap());
        let body = self.read_exactly(len);
        head + &body
    }

    /// Everything until the other side closes.
    pub(super) fn read_all(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset behind the answer is the same to the test as a close.
        let _ = self.0.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn close_writing(&mut self) {
        self.0.get_mut().shutdown(Shutdown::Write).unwrap();
    }
}

/// A field of a head, by its name in any case.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    fields(head, name).next()
}

/// All fields of a name.
pub(super) fn fields<'a>(head: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let head = head.split("\r\n\r\n").next().unwrap_or_default();
    head.lines().skip(1).filter_map(move |line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status of an answer.
pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// An application behind the gateway.
pub(super) struct Application {
    pub(super) address: SocketAddr,
    hits: Arc<AtomicUsize>,
}

impl Application {
    /// One that answers each request with its head as it came, and the length of its body.
    pub(super) fn echo() -> Self {
        Self::start(|connection, head| {
            let body = connection.read_body(head);
            let mut answer = head.to_owned();
            write!(answer, "body: {body}").unwrap();
            connection.answer("200 OK", "", &answer);
        })
    }

    /// One that does what `serve` says for each request head.
    pub(super) fn start(serve: impl Fn(&mut Client, &str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicUsize::new(0));
        let (serve, counter) = (Arc::new(serve), Arc::clone(&hits));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (serve, counter) = (Arc::clone(&serve), Arc::clone(&counter));
                thread::spawn(move || Self::serve(stream, &*serve, &counter));
            }
        });
        Self { address, hits }
    }

    fn serve(stream: TcpStream, serve: &(impl Fn(&mut Client, &str) + ?Sized), hits: &AtomicUsize) {
        stream.set_nodelay(true).unwrap();
        let mut connection = Client(BufReader::new(stream));
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                match connection.0.read_line(&mut head) {
                    Ok(1..) => {}
                    _ => return,
                }
            }
            hits.fetch_add(1, Ordering::SeqCst);
            serve(&mut connection, &head);
        }
    }

    pub(super) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

impl Client {
    /// Reads the body that a request's head announces; says how long it was.
    pub(super) fn read_body(&mut self, head: &str) -> usize {
        if let Some(len) = field(head, "content-length") {
            return self.read_exactly(len.parse().unwrap()).len();
        }
        if field(head, "transfer-encoding").is_none() {
            return 0;
        }
        let mut total = 0;
        loop {
            let size = usize::from_str_radix(self.read_line().trim(), 16).unwrap();
            total += size;
            self.read_exactly(size + 2);
            if size == 0 {
                return total;
            }
        }
    }

    /// Writes an answer with a length.
    pub(super) fn answer(&mut self, status: &str, fields: &str, body: &str) {
        self.send(format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()));
    }
}
