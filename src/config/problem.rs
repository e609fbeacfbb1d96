//! Problems of a configuration file: collected while it is read and checked, told all at once.

use std::fmt;

/// A problem of the file: where, what was found, what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For example `route[2].upstream`; empty for a problem of the file as a whole.
    pub path: String,
    /// For example `"htp://app:80" is not an http or https URL`.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, message } = self;
        if path.is_empty() { f.write_str(message) } else { write!(f, "{path}: {message}") }
    }
}

/// A file that can't be used: all its problems.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    /// The file's name as it was given.
    pub file: String,
    /// All problems, in the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.problems.len() == 1 { "problem" } else { "problems" };
        write!(f, "{}: {} {noun}", self.file, self.problems.len())?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// A place in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// For example `route[2].upstream`.
    pub(super) path: String,
    /// The byte at which it stands; a key that is not written stands where its table begins.
    pub(super) offset: usize,
}

impl Place {
    /// The place of a key of the table that stands here.
    pub(super) fn key(&self, key: &str, offset: usize) -> Self {
        let key = quoted_if_odd(key);
        let path = if self.path.is_empty() { key } else { format!("{}.{key}", self.path) };
        Self { path, offset }
    }

    /// The place of an element of the list that stands here.
    pub(super) fn element(&self, index: usize, offset: usize) -> Self {
        Self { path: format!("{}[{index}]", self.path), offset }
    }
}

/// A key as TOML wants it written: bare, or quoted and escaped.
fn quoted_if_odd(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { format!("{key:?}") }
}

/// The proof that a problem was recorded: only [`Problems::add`] makes one, so that nothing can be
/// left out of the settings without a word about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told(());

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(usize, Problem)>);

impl Problems {
    /// Records a problem.
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) -> Told {
        let problem = Problem { path: place.path.clone(), message: message.into() };
        self.0.push((place.offset, problem));
        Told(())
    }

    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.0.sort_by_key(|(offset, _)| *offset);
        self.0.into_iter().map(|(_, problem)| problem).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_told_whole_in_the_order_of_the_file() {
        let mut problems = Problems::default();
        let root = Place::default();
        problems.add(&root.key("session", 90).key("store", 100), "\"ram\" is wrong");
        problems.add(&root.key("route", 10).element(2, 20).key("up stream", 30), "is missing");
        let error = ConfigError { file: "p.toml".to_owned(), problems: problems.into_sorted() };
        let wanted =
            "p.toml: 2 problems\n  route[2].\"up stream\": is missing\n  session.store: \"ram\" is wrong";
        assert_eq!(error.to_string(), wanted);
    }

    #[test]
    fn one_problem_of_the_whole_file_has_no_path() {
        let problem = Problem { path: String::new(), message: "no such file".to_owned() };
        let error = ConfigError { file: "p.toml".to_owned(), problems: vec![problem] };
        assert_eq!(error.to_string(), "p.toml: 1 problem\n  no such file");
    }
}
