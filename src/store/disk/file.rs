//! The file of the database: made once, opened with care, and never made again over one that is there.

use std::fmt::Display;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, Error, ReadableDatabase as _, TableError};

use super::tables::{FORMAT, META, Tables};

const NAME: &str = "sessions.redb";

/// The page cache's bound. Ready sessions have a cache of their own, so this one need only hold the
/// upper pages of the tables.
const CACHE_BYTES: usize = 64 << 20;

/// A file up to this size is read whole and its checksums compared when the store opens, which takes
/// about half a second; a larger one is trusted, and damage shows when it is read.
const CHECKED_UP_TO_BYTES: u64 = 256 << 20;

/// Why the store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the file can't be made, read or written.
    #[error("{path}: {source}")]
    Unusable {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open, or this one has it open twice.
    #[error("{path}: in use by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is cut off, altered, or something else.
    #[error("{path}: damaged, or not a session store ({detail}); move it away to start with an empty one")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// It was written by a program that is newer than this one.
    #[error("{path}: written by a newer version (format {found}, this one knows {FORMAT})")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The system gives no thread to write with.
    #[error("can't start the store's writer: {0}")]
    Thread(#[source] io::Error),
}

/// Where the database is.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// Opens the database in `data_dir`; makes both if they are not there.
pub(super) fn open_or_create(data_dir: &Path) -> Result<Database, OpenError> {
    let path = path(data_dir);
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(unusable(data_dir))?;
    if !path.try_exists().map_err(unusable(&path))? {
        create(data_dir, &path)?;
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(unusable(&path))?;
    let size = fs::metadata(&path).map_err(unusable(&path))?.len();
    open(&path, size <= CHECKED_UP_TO_BYTES)
}

/// Opens the database that is there; with `check`, after all of it was read.
pub(super) fn open(path: &Path, check: bool) -> Result<Database, OpenError> {
    guarded(path, || {
        let database = builder().set_check_integrity_on_open(check).open(path);
        let database = database.map_err(|error| refused(path, error.into()))?;
        check_format(path, &database)?;
        Ok(database)
    })
}

/// Makes the file under another name and moves it to its own when it is whole: whatever stands under
/// its own name was whole once, and an empty file there is damage, not a beginning.
fn create(data_dir: &Path, path: &Path) -> Result<(), OpenError> {
    let unusable_here = unusable(data_dir);
    let directory = File::open(data_dir).map_err(unusable(data_dir))?;
    // Two processes that start at once must not move two files to one name. Where the file system
    // has no such locks there is no more to be done than that.
    if let Err(TryLockError::WouldBlock) = directory.try_lock() {
        return Err(OpenError::InUse { path: data_dir.to_owned() });
    }
    if path.try_exists().map_err(unusable(path))? {
        return Ok(());
    }
    let draft = data_dir.join(format!("{NAME}.new"));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&draft);
    let file = file.map_err(unusable(&draft))?;
    guarded(&draft, || initialize(file).map_err(|error| refused(&draft, error)))?;
    fs::rename(&draft, path).and_then(|()| directory.sync_all()).map_err(unusable_here)
}

fn initialize(file: File) -> Result<(), Error> {
    let database = builder().create_with_backend(FileBackend::new(file)?)?;
    let transaction = database.begin_write()?;
    Tables::open(&transaction)?.stamp()?;
    transaction.commit()?;
    Ok(database.close()?)
}

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn check_format(path: &Path, database: &Database) -> Result<(), OpenError> {
    match read_format(database).map_err(|error| refused(path, error))? {
        Some(FORMAT) => Ok(()),
        Some(found) if FORMAT < found => Err(OpenError::Newer { path: path.to_owned(), found }),
        Some(found) => Err(damaged(path, &format_args!("format {found}"))),
        None => Err(damaged(path, &"another program's database")),
    }
}

fn read_format(database: &Database) -> Result<Option<u64>, Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get("format")?.map(|format| format.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The database's code may panic over a file that was altered behind its back.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_panic| Err(damaged(path, &"reading it panicked")))
}

fn refused(path: &Path, error: Error) -> OpenError {
    if matches!(error, Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch) {
        return OpenError::InUse { path: path.to_owned() };
    }
    if let Error::Io(source) = error {
        return if is_about_content(&source) { damaged(path, &source) } else { unusable(path)(source) };
    }
    damaged(path, &error)
}

/// Whether the database says by this that a file is cut off or none of its own.
fn is_about_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn damaged(path: &Path, detail: &dyn Display) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), detail: detail.to_string() }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Unusable { path, source }
}
