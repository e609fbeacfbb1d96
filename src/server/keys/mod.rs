//! The session keys while the gateway runs: as configured and watched, or made by the gateway itself.
//!
//! A ring is exchanged whole or not at all: what can't be one leaves the keys of before in use, and is told.

mod configured;
mod own;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use self::configured::Configured;
use self::own::Own;
use crate::clock::Clock;
use crate::config::{KeyEntry, KeyFileError, Settings, StoreKind};
use crate::gateway::shared_keys::{SharedKeys, SharedKeysError};
use crate::random::RandomError;
use crate::session::key_ring::KeyError;
use crate::session::made_keys::Rotation;
use crate::session::{Key, KeyId, KeyRing};
use crate::store::SessionStore;
use crate::telemetry::Events;

/// How often keys are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The keys in the data directory.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The configured keys don't go together.
    #[error(transparent)]
    Ring(#[from] KeyError),
    /// No entropy.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Where keys come from.
pub(super) struct KeySettings {
    configured: Vec<KeyEntry>,
    store: StoreKind,
    data_dir: PathBuf,
    rotation: Rotation,
}

impl KeySettings {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            configured: settings.keys.clone(),
            store: settings.store,
            data_dir: settings.data_dir.clone(),
            rotation: settings.rotation(),
        }
    }
}

/// The ring of the configured keys. Without any, those that were made before are read from `data_dir`, or one
/// is made; a store in memory forgets its sessions anyway, so there the keys are not kept either.
///
/// # Errors
/// [`KeysError`].
pub(super) fn load(
    settings: KeySettings,
    clock: &Clock,
    events: &Events,
) -> Result<(Arc<KeyRing>, Keeper), KeysError> {
    let watch = Watch { events: events.clone(), seen: None, told: None };
    let (ring, source) = if settings.configured.is_empty() {
        let (ring, own) = Own::load(&settings, clock.clone())?;
        (ring, Source::Own(own))
    } else {
        let (ring, configured) = Configured::load(settings)?;
        (ring, Source::Configured(configured))
    };
    events.session_keys_loaded(&ring.ids());
    Ok((Arc::clone(&ring), Keeper { ring, source, watch }))
}

/// Keeps a ring as it should be.
pub(super) struct Keeper {
    ring: Arc<KeyRing>,
    source: Source,
    watch: Watch,
}

enum Source {
    Configured(Configured),
    Own(Own),
}

impl Keeper {
    /// Looks for good.
    pub(super) async fn keep(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(keeper) => self = keeper,
                // The runtime ends, or a panic was told.
                Err(_) => return,
            }
            self.keep_up().await;
        }
    }

    /// Lets several gateways make keys together, in their store, where that is configured.
    ///
    /// # Errors
    /// [`KeyError`].
    pub(super) fn share(
        &mut self,
        store: Arc<dyn SessionStore>,
        clock: &Clock,
        runtime: &Handle,
    ) -> Result<Option<Arc<SharedKeys>>, KeyError> {
        match &mut self.source {
            Source::Configured(configured) => {
                let around = (clock.clone(), self.watch.events.clone(), runtime.clone());
                configured.share(store, &self.ring, around)
            }
            Source::Own(_) => Ok(None),
        }
    }

    fn look(&mut self) {
        let looked = match &mut self.source {
            Source::Configured(configured) => configured.look(&self.ring, &mut self.watch),
            Source::Own(own) => own.look(&self.ring, &mut self.watch),
        };
        self.watch.tell(looked);
    }

    /// Keeps up with the other gateways; that the store is down is told elsewhere.
    async fn keep_up(&mut self) {
        let Source::Configured(configured) = &self.source else { return };
        match configured.keep_up().await {
            Ok(()) | Err(SharedKeysError::Store(_) | SharedKeysError::Busy) => {}
            Err(
                error @ (SharedKeysError::Ring(_) | SharedKeysError::Seal(_) | SharedKeysError::Random(_)),
            ) => self.watch.tell(Err(Refused::new(&"the store", &error))),
        }
    }
}

/// What was seen of keys that others change, and what was told of it.
struct Watch {
    events: Events,
    seen: Option<Result<Vec<KeyId>, Refused>>,
    told: Option<Refused>,
}

/// Why what is there now can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    place: String,
    reason: String,
}

impl Refused {
    fn new(place: &impl ToString, reason: &dyn std::error::Error) -> Self {
        Self { place: place.to_string(), reason: reason.to_string() }
    }
}

impl Watch {
    /// Whether two looks in a row saw this: a file that is being written counts for nothing.
    fn is_settled(&mut self, sees: Result<Vec<KeyId>, Refused>) -> bool {
        let same = self.seen.as_ref() == Some(&sees);
        self.seen = Some(sees);
        same
    }

    /// Gives a ring these keys, where it has others.
    fn exchange(&self, ring: &KeyRing, keys: &[Key]) -> Result<(), KeyError> {
        if ring.replace(keys)? {
            self.events.session_keys_loaded(&ring.ids());
        }
        Ok(())
    }

    /// Tells once of what can't be used.
    fn tell(&mut self, looked: Result<(), Refused>) {
        match looked {
            Ok(()) => {
                if self.told.take().is_some() {
                    self.events.session_keys_settled();
                }
            }
            Err(refused) if self.told.as_ref() == Some(&refused) => {}
            Err(refused) => {
                self.events.session_keys_refused(&refused.place, &refused.reason);
                self.told = Some(refused);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::random::random_bytes;
    use crate::telemetry::logging::{Format, Level, captured};

    pub(super) fn settings(configured: Vec<KeyEntry>, store: StoreKind, data_dir: &Path) -> KeySettings {
        let rotation = Rotation {
            every: Some(Duration::from_hours(90 * 24)),
            life: Duration::from_hours(13),
            delay: Duration::ZERO,
        };
        KeySettings { configured, store, data_dir: data_dir.to_owned(), rotation }
    }

    pub(super) fn load(settings: KeySettings, clock: &Clock) -> (Arc<KeyRing>, Keeper) {
        super::load(settings, clock, &Events::quiet()).unwrap()
    }

    pub(super) fn fresh() -> Key {
        Key::from_bytes(random_bytes().unwrap())
    }

    /// The events of so many looks.
    pub(super) fn look(keeper: &mut Keeper, times: usize) -> Vec<String> {
        let lines = captured(Format::Json, Level::Info, || (0..times).for_each(|_| keeper.look()));
        let event = |line: &String| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["event"].as_str().unwrap().to_owned()
        };
        lines.iter().map(event).collect()
    }

    pub(super) fn is_stale(keeper: &Keeper) -> bool {
        keeper.watch.events.metrics().render().contains("portcullis_session_keys_stale 1\n")
    }

    #[test]
    fn configured_keys_are_taken_and_none_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let entries = vec![KeyEntry { keys: vec![fresh()], file: None }];
        for store in [StoreKind::Disk, StoreKind::Memory] {
            let settings = settings(entries.clone(), store, folder.path());
            assert_eq!(load(settings, &Clock::system()).0.ids(), [entries[0].keys[0].id]);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
