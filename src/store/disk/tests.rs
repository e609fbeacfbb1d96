//! What the contract suite can't ask of every store: restarts, kills, damage, disks that fail.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Builder, Database, StorageBackend, TableDefinition};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::random::random_bytes;

const START: UnixTime = UnixTime::from_secs(1_000_000);
const HOUR: Duration = Duration::from_hours(1);
const QUICK: Pace = Pace {
    idle: Duration::from_millis(5),
    rest: Duration::from_millis(20),
    deadline: Duration::from_secs(10),
};

fn open(directory: &Path) -> Result<DiskStore, OpenError> {
    DiskStore::open(directory, Clock::manual(START), Handle::current())
}

fn key(n: usize) -> StoreKey {
    StoreKey::derive("test", &[&n.to_be_bytes()])
}

fn index(n: usize) -> Index {
    Index::of_sub("https://op.test", &n.to_string())
}

fn record(n: usize) -> Record {
    Record { key: key(n), indexes: vec![index(n)], payload: Bytes::from(vec![b's'; 1000]) }
}

async fn holds(store: &DiskStore, n: usize) -> bool {
    let stored = store.get(key(n)).await.unwrap();
    stored.is_some_and(|stored| stored.record == record(n))
}

/// Puts `count` records, all at once.
async fn put_all(store: &DiskStore, count: usize) {
    let puts = (0..count).map(|n| store.put(record(n), HOUR));
    futures::future::try_join_all(puts).await.unwrap();
}

/// Waits until something is so; fails if it isn't in ten seconds.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn everything_but_leases_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    store.put(record(1), HOUR).await.unwrap();
    store.replace(record(1), HOUR, 1, None).await.unwrap();
    store.mark(key(2), HOUR).await.unwrap();
    let held = store.lease(key(3), HOUR).await.unwrap().unwrap();
    drop(store);
    let store = open(directory.path()).unwrap();
    let stored = store.get(key(1)).await.unwrap().unwrap();
    assert_eq!(stored, Stored { record: record(1), version: 2, expires_at: START + HOUR });
    assert_eq!(store.find_by(index(1)).await.unwrap(), [(key(1), 2)]);
    assert!(store.is_marked(key(2)).await.unwrap());
    assert!(!store.extend(&held, HOUR).await.unwrap(), "its holder ended with the process");
    let next = store.lease(key(3), HOUR).await.unwrap().unwrap();
    assert!(held.fence < next.fence, "a fence is never granted twice, also not after a restart");
}

#[tokio::test]
async fn directory_and_file_are_for_their_owner_only() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state/portcullis");
    let file = directory.join("sessions.redb");
    drop(open(&directory).unwrap());
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&file), 0o600);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing else is left there");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&directory).unwrap());
    assert_eq!(mode(&file), 0o600, "a file that was opened to others is closed to them");
}

#[tokio::test]
async fn a_store_that_is_open_is_not_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().ends_with("sessions.redb: in use by another process"), "{error}");
    store.put(record(1), HOUR).await.unwrap();
    drop(store);
    assert!(holds(&open(directory.path()).unwrap(), 1).await);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_told_by_its_name() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("file"), "in the way").unwrap();
    let error = open(&parent.path().join("file/state")).unwrap_err();
    assert!(matches!(&error, OpenError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("file/state: "), "{error}");
}

/// A directory with a store of twenty records that was closed, and the path of its file.
async fn closed_store() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    put_all(&open(directory.path()).unwrap(), 20).await;
    let file = directory.path().join("sessions.redb");
    (directory, file)
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let (directory, file) = closed_store().await;
    let whole = fs::read(&file).unwrap();
    let mut torn = whole.clone();
    torn[4096..].fill(0xaa);
    let cases: [(&str, &[u8]); 7] = [
        ("empty", b""),
        ("a text", b"not a database"),
        ("cut in its header", &whole[..100]),
        ("cut after its header", &whole[..4096]),
        ("cut in half", &whole[..whole.len() / 2]),
        ("cut by a page", &whole[..whole.len() - 4096]),
        ("overwritten", &torn),
    ];
    for (name, content) in cases {
        fs::write(&file, content).unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{name}: {error}");
        assert!(error.to_string().contains("sessions.redb: damaged"), "{name}: {error}");
        assert!(fs::read(&file).unwrap() == content, "{name}: the file was changed");
    }
    fs::write(&file, &whole).unwrap();
    assert!(holds(&open(directory.path()).unwrap(), 7).await, "what was moved back is opened");
}

