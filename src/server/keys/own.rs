//! The keys that the gateway makes itself: kept in `data_dir`, or in memory with the store.

use std::sync::Arc;

use super::{KeySettings, KeysError, Refused, Watch};
use crate::clock::{Clock, UnixTime};
use crate::config::{KeyFile, KeyFileError, StoreKind};
use crate::session::made_keys::{MadeKeys, Rotation};
use crate::session::{Key, KeyRing};

/// Keys, and the file that they are kept in.
pub(super) struct Own {
    /// `None`: they live and die with the process.
    file: Option<KeyFile>,
    keys: MadeKeys,
    rotation: Rotation,
    clock: Clock,
}

impl Own {
    /// The keys of the file, or a first one.
    pub(super) fn load(settings: &KeySettings, clock: Clock) -> Result<(Arc<KeyRing>, Self), KeysError> {
        let (rotation, now) = (settings.rotation, clock.now());
        let file = match settings.store {
            StoreKind::Memory => None,
            // Gateways that share a store have configured keys, says the check.
            StoreKind::Disk | StoreKind::Redis => Some(KeyFile::of(&settings.data_dir)),
        };
        let keys = match &file {
            None => MadeKeys::first(Key::random()?, now),
            Some(file) => match file.load()? {
                Some(keys) => keys,
                None => first(file, now)?,
            },
        };
        let ring = KeyRing::new(&keys.ring(rotation.delay, now))?;
        Ok((Arc::new(ring), Self { file, keys, rotation, clock }))
    }

    /// Takes what is new in the file, makes a new key where one is due, and drops those that are over.
    pub(super) fn look(&mut self, ring: &KeyRing, watch: &mut Watch) -> Result<(), Refused> {
        if let Some(file) = &self.file {
            let refused = |error: KeyFileError| Refused::new(&file.path().display(), &error);
            let found = file.load().and_then(|keys| keys.ok_or_else(|| file.missing())).map_err(refused);
            let id = |keys: &MadeKeys| keys.as_slice().iter().map(|made| made.key.id).collect();
            if !watch.is_settled(found.as_ref().map(id).map_err(Clone::clone)) {
                return watch.told.clone().map_or(Ok(()), Err);
            }
            self.keys = found?;
        }
        let made = self.maintain();
        let keys = self.keys.ring(self.rotation.delay, self.clock.now());
        watch.exchange(ring, &keys).map_err(|error| Refused::new(&self.place(), &error))?;
        made.map_err(|error| Refused::new(&self.place(), &error))
    }

    fn maintain(&mut self) -> Result<(), KeysError> {
        let (rotation, now) = (self.rotation, self.clock.now());
        let wanted = self.keys.living(&rotation, now);
        if wanted == self.keys && !self.keys.is_due(&rotation, now) {
            return Ok(());
        }
        let key = Key::random()?;
        // As it is under the lock: somebody else may have been faster.
        let follow = |keys: MadeKeys| {
            let keys = keys.living(&rotation, now);
            if keys.is_due(&rotation, now) { keys.rotated(key, now) } else { Ok(keys) }
        };
        let before = self.keys.as_slice().first().map(|made| made.key.id);
        self.keys = match &self.file {
            None => follow(self.keys.clone())?,
            Some(file) => file.update(|present| {
                follow(present.ok_or_else(|| file.missing())?).map_err(|error| file.malformed(error))
            })?,
        };
        if self.keys.as_slice().first().map(|made| made.key.id) != before {
            let text = "the session key was old: a new one was made";
            tracing::info!(event = "session_key_made", file = self.place(), "{text}");
        }
        Ok(())
    }

    fn place(&self) -> String {
        self.file.as_ref().map_or("memory".to_owned(), |file| file.path().display().to_string())
    }
}

