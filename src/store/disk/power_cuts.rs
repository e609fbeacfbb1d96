//! Power cuts: what of the writes since the last sync has reached the disk is anybody's guess, and
//! whatever it is, the store opens to what was acknowledged.
//!
//! The writes that the database makes are recorded while a store is used. Then power is cut at moments
//! all over the record: on the disk is everything up to the last sync, and of what came after it some
//! writes whole, some in part (by sectors), some not at all, in any order. What opens must be what a
//! store in memory held after some number of the operations: all that were acknowledged, perhaps some
//! that were under way, and none of them by half.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Builder, StorageBackend};
use tokio::runtime::Handle;

use super::slot::Slot;
use super::writer::Pace;
use super::{DiskStore, file};
use crate::clock::{Clock, UnixTime};
use crate::store::memory::MemoryStore;
use crate::store::{Index, Page, Record, SessionStore, StoreKey};

const START: UnixTime = UnixTime::from_secs(1_000_000);
const HOUR: Duration = Duration::from_hours(1);
const PACE: Pace =
    Pace { idle: Duration::from_hours(1), rest: Duration::ZERO, deadline: Duration::from_mins(1) };
/// Keys that operations use.
const KEYS: u64 = 12;
const OPERATIONS: u64 = 60;
const CUTS: u64 = 150;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Step {
    Write { at: usize, data: Vec<u8> },
    Resize(usize),
    Sync,
}

type Journal = Arc<Mutex<Vec<Step>>>;

/// A file whose writes are noted.
#[derive(Debug)]
struct Recorder {
    file: FileBackend,
    journal: Journal,
}