#[tokio::test]
async fn a_flipped_bit_is_refused_or_harmless() {
    let (directory, file) = closed_store().await;
    let whole = fs::read(&file).unwrap();
    let mut refused = 0;
    for at in (300..whole.len()).step_by(4096) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&file, flipped).unwrap();
        match open(directory.path()) {
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("at {at}: {error}"),
            Ok(store) => {
                for n in 0..20 {
                    assert!(holds(&store, n).await, "at {at}: record {n} was lost silently");
                }
            }
        }
    }
    assert!(0 < refused, "no flip hit a page in use");
}

/// A large file is not read as a whole when it opens, and the database trusts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_that_no_check_finds_gives_nobody_anothers_session_and_ends_no_thread() {
    let (directory, file) = closed_store().await;
    let whole = fs::read(&file).unwrap();
    for at in (300..whole.len()).step_by(3 * 4096) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&file, flipped).unwrap();
        let Ok(database) = file::open(&file, false) else { continue };
        let path = file.clone();
        let slot = Slot::new(database, Box::new(move || file::open(&path, false)), Duration::ZERO);
        let store = DiskStore::start(slot, Clock::manual(START), Handle::current(), QUICK).unwrap();
        for n in 0..20 {
            // What is in the record is sealed for its key: whatever else is there does not open.
            if let Ok(Some(stored)) = store.get(key(n)).await {
                assert_eq!(stored.record.key, key(n), "at {at}");
            }
        }
        for n in 20..23 {
            let put = store.put(record(n), HOUR).await.map_err(|error| error.to_string());
            let ended = put.is_err_and(|error| error.contains("the writer has stopped"));
            assert!(!ended, "at {at}: a mistake in the file has ended the writer");
        }
    }
    drop(directory);
}

fn rewrite(file: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::create(file).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_file_of_a_newer_format_is_refused_by_its_number() {
    let (directory, file) = closed_store().await;
    rewrite(&file, |transaction| {
        transaction.open_table(tables::META).unwrap().insert("format", 2).unwrap();
    });
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, .. }), "{error}");
    assert!(
        error.to_string().ends_with("written by a newer version (format 2, this one knows 1)"),
        "{error}"
    );
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    rewrite(&directory.path().join("sessions.redb"), |transaction| {
        transaction.open_table(TableDefinition::<u64, u64>::new("other")).unwrap().insert(1, 1).unwrap();
    });
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_draft_that_a_crash_left_is_no_hindrance() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("sessions.redb.new"), vec![7; 10_000]).unwrap();
    open(directory.path()).unwrap().put(record(1), HOUR).await.unwrap();
    assert!(holds(&open(directory.path()).unwrap(), 1).await);
}

const KILLED: &str = "PORTCULLIS_TEST_STORE_TO_BE_KILLED";

#[test]
fn what_was_acknowledged_survives_a_kill() {
    if let Some(directory) = std::env::var_os(KILLED) {
        return put_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut child = spawn_one_to_be_killed(directory.path());
        acknowledged.extend(kill_at_a_random_moment(&mut child, directory.path()));
        let store = DiskStore::open(directory.path(), Clock::system(), runtime.handle().clone()).unwrap();
        runtime.block_on(async {
            for &n in &acknowledged {
                assert!(holds(&store, n).await, "round {round}: session {n} of {}", acknowledged.len());
                assert!(store.is_marked(key(n)).await.unwrap(), "round {round}: mark {n}");
                assert_eq!(store.find_by(index(n)).await.unwrap(), [(key(n), 1)], "round {round}: {n}");
            }
        });
    }
}

