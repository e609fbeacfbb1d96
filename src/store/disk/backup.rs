//! A copy of the store, made while it is used.
//!
//! A file under a database changes while it is read, so that copying it gives no backup. Here a read
//! transaction holds the store as it was at one moment, and the same table code writes what it sees
//! into a new database. Writers go on meanwhile; the copy yields to them and gives up when it takes
//! too long, because what they free stays in the file as long as the transaction holds it.
//!
//! There is at most one copy and one draft: a copy appears under its name when it is whole, on the
//! disk, and was opened and counted.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{
    Database, Error, Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition,
    Value,
};

use super::file::{self, OpenError};
use super::tables::{BY_INDEX, ENDS, LEASES, MARKS, META, RECORDS, Snapshot};
use crate::secret::create_private;
use crate::store::StoreError;

/// The folder of the copy, in `data_dir`.
const FOLDER: &str = "backup";

/// In what stat(2) counts: a database's file has holes, so that its length is not what it takes.
const BLOCK: u64 = 512;

/// What a copy may cost others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// So long is written at a time, in one transaction; then the disk and the processor are left to
    /// others for half of the time that it took.
    slice: Duration,
    /// After so long the copy is given up.
    limit: Duration,
}

/// A million sessions take about a minute.
pub(super) const EFFORT: Effort = Effort { slice: Duration::from_millis(50), limit: Duration::from_mins(30) };

/// A copy that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Where it is.
    pub file: PathBuf,
    /// The sessions in it, those among them that have ended and are not swept yet.
    pub sessions: u64,
    /// What it takes of the disk.
    pub bytes: u64,
}

/// Why there is no copy. What was there before is there still.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// One at a time.
    #[error("another backup is being made")]
    Busy,
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy's folder or file can't be made.
    #[error("{path}: {source}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The copy can't be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: Box<Error>,
    },
    /// What was written can't be opened.
    #[error("the backup can't be opened: {0}")]
    Unsound(#[from] OpenError),
    /// What was written is not what was read.
    #[error("the backup holds {found} sessions where the store had {wanted}")]
    Short {
        /// Sessions in the copy.
        found: u64,
        /// Sessions in the store.
        wanted: u64,
    },
    /// Nobody waits for it any more, or the store is being closed.
    #[error("the backup was given up")]
    Abandoned,
    /// The disk is too slow, or there is too much.
    #[error("the backup took longer than {} minutes", EFFORT.limit.as_secs() / 60)]
    Late,
}

/// Where the copy of the store in `data_dir` is made.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    file::path(&data_dir.join(FOLDER))
}

/// Whoever waits for a copy; when this is dropped the copy is given up.
#[derive(Debug, Default)]
pub(super) struct Customer(Arc<AtomicBool>);

