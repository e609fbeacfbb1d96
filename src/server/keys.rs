//! The session keys: as configured and watched, or one that the gateway keeps for itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{KeyEntry, KeyFileError, KeyOrigin, StoreKind, load_or_create_key};
use crate::random::{RandomError, random_bytes};
use crate::secret;
use crate::session::key_ring::{KeyError, check_ring, parse_keys};
use crate::session::{Key, KeyId, KeyRing};
use crate::telemetry::Events;

/// How often key files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The key in the data directory.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The configured keys don't go together.
    #[error(transparent)]
    Ring(#[from] KeyError),
    /// No entropy.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The ring of the configured keys. Without any, one that was made before is read from `data_dir`,
/// or made; a store in memory forgets its sessions anyway, so there the key is not kept either.
///
/// # Errors
/// [`KeysError`].
pub(super) fn load(
    configured: &[KeyEntry],
    store: StoreKind,
    data_dir: &Path,
    events: &Events,
) -> Result<KeyRing, KeysError> {
    let keys = match (configured, store) {
        ([_, ..], _) => configured.iter().flat_map(|entry| &entry.keys).cloned().collect(),
        ([], StoreKind::Memory) => vec![Key::from_bytes(random_bytes()?)],
        ([], StoreKind::Disk) => vec![own_key(data_dir)?],
    };
    let ring = KeyRing::new(&keys)?;
    events.session_keys_loaded(&ring.ids());
    Ok(ring)
}

/// An operator should know that there is a key, and where.
fn own_key(data_dir: &Path) -> Result<Key, KeyFileError> {
    let (key, origin) = load_or_create_key(data_dir)?;
    if let KeyOrigin::Made(file) = origin {
        let text = "no session key is configured: one was made";
        tracing::info!(event = "session_key_made", file = %file.display(), "{text}");
    }
    Ok(key)
}

/// The files of the configured keys, looked at from time to time.
pub(super) struct KeyFiles {
    configured: Vec<KeyEntry>,
    ring: Arc<KeyRing>,
    events: Events,
    /// What the last look saw: a change counts when two looks in a row see the same, so that a file which
    /// is being written counts for nothing.
    seen: Option<Seen>,
    /// What was told last of what can't be used.
    told: Option<Refused>,
}

type Seen = Result<Vec<KeyId>, Refused>;

/// Why what is there now can't be the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    place: String,
    reason: String,
}

impl KeyFiles {
    /// The watch on the files of these entries; `None` where there are no files.
    pub(super) fn of(configured: Vec<KeyEntry>, ring: Arc<KeyRing>, events: Events) -> Option<Self> {
        let has_files = configured.iter().any(|entry| entry.file.is_some());
        has_files.then(|| Self { configured, ring, events, seen: None, told: None })
    }

    /// Looks for good.
    pub(super) async fn keep_looking(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(files) => self = files,
                // The runtime ends, or a panic was told.
                Err(_) => return,
            }
        }
    }

    /// Takes the keys in the files if they changed, all of them or none: what can't be a ring leaves the
    /// one of before.
    fn look(&mut self) {
        let found = self.read();
        let sees = found.as_ref().map(|keys| keys.iter().map(|key| key.id).collect()).map_err(Clone::clone);
        if self.seen.as_ref() != Some(&sees) {
            self.seen = Some(sees);
            return;
        }
        match found.and_then(|keys| self.take(&keys)) {
            Ok(()) => {
                if self.told.take().is_some() {
                    self.events.session_keys_settled();
                }
            }
            Err(refused) if self.told.as_ref() != Some(&refused) => {
                self.events.session_keys_refused(&refused.place, &refused.reason);
                self.told = Some(refused);
            }
            Err(_) => {}
        }
    }

    fn read(&self) -> Result<Vec<Key>, Refused> {
        let mut keys = Vec::new();
        for entry in &self.configured {
            match &entry.file {
                Some(file) => keys.extend(read_keys(file)?),
                None => keys.extend(entry.keys.iter().cloned()),
            }
        }
        check_ring(&keys).map_err(|error| Refused::new(&"session.keys", &error))?;
        Ok(keys)
    }

    fn take(&self, keys: &[Key]) -> Result<(), Refused> {
        if keys.iter().map(|key| key.id).eq(self.ring.ids()) {
            return Ok(());
        }
        self.ring.replace(keys).map_err(|error| Refused::new(&"session.keys", &error))?;
        self.events.session_keys_loaded(&self.ring.ids());
        Ok(())
    }
}

impl Refused {
    fn new(place: &impl ToString, reason: &dyn std::error::Error) -> Self {
        Self { place: place.to_string(), reason: reason.to_string() }
    }
}

