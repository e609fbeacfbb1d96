//! The directory of one run of the demo: its configuration and secrets, for this user's eyes only.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use crate::random::random_token;

/// The directory; it is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a new one below the system's directory for temporary files, under a name that nobody can
    /// guess: who made it before would own what is written there.
    pub(super) fn new() -> io::Result<Self> {
        let name = random_token::<16>().map_err(io::Error::other)?;
        let path = std::env::temp_dir().join(format!("portcullis-demo-{name}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// The path of a file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a new file with mode 0600.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed lies in a directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_this_user_can_read_it_and_it_is_removed_at_the_end() {
        let scratch = Scratch::new().unwrap();
        let file = scratch.write("secret", "x").unwrap();
        let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&scratch.0), mode(&file)), (0o700, 0o600));
        assert!(scratch.write("secret", "y").is_err(), "never over something that is there");
        let path = scratch.0.clone();
        drop(scratch);
        assert!(!path.exists());
    }
}