impl Customer {
    pub(super) fn gone(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Customer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes what `source` sees to the copy's place in `data_dir`. Blocks.
pub(super) fn write(
    source: &ReadTransaction,
    data_dir: &Path,
    gone: &AtomicBool,
    effort: Effort,
) -> Result<Backup, BackupError> {
    let place = path(data_dir);
    let draft = place.with_extension("redb.new");
    make_folder(data_dir)?;
    let made = write_draft(source, &draft, gone, effort).and_then(|sessions| {
        let finished = give_to_owner_of(data_dir, &draft).and_then(|()| publish(&draft, &place));
        let bytes = finished.map_err(unusable(&place))?;
        Ok(Backup { file: place, sessions, bytes })
    });
    if made.is_err() {
        // A part of a copy is of no use, and may be what has filled the disk.
        let _never_made = fs::remove_file(&draft);
    }
    made
}

fn make_folder(data_dir: &Path) -> Result<(), BackupError> {
    let folder = data_dir.join(FOLDER);
    match DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => give_to_owner_of(data_dir, &folder).map_err(unusable(&folder)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unusable(&folder)(error)),
    }
}

/// Where root makes a backup, the gateway has to be able to make the next one.
fn give_to_owner_of(data_dir: &Path, path: &Path) -> io::Result<()> {
    let (owner, present) = (fs::metadata(data_dir)?, fs::metadata(path)?);
    if (owner.uid(), owner.gid()) == (present.uid(), present.gid()) {
        return Ok(());
    }
    chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// Gives the draft its name, for good; says how large it is.
fn publish(draft: &Path, place: &Path) -> io::Result<u64> {
    let bytes = fs::metadata(draft)?.blocks() * BLOCK;
    fs::rename(draft, place)?;
    if let Some(folder) = place.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(bytes)
}

fn write_draft(
    source: &ReadTransaction,
    draft: &Path,
    gone: &AtomicBool,
    effort: Effort,
) -> Result<u64, BackupError> {
    let file = create_private(draft).map_err(unusable(draft))?;
    let wrong = wrong(draft);
    let backend = FileBackend::new(file).map_err(|error| wrong(error.into()))?;
    let target = file::builder().create_with_backend(backend).map_err(|error| wrong(error.into()))?;
    let copy = Copy { source, target, draft, gone, effort, until: Instant::now() + effort.limit };
    let wanted = copy.all()?;
    let found = count(draft)?;
    if found == wanted { Ok(found) } else { Err(BackupError::Short { found, wanted }) }
}

/// How many sessions a file holds, all of which is read and compared with its checksums.
fn count(path: &Path) -> Result<u64, BackupError> {
    let database = file::open(path, true)?;
    let counted = database.begin_read().map_err(Error::from).and_then(|seen| Snapshot(&seen).records());
    let counted = counted.map_err(wrong(path))?;
    database.close().map_err(|error| wrong(path)(error.into()))?;
    Ok(counted)
}

struct Copy<'a> {
    source: &'a ReadTransaction,
    target: Database,
    draft: &'a Path,
    gone: &'a AtomicBool,
    effort: Effort,
    until: Instant,
}

impl Copy<'_> {
    /// Copies every table; says how many sessions there are.
    fn all(self) -> Result<u64, BackupError> {
        let sessions = self.table(RECORDS)?;
        self.table(BY_INDEX)?;
        self.table(MARKS)?;
        self.table(LEASES)?;
        self.table(ENDS)?;
        // Last: without its format a file is none of ours.
        self.table(META)?;
        self.target.close().map_err(|error| wrong(self.draft)(error.into()))?;
        Ok(sessions)
    }

    /// Copies one table, a slice at a time; says how many rows it has.
    fn table<K: Key, V: Value>(&self, definition: TableDefinition<'_, K, V>) -> Result<u64, BackupError> {
        let table = self.source.open_table(definition).map_err(|error| unread(error.into()))?;
        let mut rows = table.iter().map_err(|error| unread(error.into()))?;
        let mut copied = 0;
        loop {
            let began = Instant::now();
            let more = self.slice(definition, &mut rows, began, &mut copied)?;
            self.rest(began.elapsed())?;
            if !more {
                return Ok(copied);
            }
        }
    }

    /// Copies rows for a while; says whether there may be more.
    fn slice<K: Key, V: Value>(
        &self,
        definition: TableDefinition<'_, K, V>,
        rows: &mut redb::Range<'_, K, V>,
        began: Instant,
        copied: &mut u64,
    ) -> Result<bool, BackupError> {
        let wrong = wrong(self.draft);
        // Without the allocator's state in each commit: a draft that a crash leaves is thrown away.
        let transaction = self.target.begin_write().map_err(|error| wrong(error.into()))?;
        let mut more = false;
        {
            let mut into = transaction.open_table(definition).map_err(|error| wrong(error.into()))?;
            for row in rows {
                let row = row.map_err(|error| unread(error.into()))?;
                insert(&mut into, &row).map_err(&wrong)?;
                *copied += 1;
                if self.effort.slice <= began.elapsed() {
                    more = true;
                    break;
                }
            }
        }
        transaction.commit().map_err(|error| wrong(error.into()))?;
        Ok(more)
    }

