//! The keys of `session.keys`, whose files are looked at from time to time.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::{KeySettings, KeysError, Refused, Watch};
use crate::clock::Clock;
use crate::config::{KeyEntry, RotationRequest};
use crate::gateway::shared_keys::{SharedKeys, SharedKeysError};
use crate::secret;
use crate::session::key_ring::{KeyError, check_ring, parse_keys};
use crate::session::made_keys::Rotation;
use crate::session::{Key, KeyRing};
use crate::store::SessionStore;
use crate::telemetry::Events;

/// The elements of `session.keys`.
pub(super) struct Configured {
    entries: Vec<KeyEntry>,
    rotation: Rotation,
    request: RotationRequest,
    /// Where gateways make the sealing keys together: then the configured ones are the roots.
    shared: Option<Arc<SharedKeys>>,
}

impl Configured {
    /// The ring of keys that were read already.
    pub(super) fn load(settings: KeySettings) -> Result<(Arc<KeyRing>, Self), KeysError> {
        let KeySettings { configured: entries, rotation, data_dir, store: _ } = settings;
        let ring = Arc::new(KeyRing::new(&all(&entries))?);
        let request = RotationRequest::of(&data_dir);
        Ok((ring, Self { entries, rotation, request, shared: None }))
    }

    /// Lets the ring have keys that gateways make together, where they do.
    pub(super) fn share(
        &mut self,
        store: Arc<dyn SessionStore>,
        ring: &Arc<KeyRing>,
        around: (Clock, Events, Handle),
    ) -> Result<Option<Arc<SharedKeys>>, KeyError> {
        if self.rotation.every.is_some() {
            let ring = Arc::clone(ring);
            let shared = SharedKeys::new(store, ring, &all(&self.entries), self.rotation, around)?;
            self.shared = Some(Arc::new(shared));
        }
        Ok(self.shared.clone())
    }

    /// Takes the keys in the files if they changed, all of them or none.
    pub(super) fn look(&self, ring: &KeyRing, watch: &mut Watch) -> Result<(), Refused> {
        let found = self.read();
        let sees = found.as_ref().map(|keys| keys.iter().map(|key| key.id).collect()).map_err(Clone::clone);
        if !watch.is_settled(sees) {
            return watch.told.clone().map_or(Ok(()), Err);
        }
        let keys = found?;
        let taken = match &self.shared {
            None => watch.exchange(ring, &keys),
            Some(shared) => shared.replace_roots(&keys),
        };
        taken.map_err(|error| Refused::new(&"session.keys", &error))
    }

    /// Takes what other gateways made, and makes what is due or asked for.
    pub(super) async fn keep_up(&self) -> Result<(), SharedKeysError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        shared.keep_up().await?;
        // A wish that can't be taken back would make keys for ever.
        if self.request.is_there() && self.request.remove().is_ok() {
            let rotated = shared.rotate().await;
            if rotated.is_err() {
                self.request.make().ok();
            }
            return rotated;
        }
        Ok(())
    }

    fn read(&self) -> Result<Vec<Key>, Refused> {
        let mut keys = Vec::new();
        for entry in &self.entries {
            match &entry.file {
                Some(file) => keys.extend(read_keys(file)?),
                None => keys.extend(entry.keys.iter().cloned()),
            }
        }
        check_ring(&keys).map_err(|error| Refused::new(&"session.keys", &error))?;
        Ok(keys)
    }
}

fn all(entries: &[KeyEntry]) -> Vec<Key> {
    entries.iter().flat_map(|entry| &entry.keys).cloned().collect()
}

fn read_keys(file: &Path) -> Result<Vec<Key>, Refused> {
    let text = secret::load_again(file).map_err(|error| Refused::new(&file.display(), &error))?;
    parse_keys(&text).map_err(|error| Refused::new(&file.display(), &error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::Keeper;
    use super::super::tests::{fresh, is_stale, load, look, settings};
    use super::*;
    use crate::config::StoreKind;
    use crate::telemetry::logging::{Format, Level, captured};

    /// Two key files that are watched, and the ring of their keys.
    struct Bench {
        folder: tempfile::TempDir,
        keys: [Key; 2],
        ring: Arc<KeyRing>,
        keeper: Keeper,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let keys = [fresh(), fresh()];
            let entry = |(name, key): (&&str, &Key)| {
                let file = folder.path().join(name);
                fs::write(&file, key.to_text().expose()).unwrap();
                KeyEntry { keys: vec![key.clone()], file: Some(file) }
            };
            let entries = ["one", "two"].iter().zip(&keys).map(entry).collect();
            let settings = settings(entries, StoreKind::Memory, folder.path());
            let (ring, keeper) = load(settings, &Clock::system());
            Self { folder, keys, ring, keeper }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, keys: &[&Key]) {
            let text: String = keys.iter().map(|key| key.to_text().expose().clone()).collect();
            fs::write(self.file(name), text).unwrap();
        }

        fn look(&mut self, times: usize) -> Vec<String> {
            look(&mut self.keeper, times)
        }
    }

    #[test]
    fn files_that_change_become_the_ring_once_two_looks_saw_the_same() {
        let mut bench = Bench::new();
        assert_eq!(bench.look(3), [""; 0], "nothing changed");
        let new = fresh();
        bench.write("one", &[&new, &bench.keys[0]]);
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
            // The other file is good, and still not taken.
            bench.write("two", &[&fresh()]);
            fs::remove_file(bench.file("one")).unwrap();
            match text {
                Some(text) => fs::write(bench.file("one"), text).unwrap(),
                None if name == "a directory" => fs::create_dir(bench.file("one")).unwrap(),
                None => {}
            }
            assert_eq!(bench.look(5), ["session_keys_refused"], "{name}: told once");
            assert_eq!(bench.ring.ids(), bench.keys.each_ref().map(|key| key.id), "{name}");
            assert!(is_stale(&bench.keeper), "{name}");
        }
    }

    #[test]
    fn a_key_in_two_files_is_refused_and_files_that_are_mended_are_taken() {
        let mut bench = Bench::new();
        bench.write("one", &[&bench.keys[1]]);
        assert_eq!(bench.look(3), ["session_keys_refused"]);
        bench.write("one", &[&bench.keys[0]]);
        assert_eq!(bench.look(3), [""; 0], "as it was");
        assert!(!is_stale(&bench.keeper));
        bench.write("one", &[&bench.keys[1]]);
        assert_eq!(bench.look(3), ["session_keys_refused"], "told again");
    }

    #[test]
    fn no_secret_stands_in_what_is_told() {
        let mut bench = Bench::new();
        let text = bench.keys[0].to_text();
        let secret = text.expose().trim();
        fs::write(bench.file("one"), format!("{secret}x")).unwrap();
        let lines = captured(Format::Json, Level::Trace, || (0..3).for_each(|_| bench.keeper.look()));
        assert_eq!(lines.len(), 1);
        assert!(lines.iter().all(|line| !line.contains(secret) && line.contains("/one")), "{lines:?}");
    }
}
