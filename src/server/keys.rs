//! The session keys: as configured, or one that is made on first start.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::StoreKind;
use crate::random::{RandomError, random_bytes};
use crate::secret::Secret;
use crate::session::key_ring::KeyError;
use crate::session::{Key, KeyRing};

/// Where the made key stands in the data directory.
const FILE: &str = "session.key";

/// A key is 45 characters; a file of more is something else.
const MAX_BYTES: u64 = 1024;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file, or its directory.
    #[error("{}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What stands in the file is no key.
    #[error("{}: {source}", file.display())]
    Malformed {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
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
pub(super) fn load(configured: Vec<Key>, store: StoreKind, data_dir: &Path) -> Result<KeyRing, KeysError> {
    let keys = match (configured, store) {
        (keys, _) if !keys.is_empty() => keys,
        (_, StoreKind::Memory) => vec![Key::from_bytes(random_bytes()?)],
        (_, StoreKind::Disk) => vec![load_or_make(data_dir)?],
    };
    Ok(KeyRing::new(keys)?)
}

fn load_or_make(data_dir: &Path) -> Result<Key, KeysError> {
    let file = data_dir.join(FILE);
    let failed = |source| KeysError::File { file: file.clone(), source };
    let text = match read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = Key::from_bytes(random_bytes()?);
            write(data_dir, &file, &key.to_text()).map_err(failed)?;
            tracing::info!(event = "session_key_made", file = %file.display(), "no session key is configured: one was made");
            return Ok(key);
        }
        Err(error) => return Err(failed(error)),
    };
    Key::parse(&text).map_err(|source| KeysError::Malformed { file, source })
}

fn read(file: &Path) -> io::Result<Secret<String>> {
    let mut text = String::new();
    fs::File::open(file)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(Secret::new(text))
}

/// Written under another name first: a crash leaves either a whole key or none.
fn write(data_dir: &Path, file: &Path, text: &Secret<String>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
    let unfinished = file.with_extension("key.new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    out.write_all(text.expose().as_bytes())?;
    out.sync_all()?;
    fs::rename(&unfinished, file)?;
    fs::File::open(data_dir)?.sync_all()
}
