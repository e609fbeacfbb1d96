//! The session keys that the gateway makes for itself where none are configured: `data_dir/session.key`.
//!
//! The file has one key a line, the newest first, each with the moment when it was made. It is changed
//! under a lock on its directory, and appears whole or not at all. Never prints a key.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::UnixTime;
use crate::random::RandomError;
use crate::secret::{Secret, create_private};
use crate::session::Key;
use crate::session::key_ring::KeyError;
use crate::session::made_keys::{MadeKey, MadeKeys};

/// The file's name in `data_dir`.
const FILE_NAME: &str = "session.key";
/// Twice as much as the most keys take; a file that is longer is something else.
const MAX_FILE_BYTES: u64 = 16 * 1024;
/// Room for a key, its moment and the white space around them.
const LINE_BYTES: usize = 128;
/// How long another process may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

const HEAD: &str = "# Session keys that this gateway made, the newest first. Keep them secret.\n\
                    # `portcullis keys list` tells of them, `portcullis keys rotate` makes a new one.\n";

/// Why there are no session keys, or no new ones.
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
    /// The keys can't be written.
    #[error("can't write the session keys {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The keys can't be read.
    #[error("can't read the session keys {}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Everybody on the machine may read or change it.
    #[error("others can read the session keys {} (mode {mode:04o}); run `chmod 600` on it", path.display())]
    Exposed {
        /// Where.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds something else.
    #[error("the session keys {} can't be used: {source}", path.display())]
    Malformed {
        /// Where.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// It is a link, whose own place a new file would take.
    #[error("{} is a symbolic link: no new key is written there", path.display())]
    Link {
        /// Where.
        path: PathBuf,
    },
    /// Another process changes the file and does not end.
    #[error("the lock on {} is held by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// There is nothing that could be changed.
    #[error("there are no session keys in {} yet: the gateway makes one when it first starts", path.display())]
    Missing {
        /// Where they would be.
        path: PathBuf,
    },
    /// No entropy.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The file, whether it is there or not.
#[derive(Clone, Debug)]
pub struct KeyFile {
    folder: PathBuf,
    path: PathBuf,
}

impl KeyFile {
    /// The file in a `data_dir`.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { folder: data_dir.to_owned(), path: data_dir.join(FILE_NAME) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The error that there is no file.
    #[must_use]
    pub fn missing(&self) -> KeyFileError {
        KeyFileError::Missing { path: self.path.clone() }
    }

    /// The error that its keys can't be a ring.
    #[must_use]
    pub fn malformed(&self, source: KeyError) -> KeyFileError {
        KeyFileError::Malformed { path: self.path.clone(), source }
    }

    /// Its keys; `None` where there is no file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load(&self) -> Result<Option<MadeKeys>, KeyFileError> {
        Ok(self.read()?.map(|(keys, _)| keys))
    }

    /// Gives it the keys that `change` makes of those that are in it. Nobody else changes it meanwhile: of
    /// two that want to do the same, the second sees what the first has done.
    ///
    /// # Errors
    /// [`KeyFileError`]; the file is then as before.
    pub fn update(
        &self,
        change: impl FnOnce(Option<MadeKeys>) -> Result<MadeKeys, KeyFileError>,
    ) -> Result<MadeKeys, KeyFileError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|source| KeyFileError::Directory { path: self.folder.clone(), source })?;
        let _locked = self.lock()?;
        let (present, like) = self.read()?.unzip();
        let keys = change(present.clone())?;
        if present.as_ref() != Some(&keys) {
            self.write(&keys, like.as_ref())?;
        }
        Ok(keys)
    }

    fn read(&self) -> Result<Option<(MadeKeys, Metadata)>, KeyFileError> {
        let unreadable = |source| KeyFileError::Read { path: self.path.clone(), source };
        let file = match open_file(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let found = file.metadata().map_err(unreadable)?;
        let mode = found.permissions().mode() & 0o7777;
        // The group may: where a volume is mounted with a group of its own, it is given these rights.
        if mode & 0o007 != 0 {
            return Err(KeyFileError::Exposed { path: self.path.clone(), mode });
        }
        let mut text = String::new();
        let read = file.take(MAX_FILE_BYTES).read_to_string(&mut text);
        let text = Secret::new(text);
        read.map_err(unreadable)?;
        // Files of one line had no moment in them; they were written once.
        let written_at = found.modified().map_or(UnixTime::from_secs(0), unix_time);
        let keys = parse(&text, written_at).map_err(|source| self.malformed(source))?;
        Ok(Some((keys, found)))
    }

    /// The lock, for as long as the returned file lives.
    fn lock(&self) -> Result<File, KeyFileError> {
        let failed = |source| KeyFileError::Write { path: self.path.clone(), source };
        let folder = File::open(&self.folder).map_err(failed)?;
        let mut left = LOCK_PATIENCE;
        let pause = Duration::from_millis(20);
        loop {
            match folder.try_lock() {
                Ok(()) => return Ok(folder),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) if left.is_zero() => {
                    return Err(KeyFileError::Locked { path: self.folder.clone() });
                }
                Err(TryLockError::WouldBlock) => {}
            }
            std::thread::sleep(pause);
            left = left.saturating_sub(pause);
        }
    }

    /// Written under another name, on the disk, and then given its own.
    fn write(&self, keys: &MadeKeys, like: Option<&Metadata>) -> Result<(), KeyFileError> {
        if self.path.is_symlink() {
            return Err(KeyFileError::Link { path: self.path.clone() });
        }
        let draft = self.folder.join(format!("{FILE_NAME}.new"));
        let written = write_draft(&draft, &text_of(keys), like)
            .and_then(|()| std::fs::rename(&draft, &self.path))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        written.map_err(|source| {
            // Harmless where that fails: keys that nobody uses.
            std::fs::remove_file(&draft).ok();
            KeyFileError::Write { path: self.path.clone(), source }
        })
    }
}