fn read_keys(file: &Path) -> Result<Vec<Key>, Refused> {
    let text = secret::load_again(file).map_err(|error| Refused::new(&file.display(), &error))?;
    parse_keys(&text).map_err(|error| Refused::new(&file.display(), &error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::session::Purpose;
    use crate::session::seal::{open_cookie, seal_cookie};
    use crate::telemetry::logging::{Format, Level, captured};

    /// Whether what one ring seals opens with the other.
    fn are_the_same(one: &KeyRing, other: &KeyRing) -> bool {
        let sealed = seal_cookie(one, Purpose::SessionCookie, "c", "h", b"x").unwrap();
        open_cookie(other, Purpose::SessionCookie, "c", "h", sealed.as_bytes()).is_ok()
    }

    fn load(configured: &[KeyEntry], store: StoreKind, data_dir: &Path) -> KeyRing {
        super::load(configured, store, data_dir, &Events::quiet()).unwrap()
    }

    fn fresh() -> Key {
        Key::from_bytes(random_bytes().unwrap())
    }

    #[test]
    fn a_key_that_was_made_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let made = load(&[], StoreKind::Disk, folder.path());
        let read = load(&[], StoreKind::Disk, folder.path());
        assert!(are_the_same(&made, &read));
    }

    #[test]
    fn a_store_in_memory_leaves_no_key_behind() {
        let folder = tempfile::tempdir().unwrap();
        let one = load(&[], StoreKind::Memory, folder.path());
        let other = load(&[], StoreKind::Memory, folder.path());
        assert!(!are_the_same(&one, &other));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn configured_keys_are_taken_and_none_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let entries = [KeyEntry { keys: vec![fresh()], file: None }];
        let one = load(&entries, StoreKind::Disk, folder.path());
        let other = load(&entries, StoreKind::Memory, folder.path());
        assert!(are_the_same(&one, &other));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Two key files that are watched, and the ring of their keys.
    struct Bench {
        folder: tempfile::TempDir,
        keys: [Key; 2],
        ring: Arc<KeyRing>,
        files: KeyFiles,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let keys = [fresh(), fresh()];
            let configured: Vec<_> = ["one", "two"]
                .iter()
                .zip(&keys)
                .map(|(name, key)| {
                    let file = folder.path().join(name);
                    fs::write(&file, key.to_text().expose()).unwrap();
                    KeyEntry { keys: vec![key.clone()], file: Some(file) }
                })
                .collect();
            let ring = Arc::new(KeyRing::new(&keys).unwrap());
            let files = KeyFiles::of(configured, Arc::clone(&ring), Events::quiet()).unwrap();
            Self { folder, keys, ring, files }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, keys: &[&Key]) {
            let text: String = keys.iter().map(|key| key.to_text().expose().clone()).collect();
            fs::write(self.file(name), text).unwrap();
        }

        /// The events of so many looks.
        fn look(&mut self, times: usize) -> Vec<String> {
            let lines = captured(Format::Json, Level::Info, || (0..times).for_each(|_| self.files.look()));
            let event = |line: &String| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["event"].as_str().unwrap().to_owned()
            };
            lines.iter().map(event).collect()
        }

        fn is_stale(&self) -> bool {
            self.files.events.metrics().render().contains("portcullis_session_keys_stale 1\n")
        }
    }

    #[test]
    fn files_that_change_become_the_ring_once_two_looks_saw_the_same() {
        let mut bench = Bench::new();
        assert_eq!(bench.look(3), [""; 0], "nothing changed");
        let new = fresh();
        bench.write("one", &[&new, &bench.keys[0].clone()]);
        assert_eq!(bench.look(1), [""; 0], "it may be half written");
        assert_eq!(bench.ring.ids()[0], bench.keys[0].id);
        assert_eq!(bench.look(3), ["session_keys_loaded"]);
        assert_eq!(bench.ring.ids(), [new.id, bench.keys[0].id, bench.keys[1].id]);
        bench.write("one", &[&new]);
        assert_eq!(bench.look(2), ["session_keys_loaded"]);
        assert_eq!(bench.ring.ids(), [new.id, bench.keys[1].id]);
    }

    #[test]
    fn a_file_behind_a_link_that_moves_is_followed() {
        let mut bench = Bench::new();
        let new = fresh();
        bench.write("elsewhere", &[&new]);
        fs::remove_file(bench.file("one")).unwrap();
        std::os::unix::fs::symlink(bench.file("elsewhere"), bench.file("one")).unwrap();
        assert_eq!(bench.look(2), ["session_keys_loaded"]);
        assert_eq!(bench.ring.ids(), [new.id, bench.keys[1].id]);
    }

    #[test]
    fn ax_230_files_that_are_no_ring_leave_the_one_of_before_whole_and_are_told_once() {
        let weak = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";
        let cases: [(&str, Option<&str>); 6] = [
            ("gone", None),
            ("empty", Some("")),
            ("weak", Some(weak)),
            ("eight bytes", Some("AQIDBAUGBwg=\n")),
            ("no key", Some("hello\n")),
            ("a directory", None),
        ];
        for (name, text) in cases {
            let mut bench = Bench::new();
            let new = fresh();
            // The other file is good, and still not taken.
            bench.write("two", &[&new]);
            fs::remove_file(bench.file("one")).unwrap();
            match text {
                Some(text) => fs::write(bench.file("one"), text).unwrap(),
                None if name == "a directory" => fs::create_dir(bench.file("one")).unwrap(),
                None => {}
            }
            assert_eq!(bench.look(5), ["session_keys_refused"], "{name}: told once");
            assert_eq!(bench.ring.ids(), bench.keys.each_ref().map(|key| key.id), "{name}");
            assert!(bench.is_stale(), "{name}");
        }
    }

    #[test]
    fn a_key_in_two_files_is_refused_and_files_that_are_mended_are_taken() {
        let mut bench = Bench::new();
        bench.write("one", &[&bench.keys[1].clone()]);
        assert_eq!(bench.look(3), ["session_keys_refused"]);
        bench.write("one", &[&bench.keys[0].clone()]);
        assert_eq!(bench.look(3), [""; 0], "as it was");
        assert!(!bench.is_stale());
        bench.write("one", &[&bench.keys[1].clone()]);
        assert_eq!(bench.look(3), ["session_keys_refused"], "told again");
    }

    #[test]
    fn no_secret_stands_in_what_is_told() {
        let mut bench = Bench::new();
        let text = bench.keys[0].to_text();
        let secret = text.expose().trim();
        fs::write(bench.file("one"), format!("{secret}x")).unwrap();
        let lines = captured(Format::Json, Level::Trace, || (0..3).for_each(|_| bench.files.look()));
        assert_eq!(lines.len(), 1);
        assert!(lines.iter().all(|line| !line.contains(secret) && line.contains("/one")), "{lines:?}");
    }
}
