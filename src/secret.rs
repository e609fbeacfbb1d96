//! Values that must not be seen: zeroed when dropped, `[redacted]` in any print; how they come out of
//! files; and that they never get into a core dump.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret. It prints as `[redacted]`, compares in constant time, and is zeroed on drop.
///
/// `T` is `String` or `Vec<u8>`; [`Secret::expose`] is the one way to the value, so that a search
/// for it finds every use.
#[derive(Clone, Zeroize, ZeroizeOnDrop, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself.
    #[must_use]
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        equal(self.0.as_ref(), other.0.as_ref())
    }
}

impl<T: Zeroize + AsRef<[u8]>> Eq for Secret<T> {}

/// Larger than any secret or configuration file; a device file ends here.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why there is no secret; it holds nothing of what was found. The text follows the place.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No file, no permission, no UTF-8.
    #[error("can't be read: {0}")]
    Read(#[from] std::io::Error),
    /// Something else than a secret.
    #[error("can't be read: it is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// A pipe, a socket, a device.
    #[error("is no regular file and can't be read again")]
    Special,
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// More than one line.
    #[error("holds a line break or another control character")]
    Control,
}

/// The text of a file, of any number of lines.
///
/// # Errors
/// [`LoadError`].
pub fn load(path: &Path) -> Result<Secret<String>, LoadError> {
    let mut text = Secret::new(String::new());
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text.0)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge);
    }
    Ok(text)
}

/// The text of a file that is read anew from time to time. Opening a pipe would wait for somebody to write.
///
/// # Errors
/// [`LoadError`].
pub fn load_again(path: &Path) -> Result<Secret<String>, LoadError> {
    if std::fs::metadata(path)?.is_file() { load(path) } else { Err(LoadError::Special) }
}

/// A new file for its owner only, never through what stands under its name: a link, a file that others have
/// open, what somebody left who was cut short.
///
/// # Errors
/// Where that can't be removed, or the file not made.
pub fn create_private(path: &Path) -> std::io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// A secret of one line, without the one newline that editors and `echo` put at its end.
///
/// # Errors
/// [`LoadError::Empty`], [`LoadError::Control`].
pub fn one_line(text: &Secret<String>) -> Result<Secret<String>, LoadError> {
    let text = text.0.strip_suffix('\n').unwrap_or(&text.0);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(LoadError::Empty);
    }
    if text.chars().any(char::is_control) {
        return Err(LoadError::Control);
    }
    Ok(Secret::new(text.to_owned()))
}

/// Has the system write no core dump of this process, whatever ends it (ME-1). Afterwards no other process of
/// the same user can read its memory either (`ptrace`, `/proc/PID/mem`).
///
/// # Errors
/// Where the system refuses; what it granted before stays.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    // The limit alone is passed over where dumps are piped to a program, as systemd-coredump has them.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Whether two byte strings are the same, in time that depends only on their lengths.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn equality_looks_at_every_byte() {
        assert!(equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd"));
        assert!(!equal(b"abc", b"ab"));
    }
}
