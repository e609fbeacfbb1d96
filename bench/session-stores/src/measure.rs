//! What is measured, one thing after another, all through the trait that the gateway uses.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis::clock::Clock;
use portcullis::random::random_bytes;
use portcullis::store::disk::DiskStore;
use portcullis::store::{SessionStore, StoreKey};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::people::{BUSY, Sealer, sessions_of};
use crate::stores::Kind;

/// Longer than any measurement.
const LIFE: Duration = Duration::from_hours(24 * 30);
/// Sign-ins under way at once while the store is filled.
const FILLERS: usize = 512;
/// Sessions of the one person who has very many.
const OF_ONE: usize = 10_000;
/// Records that end together.
const ENDING: usize = 100_000;
/// Sessions that are looked up while a backup is made.
const KEYS_FOR_BACKUP: usize = 10_000;
/// Lookups of each kind.
const LOOKUPS: usize = 50_000;
/// Between two lookups of the one who watches for pauses.
const BETWEEN_LOOKUPS: Duration = Duration::from_millis(2);
/// How long sign-ins are counted.
const COUNTED: Duration = Duration::from_secs(5);

type Store = Arc<dyn SessionStore>;

/// The figures of one store.
#[derive(Default)]
struct Figures(Map<String, Value>);

impl Figures {
    fn note(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        eprintln!("  {name}: {value}");
        self.0.insert(name.to_owned(), value);
    }

    fn note_latencies(&mut self, name: &str, mut all: Vec<Duration>) {
        all.sort_unstable();
        for (which, percent) in [("p50", 50), ("p99", 99)] {
            let value = all.get((all.len() * percent / 100).min(all.len() - 1)).copied().unwrap_or_default();
            self.note(&format!("{name} {which} us"), micros(value));
        }
    }
}

fn micros(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e7).round() / 10.0
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

/// Fills a store and measures it.
pub async fn everything(kind: Kind, folder: &Path, sessions: usize) -> Outcome<Value> {
    let (clock, sealer, mut figures) =
        (Clock::manual(Clock::system().now()), Arc::new(Sealer::new()?), Figures::default());
    let before = memory_bytes(kind)?;
    let store = kind.open(folder, clock.clone()).await?;
    let began = Instant::now();
    let keys = Arc::new(fill(&store, &sealer, sessions).await?);
    figures.note("filled in s", began.elapsed().as_secs());
    let each = |bytes: u64| bytes / sessions as u64;
    figures.note("memory per session", each(memory_bytes(kind)?.saturating_sub(before)));
    figures.note("disk per session", each(disk_bytes(folder)?));
    figures.note("memory MiB", resident_bytes()? >> 20);
    figures.note_latencies("hit", lookups(&store, &keys).await?);
    figures.note_latencies("miss", lookups(&store, &unknown_keys()?).await?);
    figures.note("memory MiB after lookups", resident_bytes()? >> 20);
    for at_once in [1, 64] {
        figures.note(&format!("sign-ins/s {at_once}"), sign_ins(&store, &sealer, at_once).await?);
    }
    revoke(&store, &sealer, &keys, &mut figures).await?;
    sweep(kind, &clock, &store, &sealer, &keys, &mut figures).await?;
    figures.note("memory MiB at the end", resident_bytes()? >> 20);
    Ok(Value::Object(figures.0))
}

/// Opens a store that is there; the time until the first lookup is answered.
pub async fn start(kind: Kind, folder: &Path) -> Outcome<Value> {
    let began = Instant::now();
    let store = kind.open(folder, Clock::system()).await?;
    let opened = began.elapsed();
    store.get(StoreKey([7; 32])).await?;
    store.ping().await?;
    Ok(json!({"open ms": millis(opened), "open and answer ms": millis(began.elapsed())}))
}

/// Copies a disk store that is there, while others look up and sign in.
pub async fn backup(folder: &Path) -> Outcome<Value> {
    let mut figures = Figures::default();
    let disk = Arc::new(DiskStore::open(folder, Clock::system(), Handle::current())?);
    let store: Store = Arc::clone(&disk) as Store;
    let page = store.list(None, KEYS_FOR_BACKUP).await?;
    let keys = Arc::new(page.records.iter().map(|stored| stored.record.key).collect::<Vec<_>>());
    let size = disk_bytes(folder)?;
    let others = Others::begin(&store, &Arc::new(Sealer::new()?), &keys, Duration::from_millis(25));
    let began = Instant::now();
    let made = disk.back_up(folder).await?;
    figures.note("backup s", began.elapsed().as_secs());
    let (read, written) = others.end().await?;
    figures.note("longest lookup during backup ms", millis(read));
    figures.note("longest sign-in during backup ms", millis(written));
    figures.note("backup per session", made.bytes / made.sessions.max(1));
    figures.note("growth during backup MiB", disk_bytes(folder)?.saturating_sub(size) >> 20);
    figures.note("memory MiB after backup", resident_bytes()? >> 20);
    Ok(Value::Object(figures.0))
}