/// An operator should know that there is a key, and where.
fn first(file: &KeyFile, now: UnixTime) -> Result<MadeKeys, KeysError> {
    let key = Key::random()?;
    let id = key.id;
    // Of several that start at once one makes it, and all use it.
    let keys = file.update(|present| Ok(present.unwrap_or_else(|| MadeKeys::first(key, now))))?;
    if keys.as_slice().iter().any(|made| made.key.id == id) {
        let text = "no session key is configured: one was made";
        tracing::info!(event = "session_key_made", file = %file.path().display(), "{text}");
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::super::Keeper;
    use super::super::tests::{is_stale, load, look, settings};
    use super::*;
    use crate::session::KeyId;

    const DAY: Duration = Duration::from_hours(24);

    fn start(store: StoreKind, folder: &Path, clock: &Clock) -> (Arc<KeyRing>, Keeper) {
        load(settings(Vec::new(), store, folder), clock)
    }

    fn clock() -> Clock {
        Clock::manual(UnixTime::from_secs(1_800_000_000))
    }

    /// A key that `portcullis keys rotate` makes.
    fn rotate(folder: &Path, clock: &Clock) -> KeyId {
        let file = KeyFile::of(folder);
        let keys =
            file.update(|keys| Ok(keys.unwrap().rotated(Key::random().unwrap(), clock.now()).unwrap()));
        keys.unwrap().as_slice()[0].key.id
    }

    #[test]
    fn keys_that_were_made_are_read_again_and_a_store_in_memory_leaves_none_behind() {
        for (store, again) in [(StoreKind::Disk, true), (StoreKind::Memory, false)] {
            let folder = tempfile::tempdir().unwrap();
            let ids = [(); 2].map(|()| start(store, folder.path(), &clock()).0.ids());
            assert_eq!(ids[0] == ids[1], again, "{store:?}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), usize::from(again), "{store:?}");
        }
    }

    #[test]
    fn a_key_that_is_old_gets_a_successor_and_goes_when_what_it_sealed_is_over() {
        for store in [StoreKind::Disk, StoreKind::Memory] {
            let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
            let (ring, mut keeper) = start(store, folder.path(), &clock);
            let first = ring.sealing_id();
            clock.advance(89 * DAY);
            assert_eq!(look(&mut keeper, 3), [""; 0], "{store:?}");
            clock.advance(DAY);
            assert_eq!(look(&mut keeper, 3), ["session_key_made", "session_keys_loaded"], "{store:?}");
            let second = ring.sealing_id();
            assert_eq!((second == first, ring.ids()), (false, vec![second, first]), "{store:?}");
            clock.advance(Duration::from_hours(12));
            assert_eq!(look(&mut keeper, 3), [""; 0], "{store:?}: the old one still opens");
            clock.advance(Duration::from_hours(1));
            assert_eq!(look(&mut keeper, 3), ["session_keys_loaded"], "{store:?}");
            assert_eq!(ring.ids(), [second], "{store:?}");
            let again = start(store, folder.path(), &clock).0.ids();
            assert_eq!(again == [second], store == StoreKind::Disk, "{store:?}: in the file too");
        }
    }

    #[test]
    fn a_clock_that_jumps_back_and_forth_makes_no_storm_and_loses_nothing() {
        let (folder, now) = (tempfile::tempdir().unwrap(), clock());
        let (ring, _) = start(StoreKind::Disk, folder.path(), &now);
        let first = ring.sealing_id();
        // A machine that starts in 1970 until it hears of the time.
        let lost = Clock::manual(UnixTime::from_secs(5));
        let (ring, mut keeper) = start(StoreKind::Disk, folder.path(), &lost);
        assert_eq!(look(&mut keeper, 100), [""; 0]);
        let second = rotate(folder.path(), &lost);
        let (ring_now, mut keeper_now) = start(StoreKind::Disk, folder.path(), &now);
        look(&mut keeper, 2);
        look(&mut keeper_now, 2);
        assert_eq!(ring_now.ids(), [second, first]);
        assert_eq!(ring.ids(), [first, second], "where every key is of the future the oldest seals");
    }

    #[test]
    fn two_processes_that_rotate_at_the_same_moment_agree_on_one_key() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
        for round in 0..100 {
            let mut keepers = [(); 2].map(|()| start(StoreKind::Disk, folder.path(), &clock));
            clock.advance(90 * DAY);
            std::thread::scope(|scope| {
                for (_, keeper) in &mut keepers {
                    scope.spawn(|| (0..4).for_each(|_| keeper.look()));
                }
            });
            for (_, keeper) in &mut keepers {
                (0..2).for_each(|_| keeper.look());
            }
            let [one, two] = keepers.map(|(ring, _)| ring.ids());
            assert_eq!((one.len(), &one), (2, &two), "round {round}");
        }
    }

    #[test]
    fn what_is_rotated_by_hand_is_taken() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
        let (ring, mut keeper) = start(StoreKind::Disk, folder.path(), &clock);
        let first = ring.sealing_id();
        look(&mut keeper, 2);
        let second = rotate(folder.path(), &clock);
        assert_eq!(look(&mut keeper, 3), ["session_keys_loaded"]);
        assert_eq!(ring.ids(), [second, first]);
    }

    type Spoil<'a> = &'a dyn Fn(&str) -> Option<String>;

    #[test]
    fn a_file_that_is_spoilt_while_the_gateway_runs_changes_nothing_and_is_told_once() {
        let cut = |text: &str| Some(text.split_at(text.len() - 30).0.to_owned());
        let cases: [(&str, Spoil<'_>); 4] = [
            ("truncated", &cut),
            ("empty", &|_| Some(String::new())),
            ("weak", &|text| Some(format!("{text}{}= 2027-01-01T00:00:00Z\n", "A".repeat(43)))),
            ("gone", &|_| None),
        ];
        for (name, spoil) in cases {
            let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
            let (ring, mut keeper) = start(StoreKind::Disk, folder.path(), &clock);
            let (ids, path) = (ring.ids(), KeyFile::of(folder.path()).path().to_owned());
            look(&mut keeper, 2);
            match spoil(&fs::read_to_string(&path).unwrap()) {
                Some(spoilt) => fs::write(&path, spoilt).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            assert_eq!(look(&mut keeper, 4), ["session_keys_refused"], "{name}");
            clock.advance(90 * DAY);
            assert_eq!(look(&mut keeper, 4), [""; 0], "{name}: and no new key is made over it");
            assert_eq!((ring.ids(), is_stale(&keeper)), (ids, true), "{name}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_written_does_not_seal() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
        let (ring, mut keeper) = start(StoreKind::Disk, folder.path(), &clock);
        let ids = ring.ids();
        let path = KeyFile::of(folder.path()).path().to_owned();
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        clock.advance(90 * DAY);
        assert_eq!(look(&mut keeper, 5), ["session_keys_refused"]);
        assert_eq!((ring.ids(), is_stale(&keeper)), (ids, true));
    }
}