/// The wish for a new key, where the running gateway has to make it: a file in `data_dir`.
#[derive(Clone, Debug)]
pub struct RotationRequest(PathBuf);

impl RotationRequest {
    /// The wish that stands in a `data_dir`.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(format!("{FILE_NAME}.rotate")))
    }

    /// Utters it.
    ///
    /// # Errors
    /// [`KeyFileError::Write`].
    pub fn make(&self) -> Result<(), KeyFileError> {
        let failed = |source| KeyFileError::Write { path: self.0.clone(), source };
        let folder = self.0.parent().unwrap_or(Path::new(""));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.0)
            .map_err(failed)?;
        Ok(())
    }

    /// Whether it was uttered.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.exists()
    }

    /// Takes it back.
    ///
    /// # Errors
    /// [`KeyFileError::Write`].
    pub fn remove(&self) -> Result<(), KeyFileError> {
        std::fs::remove_file(&self.0).map_err(|source| KeyFileError::Write { path: self.0.clone(), source })
    }
}

/// A file alone: opening a pipe would wait for somebody to write.
fn open_file(path: &Path) -> std::io::Result<File> {
    if std::fs::metadata(path)?.is_file() { File::open(path) } else { Err(ErrorKind::InvalidInput.into()) }
}

/// With the owner and the mode of the file whose place it takes: who may read that one can read this one,
/// whoever makes the change.
fn write_draft(path: &Path, text: &Secret<String>, like: Option<&Metadata>) -> std::io::Result<()> {
    let mut file = create_private(path)?;
    if let Some(like) = like {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
            fchown(&file, Some(like.uid()), Some(like.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
    }
    file.write_all(text.expose().as_bytes())?;
    file.sync_all()
}

fn text_of(keys: &MadeKeys) -> Secret<String> {
    // Room for all of it at once: a string that grows leaves copies behind.
    let mut text = String::with_capacity(HEAD.len() + keys.as_slice().len() * LINE_BYTES);
    text.push_str(HEAD);
    for made in keys.as_slice() {
        let line = made.key.to_text();
        let at =
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(made.made_at.as_millis()));
        // A string takes everything.
        let _ = writeln!(text, "{} {at}", line.expose().trim_ascii());
    }
    Secret::new(text)
}

fn parse(text: &Secret<String>, written_at: UnixTime) -> Result<MadeKeys, KeyError> {
    let lines = text.expose().lines().map(str::trim_ascii);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    MadeKeys::new(lines.map(|line| parse_line(line, written_at)).collect::<Result<_, _>>()?)
}

fn parse_line(line: &str, written_at: UnixTime) -> Result<MadeKey, KeyError> {
    let (key, made_at) = line.split_once(' ').map_or((line, None), |(key, at)| (key, Some(at)));
    let made_at = match made_at {
        None => written_at,
        Some(at) => {
            unix_time(humantime::parse_rfc3339(at.trim_ascii()).map_err(|_no_time| KeyError::Malformed)?)
        }
    };
    Ok(MadeKey { key: Key::parse(&Secret::new(key.to_owned()))?, made_at })
}

fn unix_time(time: SystemTime) -> UnixTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random_bytes;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn fresh() -> Key {
        Key::from_bytes(random_bytes().unwrap())
    }

    fn make(file: &KeyFile) -> Result<MadeKeys, KeyFileError> {
        file.update(|present| Ok(present.unwrap_or_else(|| MadeKeys::first(fresh(), NOW))))
    }

    fn rotate(file: &KeyFile) -> Result<MadeKeys, KeyFileError> {
        file.update(|present| {
            let present = present.ok_or_else(|| file.missing())?;
            present.rotated(fresh(), NOW + Duration::from_secs(7)).map_err(|error| file.malformed(error))
        })
    }

    #[test]
    fn the_first_start_makes_a_key_and_the_second_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("state/portcullis");
        let file = KeyFile::of(&data_dir);
        assert_eq!(file.load().unwrap(), None);
        let made = make(&file).unwrap();
        assert_eq!(file.load().unwrap().as_ref(), Some(&made));
        assert_eq!(make(&file).unwrap(), made);
        assert_eq!((mode(file.path()), mode(&data_dir)), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(&data_dir).unwrap().count(), 1, "no draft is left over");
    }

    #[test]
    fn of_many_that_start_or_rotate_at_once_each_sees_what_the_others_did() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(dir.path());
        let start = std::sync::Barrier::new(8);
        let found = std::thread::scope(|scope| {
            let run = || {
                start.wait();
                let first = make(&file).unwrap().as_slice().last().cloned().unwrap();
                rotate(&file).unwrap();
                first
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let keys = file.load().unwrap().unwrap();
        assert_eq!(keys.as_slice().len(), 9, "one that all use, and eight rotations");
        assert!(found.iter().all(|first| keys.as_slice().last() == Some(first)));
    }

    #[test]
    fn a_file_of_one_line_is_read_on_and_its_key_was_made_when_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let (file, key) = (KeyFile::of(dir.path()), fresh());
        std::fs::write(file.path(), key.to_text().expose()).unwrap();
        set_mode(file.path(), 0o600);
        let written = std::time::Duration::from_secs(1_600_000_000);
        File::open(file.path()).unwrap().set_modified(UNIX_EPOCH + written).unwrap();
        let keys = file.load().unwrap().unwrap();
        assert_eq!(keys, MadeKeys::first(key, UnixTime::from_secs(1_600_000_000)));
        let rotated = rotate(&file).unwrap();
        assert_eq!(file.load().unwrap(), Some(rotated.clone()));
        assert_eq!(rotated.as_slice()[1..], *keys.as_slice());
    }

    #[test]
    fn keys_that_others_can_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(dir.path());
        make(&file).unwrap();
        for (mode, refused) in [(0o600, false), (0o660, false), (0o604, true), (0o602, true), (0o644, true)] {
            set_mode(file.path(), mode);
            for result in [file.load().map(drop), rotate(&file).map(drop)] {
                assert_eq!(matches!(result, Err(KeyFileError::Exposed { .. })), refused, "{mode:o}");
                assert_eq!(result.is_err(), refused, "{mode:o}");
            }
        }
    }

    #[test]
    fn a_rotation_keeps_the_mode_and_leaves_nothing_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(dir.path());
        make(&file).unwrap();
        set_mode(file.path(), 0o640);
        let draft = dir.path().join("session.key.new");
        std::fs::write(&draft, "left over by somebody who was cut short").unwrap();
        rotate(&file).unwrap();
        assert_eq!(mode(file.path()), 0o640);
        assert!(!draft.exists());
    }

    #[test]
    fn a_file_that_holds_no_keys_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(dir.path());
        let good = fresh().to_text().expose().trim().to_owned();
        let cases = [
            ("empty", String::new()),
            ("no key", "hello\n".to_owned()),
            ("weak", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".to_owned()),
            ("a remark alone", "# nothing\n".to_owned()),
            ("cut in the second", format!("{good}\n{}", good.split_at(20).0)),
            ("the same twice", format!("{good}\n{good}\n")),
            ("no moment", format!("{good} yesterday\n")),
        ];
        for (name, text) in cases {
            std::fs::write(file.path(), &text).unwrap();
            set_mode(file.path(), 0o600);
            for result in [file.load().map(drop), make(&file).map(drop), rotate(&file).map(drop)] {
                assert!(matches!(result, Err(KeyFileError::Malformed { .. })), "{name}: {result:?}");
            }
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), text, "{name}");
        }
    }

    #[test]
    fn what_is_no_file_of_its_own_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(dir.path());
        assert!(matches!(rotate(&file), Err(KeyFileError::Missing { .. })));
        let elsewhere = dir.path().join("elsewhere");
        let key = fresh().to_text();
        std::fs::write(&elsewhere, key.expose()).unwrap();
        set_mode(&elsewhere, 0o600);
        std::os::unix::fs::symlink(&elsewhere, file.path()).unwrap();
        assert!(matches!(rotate(&file), Err(KeyFileError::Link { .. })));
        assert_eq!(&std::fs::read_to_string(&elsewhere).unwrap(), key.expose());
        std::fs::remove_file(file.path()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(file.path()).status().unwrap().success());
        assert!(matches!(file.load(), Err(KeyFileError::Read { .. })), "a pipe holds nothing up");
    }

    #[test]
    fn a_wish_for_a_new_key_stands_until_it_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let request = RotationRequest::of(&dir.path().join("state"));
        assert!(!request.is_there() && request.remove().is_err());
        request.make().unwrap();
        request.make().unwrap();
        assert!(request.is_there());
        request.remove().unwrap();
        assert!(!request.is_there());
    }

    #[test]
    fn a_lock_that_is_held_is_told_and_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let held = File::open(dir.path()).unwrap();
        held.lock().unwrap();
        assert!(matches!(make(&KeyFile::of(dir.path())), Err(KeyFileError::Locked { .. })));
        drop(held);
        assert!(make(&KeyFile::of(dir.path())).is_ok());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_told_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a-file");
        std::fs::write(&file, "").unwrap();
        let error = make(&KeyFile::of(&file.join("state"))).unwrap_err();
        assert!(error.to_string().contains("a-file"), "{error}");
    }
}