    fn rest(&self, worked: Duration) -> Result<(), BackupError> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(BackupError::Abandoned);
        }
        if self.until < Instant::now() {
            return Err(BackupError::Late);
        }
        thread::sleep(worked / 2);
        Ok(())
    }
}

type Row<'a, K, V> = (redb::AccessGuard<'a, K>, redb::AccessGuard<'a, V>);

fn insert<K: Key, V: Value>(into: &mut Table<'_, K, V>, (key, value): &Row<'_, K, V>) -> Result<(), Error> {
    into.insert(key.value(), value.value())?;
    Ok(())
}

fn unread(error: Error) -> BackupError {
    if matches!(error, Error::DatabaseClosed) {
        return BackupError::Abandoned;
    }
    StoreError::caused_by("the database failed", error).into()
}

fn wrong(path: &Path) -> impl Fn(Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Write { path: path.clone(), source: Box::new(source) }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Unusable { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use bytes::Bytes;
    use tempfile::TempDir;
    use tokio::runtime::Handle;

    use super::*;
    use crate::clock::{Clock, UnixTime};
    use crate::store::disk::DiskStore;
    use crate::store::{Index, Record, SessionStore as _, StoreKey};

    const HOUR: Duration = Duration::from_hours(1);
    const QUICK: Effort = Effort { slice: Duration::ZERO, limit: HOUR };

    fn open(directory: &Path) -> DiskStore {
        DiskStore::open(directory, Clock::manual(UnixTime::from_secs(1_000)), Handle::current()).unwrap()
    }

    fn record(n: usize) -> Record {
        let key = StoreKey::derive("test", &[&n.to_be_bytes()]);
        Record { key, indexes: vec![index(n)], payload: Bytes::from(vec![b's'; 2000]) }
    }

    fn index(n: usize) -> Index {
        Index::of_sub("https://op.test", &n.to_string())
    }

    async fn put(store: &DiskStore, numbers: std::ops::Range<usize>) {
        let puts = numbers.map(|n| store.put(record(n), HOUR));
        futures::future::try_join_all(puts).await.unwrap();
    }

    async fn filled() -> (TempDir, DiskStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        put(&store, 0..100).await;
        (folder, store)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Copies what `store` holds now, with this effort.
    fn copy(store: &DiskStore, folder: &TempDir, gone: bool, effort: Effort) -> Result<Backup, BackupError> {
        write(&store.slot.snapshot().unwrap(), folder.path(), &AtomicBool::new(gone), effort)
    }

    #[tokio::test]
    async fn a_backup_holds_everything_and_is_a_store_itself() {
        let (folder, store) = filled().await;
        store.mark(StoreKey([1; 32]), HOUR).await.unwrap();
        let lease = store.lease(StoreKey([2; 32]), HOUR).await.unwrap().unwrap();
        let made = store.back_up(folder.path()).await.unwrap();
        assert_eq!(made.file, folder.path().join("backup/sessions.redb"));
        assert_eq!((made.sessions, made.bytes), (100, fs::metadata(&made.file).unwrap().blocks() * BLOCK));
        let copied = open(&folder.path().join("backup"));
        assert!(!copied.extend(&lease, HOUR).await.unwrap(), "whoever held it is gone");
        let of_a_lease = 2;
        assert_eq!(copied.rows(), store.rows() - of_a_lease);
        for n in 0..100 {
            assert_eq!(copied.get(record(n).key).await.unwrap(), store.get(record(n).key).await.unwrap());
            assert_eq!(copied.find_by(index(n)).await.unwrap(), [(record(n).key, 1)]);
        }
        assert!(copied.is_marked(StoreKey([1; 32])).await.unwrap());
        assert!(lease.fence < copied.lease(lease.key, HOUR).await.unwrap().unwrap().fence);
    }

    #[tokio::test]
    async fn a_backup_is_of_one_moment_while_others_write() {
        let (folder, store) = filled().await;
        let snapshot = store.slot.snapshot().unwrap();
        put(&store, 100..200).await;
        store.remove(record(0).key).await.unwrap();
        let made = write(&snapshot, folder.path(), &AtomicBool::new(false), QUICK).unwrap();
        assert_eq!(made.sessions, 100);
        let copied = open(&folder.path().join("backup"));
        assert!(copied.get(record(0).key).await.unwrap().is_some());
        assert_eq!(copied.get(record(150).key).await.unwrap(), None);
        assert_eq!(store.get(record(0).key).await.unwrap(), None, "and the store went on");
    }

    #[tokio::test]
    async fn a_backup_is_for_its_owner_only_and_there_is_one() {
        let (folder, store) = filled().await;
        for _ in 0..2 {
            store.back_up(folder.path()).await.unwrap();
        }
        let backups = folder.path().join("backup");
        assert_eq!(names(&backups), ["sessions.redb"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&backups), mode(&backups.join("sessions.redb"))), (0o700, 0o600));
    }

    #[tokio::test]
    async fn what_is_not_finished_leaves_nothing_and_keeps_the_older_one() {
        let (folder, store) = filled().await;
        store.back_up(folder.path()).await.unwrap();
        put(&store, 100..200).await;
        let closed = store.slot.snapshot().unwrap();
        let given_up = copy(&store, &folder, true, QUICK).unwrap_err();
        let late = copy(&store, &folder, false, Effort { limit: Duration::ZERO, ..QUICK }).unwrap_err();
        drop(store);
        let after_the_end = write(&closed, folder.path(), &AtomicBool::new(false), QUICK).unwrap_err();
        let cases = [
            (given_up, "the backup was given up"),
            (late, "the backup took longer than 30 minutes"),
            (after_the_end, "the backup was given up"),
        ];
        for (error, wanted) in cases {
            assert_eq!(error.to_string(), wanted);
        }
        assert_eq!(names(&folder.path().join("backup")), ["sessions.redb"]);
        assert_eq!(count(&path(folder.path())).unwrap(), 100);
    }

    #[tokio::test]
    async fn one_backup_is_made_at_a_time() {
        let (folder, store) = filled().await;
        let mut first = Box::pin(store.back_up(folder.path()));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(matches!(store.back_up(folder.path()).await.unwrap_err(), BackupError::Busy));
        first.await.unwrap();
        store.back_up(folder.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_ends_the_backup() {
        let (folder, store) = filled().await;
        put(&store, 100..2000).await;
        let mut first = Box::pin(store.back_up(folder.path()));
        assert!(futures::poll!(&mut first).is_pending());
        drop(first);
        let deadline = Instant::now() + Duration::from_secs(20);
        while store.backups.available_permits() == 0 {
            assert!(Instant::now() < deadline, "it goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let left = names(&folder.path().join("backup"));
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn a_backup_is_never_written_through_what_stands_in_its_place() {
        let (folder, store) = filled().await;
        let outside = folder.path().join("outside");
        fs::write(&outside, "of somebody else").unwrap();
        fs::create_dir(folder.path().join("backup")).unwrap();
        for name in ["sessions.redb", "sessions.redb.new"] {
            symlink(&outside, folder.path().join("backup").join(name)).unwrap();
        }
        let made = store.back_up(folder.path()).await.unwrap();
        assert!(fs::symlink_metadata(&made.file).unwrap().is_file());
        assert_eq!(fs::read_to_string(&outside).unwrap(), "of somebody else");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_told_by_its_name() {
        let (folder, store) = filled().await;
        fs::write(folder.path().join("backup"), "in the way").unwrap();
        let error = store.back_up(folder.path()).await.unwrap_err();
        assert!(error.to_string().contains("backup/sessions.redb.new: "), "{error}");
    }
}
