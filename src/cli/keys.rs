//! `portcullis keys`: which session keys there are, and a new one.

use std::fmt::Write as _;

use clap::Subcommand;

use super::ConfigPath;
use crate::clock::{Clock, UnixTime};
use crate::config::{KeyFile, KeyFileError, RotationRequest, Settings, StoreKind};
use crate::random::RandomError;
use crate::session::Key;
use crate::session::made_keys::MadeKeys;

/// What is asked about session keys.
#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Say which session keys there are, by their ids: which one seals, how old they are, until when the
    /// others open. No key is printed
    List(ConfigPath),
    /// Make a new session key, which seals from now on; the others open what they sealed, until that is over
    ///
    /// A running gateway takes it within seconds, and nobody is signed out. Where `session.keys` is set the
    /// keys are yours: then it says what to do, and ends with exit status 1.
    Rotate(ConfigPath),
}

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysFailure {
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The keys are the operator's.
    #[error(
        "the session keys are those of session.keys, which this command does not write to\n\
         To change the key: put a new one (`portcullis keygen`) as the first line into {places}, above the\n\
         old one; a running gateway takes it within seconds. With several gateways put it behind the old one\n\
         everywhere first, and in front afterwards. Take the old one away when session.max_lifetime has\n\
         passed; sooner only to sign people out."
    )]
    Configured {
        /// Where they are.
        places: String,
    },
    /// There is no file.
    #[error(
        "the session key lives in the memory of the gateway (session.store is \"memory\"): a restart makes a new one"
    )]
    Memory,
}

/// Makes a new key; tells of it.
pub(super) fn rotate(settings: &Settings, clock: &Clock) -> Result<String, KeysFailure> {
    let file = match own_file(settings) {
        Err(KeysFailure::Configured { .. }) if settings.key_rotation.is_some() => return ask(settings),
        file => file?,
    };
    let (key, now, rotation) = (Key::random()?, clock.now(), settings.rotation());
    let id = key.id;
    let keys = file.update(|present| {
        let present = present.ok_or_else(|| file.missing())?.living(&rotation, now);
        present.rotated(key, now).map_err(|error| file.malformed(error))
    })?;
    let count = keys.as_slice().len() - 1;
    Ok(format!(
        "Session key {id} was made in {} and seals from now on; a running gateway takes it within seconds.\n\
         {count} older still open what they sealed. Nobody is signed out.\n",
        file.path().display()
    ))
}

/// Where gateways make keys together, one that runs has to do it.
fn ask(settings: &Settings) -> Result<String, KeysFailure> {
    RotationRequest::of(&settings.data_dir).make()?;
    let delay = humantime::format_duration(settings.rotation().delay);
    Ok(format!(
        "A new session key was asked for. The gateway on this machine makes it within seconds, or when it
         starts, in the store that it shares; {delay} later it seals, on all gateways. Nobody is signed out.
"
    ))
}

/// Tells of the keys.
pub(super) fn list(settings: &Settings, clock: &Clock) -> Result<String, KeysFailure> {
    match own_file(settings) {
        Ok(file) => {
            let keys = file.load()?.ok_or_else(|| file.missing())?;
            Ok(own(settings, &keys, clock.now()))
        }
        Err(KeysFailure::Configured { .. }) => Ok(configured(settings)),
        Err(failure) => Err(failure),
    }
}

fn own_file(settings: &Settings) -> Result<KeyFile, KeysFailure> {
    match settings.store {
        _ if !settings.keys.is_empty() => Err(KeysFailure::Configured { places: places(settings) }),
        StoreKind::Memory => Err(KeysFailure::Memory),
        StoreKind::Disk | StoreKind::Redis => Ok(KeyFile::of(&settings.data_dir)),
    }
}

fn places(settings: &Settings) -> String {
    let first = settings.keys.first().and_then(|entry| entry.file.as_ref());
    first.map_or("the environment variable".to_owned(), |file| file.display().to_string())
}

fn own(settings: &Settings, keys: &MadeKeys, now: UnixTime) -> String {
    let rotation = settings.rotation();
    let mut text = String::new();
    for (place, made) in keys.as_slice().iter().enumerate() {
        let role = match (keys.ends_at(place, &rotation), rotation.every) {
            (Some(end), _) => format!("opens until {}", date(end)),
            (None, Some(every)) => format!("seals; the next one is made {}", date(made.made_at + every)),
            (None, None) => "seals; no other one is made by age".to_owned(),
        };
        let note = if made.made_at > now { " (in the future: look at the clock)" } else { "" };
        // A string takes everything.
        let _ = writeln!(text, "{}  made {}{note}  {role}", made.key.id, date(made.made_at));
    }
    text
}

fn configured(settings: &Settings) -> String {
    let mut text = String::new();
    let is_root = settings.key_rotation.is_some();
    for entry in &settings.keys {
        let place =
            entry.file.as_ref().map_or("the environment".to_owned(), |file| file.display().to_string());
        for key in &entry.keys {
            let role = match (is_root, text.is_empty()) {
                (true, true) => "root of the keys that gateways make now",
                (true, false) => "root of keys that only open",
                (false, true) => "seals",
                (false, false) => "opens",
            };
            // A string takes everything.
            let _ = writeln!(text, "{}  {role}  {place}", key.id);
        }
    }
    text
}

fn date(time: UnixTime) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time.as_secs());
    humantime::format_rfc3339_seconds(time).to_string()
}