/// Signs in until the process is killed.
pub async fn write_until_killed(kind: Kind, folder: &Path) -> Outcome<()> {
    let (store, sealer) = (kind.open(folder, Clock::system()).await?, Arc::new(Sealer::new()?));
    for _ in 0..100 {
        sign_in(&*store, &sealer, "someone").await?;
    }
    println!("writing");
    loop {
        sign_ins(&store, &sealer, 64).await?;
    }
}

/// Puts `count` sessions, of them [`OF_ONE`] of one person; gives the keys of some of the others.
async fn fill(store: &Store, sealer: &Arc<Sealer>, count: usize) -> Outcome<Vec<StoreKey>> {
    let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut fillers = JoinSet::new();
    for _ in 0..FILLERS {
        let (store, sealer, next) = (Arc::clone(store), Arc::clone(sealer), Arc::clone(&next));
        fillers.spawn(async move {
            let mut keys = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if count <= n {
                    return Outcome::Ok(keys);
                }
                if n % 10_000 == 0 {
                    eprint!("\r  {n} sessions, {} s ", began.elapsed().as_secs());
                }
                let record = sealer.record(&subject(n, count))?;
                if n % 20 == 19 {
                    keys.push(record.key);
                }
                store.put(record, LIFE).await?;
            }
        });
    }
    let mut keys = Vec::new();
    while let Some(filled) = fillers.join_next().await {
        keys.append(&mut filled??);
    }
    eprintln!();
    Ok(keys)
}

/// Whose session the `n`th is: most people have two, one has very many, spread over the whole time.
fn subject(n: usize, count: usize) -> String {
    let of_one = OF_ONE.min(count / 2);
    let apart = count / of_one.max(1);
    if n % apart == 0 && n / apart < of_one { BUSY.to_owned() } else { format!("person-{}", n / 2) }
}

fn unknown_keys() -> Outcome<Vec<StoreKey>> {
    (0..LOOKUPS).map(|_| Ok(StoreKey(random_bytes()?))).collect()
}

/// Looks keys up in no order, one at a time.
async fn lookups(store: &Store, keys: &[StoreKey]) -> Outcome<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(LOOKUPS);
    for n in 0..LOOKUPS {
        // Any odd step larger than the number of keys leads all over them.
        let Some(key) = keys.get(n.wrapping_mul(2_654_435_761) % keys.len()) else { continue };
        let began = Instant::now();
        std::hint::black_box(store.get(*key).await?);
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}

/// What a sign-in writes: its attempt is spent, its session kept.
async fn sign_in(store: &dyn SessionStore, sealer: &Sealer, subject: &str) -> Outcome<()> {
    let record = sealer.record(subject)?;
    store.put_once(StoreKey(random_bytes()?), Duration::from_mins(20)).await?;
    Ok(store.put(record, LIFE).await?)
}