impl Recorder {
    fn note(&self, step: Step) {
        self.journal.lock().unwrap().push(step);
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(Step::Resize(usize::try_from(len).unwrap()));
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Noted when it is over: until then nothing is promised.
        let synced = self.file.sync_data();
        self.note(Step::Sync);
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(Step::Write { at: usize::try_from(offset).unwrap(), data: data.to_vec() });
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// Numbers in no order, the same in each run.
struct Dice(u64);

impl Dice {
    /// SplitMix64.
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

fn key(n: u64) -> StoreKey {
    StoreKey::derive("test", &[&n.to_be_bytes()])
}

fn index(n: u64) -> Index {
    Index::of_sub("https://op.test", &n.to_string())
}

fn record(n: u64, content: u64) -> Record {
    let payload = vec![u8::try_from(content % 251).unwrap(); 500 + usize::try_from(content * 97).unwrap()];
    Record { key: key(n), indexes: vec![index(n % 3), index(100 + n)], payload: Bytes::from(payload) }
}

/// The `number`th operation: the same on any store.
async fn operate(store: &dyn SessionStore, number: u64) {
    let mut dice = Dice(number);
    let n = dice.roll(KEYS);
    match dice.roll(10) {
        0 => drop(store.remove(key(n)).await.unwrap()),
        1 => drop(store.remove_by(index(n % 3), None).await.unwrap()),
        2 => drop(store.put_once(key(n), HOUR).await.unwrap()),
        3 => drop(store.lease(key(n), HOUR).await.unwrap()),
        4 | 5 => {
            let version = store.get(key(n)).await.unwrap().map_or(1, |stored| stored.version);
            store.replace(record(n, number), HOUR, version, None).await.unwrap();
        }
        _ => store.put(record(n, number), HOUR).await.unwrap(),
    }
}

/// Everything that a store tells, and can be compared.
#[derive(Debug, PartialEq)]
struct State {
    records: Page,
    indexed: Vec<Vec<(StoreKey, u64)>>,
    marked: Vec<bool>,
}

impl State {
    async fn of(store: &dyn SessionStore) -> Self {
        let (mut indexed, mut marked) = (Vec::new(), Vec::new());
        for n in 0..KEYS {
            for index in [index(n % 3), index(100 + n)] {
                let mut under = store.find_by(index).await.unwrap();
                under.sort_unstable();
                indexed.push(under);
            }
            marked.push(store.is_marked(key(n)).await.unwrap());
        }
        Self { records: store.list(None, 1000).await.unwrap(), indexed, marked }
    }
}

/// What happened: the file before, every step of the disk, and after how many steps each operation
/// began and was acknowledged.
struct History {
    before: Vec<u8>,
    steps: Vec<Step>,
    spans: Vec<(usize, usize)>,
    /// After none of the operations, after the first, and so on.
    states: Vec<State>,
}

async fn record_history(directory: &Path) -> History {
    drop(DiskStore::open(directory, Clock::manual(START), Handle::current()).unwrap());
    let path = file::path(directory);
    let before = fs::read(&path).unwrap();
    let (journal, spans) = (Journal::default(), Mutex::new(Vec::new()));
    let disk = store_on(&path, &journal);
    let model = MemoryStore::new(Clock::manual(START));
    let mut states = vec![State::of(&model).await];
    for number in 0..OPERATIONS {
        let began = journal.lock().unwrap().len();
        operate(&disk, number).await;
        spans.lock().unwrap().push((began, journal.lock().unwrap().len()));
        operate(&model, number).await;
        states.push(State::of(&model).await);
    }
    assert_eq!(State::of(&disk).await, *states.last().unwrap());
    drop(disk);
    let steps = journal.lock().unwrap().clone();
    History { before, steps, spans: spans.into_inner().unwrap(), states }
}

fn store_on(path: &Path, journal: &Journal) -> DiskStore {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let recorder = Recorder { file: FileBackend::new(file).unwrap(), journal: Arc::clone(journal) };
    let database = Builder::new().create_with_backend(recorder).unwrap();
    start(Slot::new(database, Box::new(|| unreachable!("this disk does not fail")), PACE.rest))
}

fn start(slot: Slot) -> DiskStore {
    DiskStore::start(slot, Clock::manual(START), Handle::current(), PACE).unwrap()
}

/// The file after a power cut behind the first `moment` steps.
fn image(history: &History, moment: usize, dice: &mut Dice) -> Vec<u8> {
    let steps = &history.steps[..moment];
    let synced = steps.iter().rposition(|step| matches!(step, Step::Sync)).map_or(0, |last| last + 1);
    let mut image = history.before.clone();
    for step in &steps[..synced] {
        apply(&mut image, step, |_| true);
    }
    let mut pending: Vec<_> = steps[synced..].iter().collect();
    // Often nothing or all of it got through; in between anything.
    let through = [0, 20, 50, 80, 100][usize::try_from(dice.roll(5)).unwrap()];
    while !pending.is_empty() {
        let step = pending.swap_remove(usize::try_from(dice.roll(pending.len() as u64)).unwrap());
        let torn = dice.roll(3) == 0;
        let whole = dice.roll(100) < through;
        apply(&mut image, step, |_| if torn { dice.roll(2) == 0 } else { whole });
    }
    image
}

/// Applies those sectors of a step that `gets_through`.
fn apply(image: &mut Vec<u8>, step: &Step, mut gets_through: impl FnMut(usize) -> bool) {
    match step {
        Step::Sync => {}
        Step::Resize(len) => {
            if gets_through(0) {
                image.resize(*len, 0);
            }
        }
        Step::Write { at, data } => {
            for (number, sector) in data.chunks(SECTOR).enumerate() {
                if gets_through(number) {
                    let at = at + number * SECTOR;
                    image.resize(image.len().max(at + sector.len()), 0);
                    image[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
    }
}

/// Opens a file as it was left, with or without reading all of it first.
async fn opened(path: &Path, check: bool) -> State {
    let database = file::open(path, check).unwrap_or_else(|error| panic!("check {check}: {error}"));
    let store = start(Slot::new(database, Box::new(|| unreachable!("this disk does not fail")), PACE.rest));
    let state = State::of(&store).await;
    store.ping().await.unwrap();
    state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_of_the_unsynced_writes_a_power_cut_leaves_what_was_acknowledged_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let history = record_history(directory.path()).await;
    let (path, mut dice) = (file::path(directory.path()), Dice(7));
    let (mut in_flight, mut pending) = (0, 0);
    for cut in 0..CUTS {
        let moment = usize::try_from(dice.roll(history.steps.len() as u64 + 1)).unwrap();
        fs::write(&path, image(&history, moment, &mut dice)).unwrap();
        let acknowledged = history.spans.iter().filter(|(_, end)| *end <= moment).count();
        let begun = history.spans.iter().filter(|(begin, _)| *begin <= moment).count();
        let state = opened(&path, cut % 2 == 0).await;
        let fits = history.states[acknowledged..=begun].contains(&state);
        assert!(fits, "cut {cut} at step {moment}: not a state after {acknowledged} to {begun} operations");
        in_flight += usize::from(state != history.states[acknowledged]);
        pending += usize::from(moment > 0 && !matches!(history.steps[moment - 1], Step::Sync));
    }
    assert!(0 < in_flight, "no cut came between a commit and its acknowledgement");
    assert!(u64::try_from(pending).unwrap() > CUTS / 2, "the cuts come between syncs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_loses_what_it_said_it_had_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let history = record_history(directory.path()).await;
    let path = file::path(directory.path());
    // Every write but one tenth of them, syncs or not: no store can live with that.
    let (mut dice, mut refused) = (Dice(11), 0);
    for _ in 0..20 {
        let mut image = history.before.clone();
        for step in &history.steps {
            let lost = dice.roll(10) == 0;
            apply(&mut image, step, |_| !lost);
        }
        fs::write(&path, image).unwrap();
        match file::open(&path, true) {
            Err(error) => {
                assert!(error.to_string().contains("damaged"), "{error}");
                refused += 1;
            }
            Ok(database) => database.close().unwrap(),
        }
    }
    assert!(10 < refused, "only {refused} of 20 were found out");
}