/// This test binary again, with the directory to write to.
fn spawn_one_to_be_killed(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "store::disk::tests::what_was_acknowledged_survives_a_kill"])
        .env(KILLED, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Puts sessions from several tasks, and says which were acknowledged, until it is killed.
fn put_until_killed(directory: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = DiskStore::open(directory, Clock::system(), runtime.handle().clone()).unwrap();
    let store = Arc::new(store);
    let first = usize::try_from(std::process::id()).unwrap() * 1_000_000;
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let store = Arc::clone(&store);
        let putting = async move {
            for n in (first + task..first + 1_000_000).step_by(8) {
                store.put(record(n), HOUR).await.unwrap();
                assert!(store.put_once(key(n), HOUR).await.unwrap());
                println!("\nacknowledged {n}.");
            }
        };
        tasks.spawn_on(putting, runtime.handle());
    }
    // Ends by itself if it is forgotten, and with it the wait of the one who reads its output.
    let _late =
        runtime.block_on(async { tokio::time::timeout(Duration::from_mins(1), tasks.join_all()).await });
}

/// Lets it put some sessions, kills it while it puts more, and says which it acknowledged.
fn kill_at_a_random_moment(child: &mut Child, directory: &Path) -> Vec<usize> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    // Two lines each, after a few of the test harness's own.
    let enough = 40 + usize::from(random_bytes::<1>().unwrap()[0]);
    let mut lines = String::new();
    for _ in 0..enough {
        assert!(0 < output.read_line(&mut lines).unwrap(), "it ended by itself: {lines}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let while_it_lives = DiskStore::open(directory, Clock::system(), runtime.handle().clone());
    assert!(matches!(while_it_lives, Err(OpenError::InUse { .. })), "{while_it_lives:?}");
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    output.read_to_string(&mut lines).unwrap();
    let acknowledged: Vec<_> = lines
        .lines()
        .filter_map(|line| line.strip_prefix("acknowledged ")?.strip_suffix('.')?.parse().ok())
        .collect();
    assert!(10 < acknowledged.len(), "{lines}");
    acknowledged
}

/// A disk that fails on command.
#[derive(Debug, Default)]
struct Disk {
    ailment: Mutex<Ailment>,
    /// Up to where anything was written yet.
    written: AtomicU64,
    reads: AtomicUsize,
    syncs: AtomicUsize,
    /// While this is set, a sync does not come back.
    hangs: Mutex<bool>,
    hangs_no_more: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ailment {
    #[default]
    None,
    /// The file can't grow.
    NoSpaceToGrow,
    /// The file has grown, but what was not written before can't be.
    NoSpaceToWrite,
    OneSyncFails,
    OneReadFails,
    EverythingFails,
}

impl Disk {
    fn catch(&self, ailment: Ailment) {
        *self.ailment.lock().unwrap() = ailment;
    }

    fn fail(&self, kind: io::ErrorKind, on: impl Fn(Ailment) -> bool) -> io::Result<()> {
        let mut ailment = self.ailment.lock().unwrap();
        if !on(*ailment) && *ailment != Ailment::EverythingFails {
            return Ok(());
        }
        if matches!(*ailment, Ailment::OneSyncFails | Ailment::OneReadFails) {
            *ailment = Ailment::None;
        }
        Err(kind.into())
    }

    fn hang(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
        self.hangs_no_more.notify_all();
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        // Not for ever: a test that fails while the disk hangs still has to drop its store.
        let (hangs, limit) = (self.hangs.lock().unwrap(), Duration::from_secs(20));
        drop(self.hangs_no_more.wait_timeout_while(hangs, limit, |hangs| *hangs).unwrap());
        self.fail(io::ErrorKind::Other, |ailment| ailment == Ailment::OneSyncFails)
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    fn syncs(&self) -> usize {
        self.syncs.load(Ordering::SeqCst)
    }
}

/// A file on such a disk.
#[derive(Debug)]
struct Medium {
    file: FileBackend,
    disk: Arc<Disk>,
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.reads.fetch_add(1, Ordering::SeqCst);
        self.disk.fail(io::ErrorKind::Other, |ailment| ailment == Ailment::OneReadFails)?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let grows = self.file.len()? < len;
        let fails = |ailment| ailment == Ailment::NoSpaceToGrow && grows;
        self.disk.fail(io::ErrorKind::StorageFull, fails)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + u64::try_from(data.len()).unwrap();
        let is_new = self.disk.written.load(Ordering::SeqCst) < end;
        let fails = |ailment| ailment == Ailment::NoSpaceToWrite && is_new;
        self.disk.fail(io::ErrorKind::StorageFull, fails)?;
        self.disk.written.fetch_max(end, Ordering::SeqCst);
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A store on such a disk, in `directory`, without a cache that could answer for the disk.
fn store_on(disk: &Arc<Disk>, directory: &Path, pace: Pace) -> (DiskStore, Clock) {
    drop(open(directory).unwrap());
    let (disk, path) = (Arc::clone(disk), directory.join("sessions.redb"));
    disk.written.store(fs::metadata(&path).unwrap().len(), Ordering::SeqCst);
    let reopen = move || {
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let medium = Medium { file: FileBackend::new(file).unwrap(), disk: Arc::clone(&disk) };
        let database = Builder::new().set_cache_size(0).create_with_backend(medium);
        database.map_err(|error| OpenError::Damaged { path: path.clone(), detail: error.to_string() })
    };
    let clock = Clock::manual(START);
    let slot = Slot::new(reopen().unwrap(), Box::new(reopen), pace.rest);
    (DiskStore::start(slot, clock.clone(), Handle::current(), pace).unwrap(), clock)
}

fn large(n: usize) -> Record {
    Record { payload: Bytes::from(vec![b'l'; 3 << 20]), ..record(n) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_answers_reads_and_recovers() {
    for ailment in [Ailment::NoSpaceToGrow, Ailment::NoSpaceToWrite] {
        let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
        let (store, _) = store_on(&disk, directory.path(), Pace { rest: Duration::ZERO, ..QUICK });
        put_all(&store, 50).await;
        disk.catch(ailment);
        for round in 0..3 {
            let error = store.put(large(100), HOUR).await.unwrap_err();
            assert!(error.to_string().starts_with("the session store is unavailable: "), "{error}");
            for n in 0..50 {
                assert!(holds(&store, n).await, "{ailment:?}, round {round}: {n}");
            }
            assert_eq!(store.get(key(100)).await.unwrap(), None, "{ailment:?}, round {round}");
        }
        disk.catch(Ailment::None);
        store.put(large(100), HOUR).await.unwrap();
        assert!(store.get(key(100)).await.unwrap().is_some());
        drop(store);
        let store = open(directory.path()).unwrap();
        for n in 0..50 {
            assert!(holds(&store, n).await, "{ailment:?}, after a restart: {n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_error_of_the_disk_does_not_end_the_store() {
    for ailment in [Ailment::OneSyncFails, Ailment::OneReadFails] {
        let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
        let pace = Pace { idle: HOUR, rest: Duration::ZERO, ..QUICK };
        let (store, _) = store_on(&disk, directory.path(), pace);
        put_all(&store, 50).await;
        disk.catch(ailment);
        if ailment == Ailment::OneSyncFails {
            store.put(record(60), HOUR).await.unwrap_err();
            store.put(record(61), HOUR).await.unwrap();
        }
        for n in 0..50 {
            assert!(holds(&store, n).await, "{ailment:?}: {n}");
        }
        assert_eq!(*disk.ailment.lock().unwrap(), Ailment::None, "it did fail");
        store.put(record(62), HOUR).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failure_writes_rest_and_reads_do_not() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (store, _) = store_on(&disk, directory.path(), Pace { rest: HOUR, ..QUICK });
    store.put(record(1), HOUR).await.unwrap();
    disk.catch(Ailment::OneSyncFails);
    store.put(record(2), HOUR).await.unwrap_err();
    let before = disk.syncs();
    let error = store.put(record(3), HOUR).await.unwrap_err();
    assert_eq!(error.to_string(), "the session store is unavailable: a write failed a moment ago");
    assert_eq!(disk.syncs(), before, "the disk was left alone");
    assert!(holds(&store, 1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_disk_is_an_outage_and_never_an_absence() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (store, _) = store_on(&disk, directory.path(), QUICK);
    store.put(record(1), HOUR).await.unwrap();
    disk.catch(Ailment::EverythingFails);
    for round in 0..3 {
        store.put(record(2), HOUR).await.unwrap_err();
        store.get(key(1)).await.unwrap_err();
        store.find_by(index(1)).await.unwrap_err();
        store.is_marked(key(1)).await.unwrap_err();
        store.put_once(key(1), HOUR).await.unwrap_err();
        store.list(None, 1).await.unwrap_err();
        let error = store.ping().await.unwrap_err();
        assert!(error.to_string().starts_with("the session store is unavailable: "), "{round}: {error}");
    }
    disk.catch(Ailment::None);
    until("reads again", async || store.get(key(1)).await.is_ok()).await;
    assert!(holds(&store, 1).await);
    until("writes again", async || store.ping().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_its_transaction_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    store.put(record(1), HOUR).await.unwrap();
    let planted = store.write::<(), _>(|tables, now| {
        tables.store(&record(2), 1, now + HOUR)?;
        panic!("planted in a write");
    });
    let error = planted.await.unwrap_err();
    assert_eq!(error.to_string(), "the session store is unavailable: a change to the database panicked");
    store.read::<(), _>(|_, _| panic!("planted in a read")).await.unwrap_err();
    assert!(holds(&store, 1).await);
    until("writes again", async || store.put(record(3), HOUR).await.is_ok()).await;
    assert_eq!(store.get(key(2)).await.unwrap(), None, "what the panic interrupted was not written");
    drop(store);
    assert!(holds(&open(directory.path()).unwrap(), 3).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_wait_share_one_commit() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (store, _) = store_on(&disk, directory.path(), Pace { idle: HOUR, ..QUICK });
    let before = disk.syncs();
    store.put(record(0), HOUR).await.unwrap();
    let of_one = disk.syncs() - before;
    disk.hang(true);
    let mut puts: Vec<_> = (1..100).map(|n| store.put(record(n), HOUR)).collect();
    assert!(futures::poll!(&mut puts[0]).is_pending());
    until("the first is being written", async || before + of_one < disk.syncs()).await;
    for put in &mut puts[1..] {
        assert!(futures::poll!(put).is_pending());
    }
    disk.hang(false);
    for result in futures::future::join_all(puts).await {
        result.unwrap();
    }
    assert_eq!(disk.syncs() - before, of_one * 3, "one for the first, one for all the others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_callers_than_places_are_all_served() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let marks = (0..WAITING_WRITES + 500).map(|n| store.put_once(key(n), HOUR));
    for won in futures::future::join_all(marks).await {
        assert!(won.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_is_an_outage_after_the_deadline() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let pace = Pace { deadline: Duration::from_millis(50), ..QUICK };
    let (store, _) = store_on(&disk, directory.path(), pace);
    disk.hang(true);
    let error = store.put(record(1), HOUR).await.unwrap_err();
    assert_eq!(error.to_string(), "the session store is unavailable: the disk does not answer");
    disk.hang(false);
    let is_there = async || store.get(key(1)).await.is_ok_and(|stored| stored.is_some());
    until("the write was not undone", is_there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_when_the_store_is_dropped_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let mut puts: Vec<_> = (0..20).map(|n| store.put(record(n), HOUR)).collect();
    for put in &mut puts {
        let _either_way = futures::poll!(put);
    }
    drop(puts);
    drop(store);
    let store = open(directory.path()).unwrap();
    for n in 0..20 {
        assert!(holds(&store, n).await, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_ended_is_swept_while_nothing_is_written() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (store, clock) = store_on(&disk, directory.path(), QUICK);
    put_all(&store, 300).await;
    store.put(record(999), HOUR * 2).await.unwrap();
    clock.advance(HOUR);
    let of_one_record = 3;
    until("all but one are swept", async || store.rows() == of_one_record).await;
    assert!(holds(&store, 999).await);
    let (looks, syncs) = (disk.reads(), disk.syncs());
    until("the writer looks for more", async || looks + 300 < disk.reads()).await;
    assert_eq!(disk.syncs(), syncs, "finding nothing it writes nothing");
}

#[tokio::test]
async fn a_runtime_that_is_gone_is_an_outage() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = DiskStore::open(directory.path(), Clock::manual(START), runtime.handle().clone()).unwrap();
    store.put(record(1), HOUR).await.unwrap();
    runtime.shutdown_background();
    store.get(key(1)).await.unwrap_err();
    store.put(record(2), HOUR).await.unwrap();
}