/// Sign-ins per second with so many at once.
async fn sign_ins(store: &Store, sealer: &Arc<Sealer>, at_once: usize) -> Outcome<u64> {
    let (mut people, began) = (JoinSet::new(), Instant::now());
    for n in 0..at_once {
        let (store, sealer) = (Arc::clone(store), Arc::clone(sealer));
        people.spawn(async move {
            let mut done = 0_u64;
            while began.elapsed() < COUNTED {
                sign_in(&*store, &sealer, &format!("newcomer-{n}")).await?;
                done += 1;
            }
            Outcome::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(of_one) = people.join_next().await {
        done += of_one??;
    }
    Ok(done * 1000 / u64::try_from(began.elapsed().as_millis())?)
}

/// Ends all sessions of the person who has very many, while others look up and sign in.
async fn revoke(
    store: &Store,
    sealer: &Arc<Sealer>,
    keys: &Arc<Vec<StoreKey>>,
    figures: &mut Figures,
) -> Outcome<()> {
    let others = Others::begin(store, sealer, keys, Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let ended = store.remove_by(sessions_of(BUSY), None).await?.len();
    figures.note("revoked sessions", ended);
    figures.note("revocation ms", millis(began.elapsed()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (read, written) = others.end().await?;
    figures.note("longest lookup during revocation ms", millis(read));
    figures.note("longest sign-in during revocation ms", millis(written));
    Ok(())
}

/// Lets very many records end at once, and watches what others see until they are swept.
async fn sweep(
    kind: Kind,
    clock: &Clock,
    store: &Store,
    sealer: &Arc<Sealer>,
    keys: &Arc<Vec<StoreKey>>,
    figures: &mut Figures,
) -> Outcome<()> {
    let ending = Instant::now() + kind.short_life();
    put_short_lived(store, sealer, ending).await?;
    let left = ending.saturating_duration_since(Instant::now());
    if kind == Kind::Redis {
        tokio::time::sleep(left).await;
    } else {
        clock.advance(kind.short_life());
    }
    let began = Instant::now();
    let others = Others::begin(store, sealer, keys, kind.pause_between_sign_ins());
    tokio::time::sleep(Duration::from_secs(10)).await;
    others.only_look();
    let idle_since = writing_ended().await?;
    if kind == Kind::Disk {
        figures.note("swept in s", idle_since.duration_since(began).as_secs());
    }
    let (read, written) = others.end().await?;
    figures.note("longest lookup during sweep ms", millis(read));
    figures.note("longest sign-in during sweep ms", millis(written));
    Ok(())
}

/// Puts records that end together.
async fn put_short_lived(store: &Store, sealer: &Arc<Sealer>, ending: Instant) -> Outcome<()> {
    let mut putting = JoinSet::new();
    for filler in 0..FILLERS {
        let (store, sealer) = (Arc::clone(store), Arc::clone(sealer));
        putting.spawn(async move {
            for n in (filler..ENDING).step_by(FILLERS) {
                let left = ending.saturating_duration_since(Instant::now());
                store.put(sealer.record(&format!("short-{n}"))?, left).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(put) = putting.join_next().await {
        put??;
    }
    Ok(())
}

/// Waits until this process has written nothing for two seconds; says when it wrote last.
async fn writing_ended() -> Outcome<Instant> {
    let (mut written, mut last) = (written_bytes()?, Instant::now());
    while last.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = written_bytes()?;
        if now != written {
            (written, last) = (now, Instant::now());
        }
    }
    Ok(last)
}

/// Others who look up and sign in meanwhile; each kind notes how long it had to wait at most, for its
/// turn to begin and for its answer.
struct Others {
    looking: tokio::task::JoinHandle<Outcome<Duration>>,
    signing_in: tokio::task::JoinHandle<Outcome<Duration>>,
    over: Arc<AtomicBool>,
    only_look: Arc<AtomicBool>,
}

impl Others {
    fn begin(store: &Store, sealer: &Arc<Sealer>, keys: &Arc<Vec<StoreKey>>, pause: Duration) -> Self {
        let (over, only_look) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let looking = {
            let (store, keys, over) = (Arc::clone(store), Arc::clone(keys), Arc::clone(&over));
            tokio::spawn(async move {
                let (mut longest, mut n) = (Duration::ZERO, 0_usize);
                while !over.load(Ordering::Relaxed) {
                    let Some(key) = keys.get(n.wrapping_mul(2_654_435_761) % keys.len()) else { break };
                    let began = Instant::now();
                    tokio::time::sleep(BETWEEN_LOOKUPS).await;
                    std::hint::black_box(store.get(*key).await?);
                    longest = longest.max(began.elapsed().saturating_sub(BETWEEN_LOOKUPS));
                    n += 1;
                }
                Outcome::Ok(longest)
            })
        };
        let signing_in = {
            let (store, sealer, ended) = (Arc::clone(store), Arc::clone(sealer), Arc::clone(&only_look));
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                while !ended.load(Ordering::Relaxed) {
                    let record = sealer.record("somebody else")?;
                    let began = Instant::now();
                    store.put(record, LIFE).await?;
                    longest = longest.max(began.elapsed());
                    tokio::time::sleep(pause).await;
                }
                Outcome::Ok(longest)
            })
        };
        Self { looking, signing_in, over, only_look }
    }

    fn only_look(&self) {
        self.only_look.store(true, Ordering::Relaxed);
    }

    /// The longest lookup and the longest write of a sign-in.
    async fn end(self) -> Outcome<(Duration, Duration)> {
        self.only_look();
        self.over.store(true, Ordering::Relaxed);
        Ok((self.looking.await??, self.signing_in.await??))
    }
}

/// Of the server where there is one, else of this process.
fn memory_bytes(kind: Kind) -> Outcome<u64> {
    Ok(match kind.server_bytes()? {
        Some(bytes) => bytes,
        None => resident_bytes()?,
    })
}

/// Resident memory of this process (proc_pid_status(5)).
fn resident_bytes() -> Outcome<u64> {
    Ok(number_after(&fs::read_to_string("/proc/self/status")?, "VmRSS:")? * 1024)
}

/// What this process has written in all, to whatever (proc_pid_io(5)).
fn written_bytes() -> Outcome<u64> {
    number_after(&fs::read_to_string("/proc/self/io")?, "write_bytes:")
}

fn number_after(text: &str, name: &str) -> Outcome<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line in /proc")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// What the files of a folder take of the disk.
fn disk_bytes(folder: &Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt as _;

    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let (path, metadata) = entry.map(|entry| (entry.path(), entry.metadata()))?;
        bytes += if path.is_dir() { disk_bytes(&path)? } else { metadata?.blocks() * 512 };
    }
    Ok(bytes)
}
