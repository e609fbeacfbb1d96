//! The session key that the gateway makes for itself where none is configured: `data_dir/session.key`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::random::{RandomError, random_bytes, random_token};
use crate::secret::Secret;
use crate::session::Key;
use crate::session::key_ring::KeyError;

/// The file's name in `data_dir`.
const FILE_NAME: &str = "session.key";
/// Many times a key; a file that is longer is something else.
const MAX_FILE_BYTES: u64 = 4096;

/// Where a key came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// It was in this file.
    Found(PathBuf),
    /// It was made and written to this file now.
    Made(PathBuf),
}

/// Why there is no session key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The directory can't be made.
    #[error("can't make the directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key can't be written.
    #[error("can't write the session key {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key can't be read.
    #[error("can't read the session key {}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Everybody on the machine may read or change it.
    #[error("others can read the session key {} (mode {mode:04o}); run `chmod 600` on it", path.display())]
    Exposed {
        /// Where.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds something else.
    #[error("the session key {} can't be used", path.display())]
    Malformed {
        /// Where.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// No entropy.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The key in `data_dir`, made if there is none. Of two that start at once, one makes it and both use it.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_or_create_key(data_dir: &Path) -> Result<(Key, KeyOrigin), KeyFileError> {
    let path = data_dir.join(FILE_NAME);
    if let Some(key) = load_key(&path)? {
        return Ok((key, KeyOrigin::Found(path)));
    }
    let made = create_key(data_dir, &path)?;
    // What is in the file counts, whoever wrote it.
    match load_key(&path)? {
        Some(key) if made => Ok((key, KeyOrigin::Made(path))),
        Some(key) => Ok((key, KeyOrigin::Found(path))),
        None => Err(KeyFileError::Read { path, source: ErrorKind::NotFound.into() }),
    }
}

fn load_key(path: &Path) -> Result<Option<Key>, KeyFileError> {
    let unreadable = |source| KeyFileError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    // The group may: where a volume is mounted with a group of its own, it is given these rights.
    if mode & 0o007 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    let read = file.take(MAX_FILE_BYTES).read_to_string(&mut text);
    let text = Secret::new(text);
    read.map_err(unreadable)?;
    Key::parse(&text).map(Some).map_err(|source| KeyFileError::Malformed { path: path.to_owned(), source })
}

/// Writes a new key; says whether this call did it. The file appears whole or not at all: it is
/// written under another name, and its own name is given to it only if nobody has it.
fn create_key(data_dir: &Path, path: &Path) -> Result<bool, KeyFileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    made.map_err(|source| KeyFileError::Directory { path: data_dir.to_owned(), source })?;
    let key = Key::from_bytes(random_bytes()?).to_text();
    let draft = data_dir.join(format!("{FILE_NAME}.{}", random_token::<16>()?));
    let linked = write_draft(&draft, &key).and_then(|()| std::fs::hard_link(&draft, path));
    // Without this the draft is left over: harmless, but a key nobody uses.
    let removed = std::fs::remove_file(&draft);
    let synced = || File::open(data_dir)?.sync_all();
    match linked.and(removed).and_then(|()| synced()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(KeyFileError::Write { path: path.to_owned(), source }),
    }
}

fn write_draft(path: &Path, key: &Secret<String>) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key.expose().as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_start_makes_a_key_and_the_second_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("state/portcullis");
        let path = data_dir.join(FILE_NAME);
        let (made, origin) = load_or_create_key(&data_dir).unwrap();
        assert_eq!(origin, KeyOrigin::Made(path.clone()));
        let (found, origin) = load_or_create_key(&data_dir).unwrap();
        assert_eq!(origin, KeyOrigin::Found(path.clone()));
        assert_eq!(made.to_text(), found.to_text());
        assert_eq!((mode(&path), mode(&data_dir)), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(&data_dir).unwrap().count(), 1, "no draft is left over");
    }

    #[test]
    fn of_many_that_start_at_once_one_makes_the_key_and_all_use_it() {
        let dir = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(8);
        let found = std::thread::scope(|scope| {
            let run = || {
                start.wait();
                load_or_create_key(dir.path()).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let made = found.iter().filter(|(_, origin)| matches!(origin, KeyOrigin::Made(_))).count();
        assert_eq!(made, 1);
        assert!(found.iter().all(|(key, _)| key.to_text() == found[0].0.to_text()));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create_key(dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        for (mode, refused) in [(0o600, false), (0o660, false), (0o604, true), (0o602, true), (0o644, true)] {
            set_mode(&path, mode);
            let result = load_or_create_key(dir.path());
            assert_eq!(matches!(result, Err(KeyFileError::Exposed { .. })), refused, "{mode:o}");
            assert_eq!(result.is_err(), refused, "{mode:o}");
        }
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_and_kept() {
        for text in ["", "hello\n", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(FILE_NAME);
            std::fs::write(&path, text).unwrap();
            set_mode(&path, 0o600);
            let result = load_or_create_key(dir.path());
            assert!(matches!(result, Err(KeyFileError::Malformed { .. })), "{text:?}: {result:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_told_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a-file");
        std::fs::write(&file, "").unwrap();
        let error = load_or_create_key(&file.join("state")).unwrap_err();
        assert!(error.to_string().contains("a-file"), "{error}");
    }
}
