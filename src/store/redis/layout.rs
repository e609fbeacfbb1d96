//! The names of keys, and the bytes of a record.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::servers::slot;
use crate::store::{Index, StoreKey};

/// A key as Redis has it, and its slot in a cluster.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) slot: u16,
}

/// The names of everything below a prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// A record.
    pub(super) fn record(&self, key: StoreKey) -> Name {
        self.name('s', key.0)
    }

    /// The lease on a record: in the record's slot.
    pub(super) fn lease(&self, key: StoreKey) -> Name {
        self.name('l', key.0)
    }

    /// A mark.
    pub(super) fn mark(&self, key: StoreKey) -> Name {
        self.name('m', key.0)
    }

    /// The members of an index.
    pub(super) fn index(&self, index: Index) -> Name {
        self.name('x', index.0)
    }

    /// What was taken of a rate.
    pub(super) fn rate(&self, key: StoreKey) -> Name {
        self.name('r', key.0)
    }

    /// What is written to see whether writing works.
    pub(super) fn probe(&self, random: [u8; 32]) -> Name {
        self.name('p', random)
    }

    /// The channel that changes are told on.
    pub(super) fn channel(&self) -> String {
        format!("{}changes", self.prefix)
    }

    /// What the names of all records match.
    pub(super) fn records(&self) -> String {
        let escaped: String = self.prefix.chars().flat_map(escape).collect();
        format!("{escaped}s:{{*}}")
    }

    /// The key of a record's name.
    pub(super) fn key_of(&self, name: &str) -> Option<StoreKey> {
        let tag = name.strip_prefix(&self.prefix)?.strip_prefix("s:{")?.strip_suffix('}')?;
        URL_SAFE_NO_PAD.decode(tag).ok()?.try_into().ok().map(StoreKey)
    }

    fn name(&self, kind: char, hash: [u8; 32]) -> Name {
        let tag = URL_SAFE_NO_PAD.encode(hash);
        Name { slot: slot(tag.as_bytes()), text: format!("{}{kind}:{{{tag}}}", self.prefix) }
    }
}

/// As itself in a pattern.
fn escape(letter: char) -> impl Iterator<Item = char> {
    let special = matches!(letter, '*' | '?' | '[' | ']' | '^' | '\\');
    special.then_some('\\').into_iter().chain([letter])
}

/// The first byte of a record: a format that this program reads.
const FORMAT: u8 = 1;
/// Format, version, fence, id of the write, number of indexes.
const FIXED: usize = 1 + 8 + FENCE + 16 + 2;
/// Decimal digits of a fence.
pub(super) const FENCE: usize = 16;

/// One write of a record. Its id is in the record, and in the members that the record's indexes have of it:
/// who finds a record overwritten or gone knows which members were that write's and no other's.
pub(super) type WriteId = [u8; 16];

/// What a record is besides its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: u64,
    pub(super) write: WriteId,
    pub(super) indexes: Vec<Index>,
}

impl Head {
    /// The bytes before and after the fence; a script puts the record's own fence between them.
    pub(super) fn encode(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let count = u16::try_from(self.indexes.len()).ok()?;
        let before = [&[FORMAT][..], &self.version.to_be_bytes()].concat();
        let mut after = [&self.write[..], &count.to_be_bytes()].concat();
        for index in &self.indexes {
            after.extend_from_slice(&index.0);
        }
        Some((before, after))
    }

    /// Head and payload of a record.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED>()?;
        let (format, fixed) = fixed.split_first()?;
        let (version, fixed) = fixed.split_first_chunk()?;
        let (_fence, fixed) = fixed.split_first_chunk::<FENCE>()?;
        let (write, count) = fixed.split_first_chunk()?;
        let count = usize::from(u16::from_be_bytes(count.try_into().ok()?));
        let (indexes, payload) = rest.split_at_checked(count.checked_mul(32)?)?;
        let (indexes, _) = indexes.as_chunks();
        let indexes = indexes.iter().copied().map(Index).collect();
        let head = Self { version: u64::from_be_bytes(*version), write: *write, indexes };
        (*format == FORMAT).then_some((head, payload))
    }
}

/// What an index has of a write of a record.
pub(super) fn member(key: StoreKey, write: WriteId) -> Vec<u8> {
    [&key.0[..], &write].concat()
}

/// The record that a member is of.
pub(super) fn key_of_member(member: &[u8]) -> Option<StoreKey> {
    member.first_chunk().copied().map(StoreKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_and_its_lease_share_a_slot_and_nothing_shares_a_name() {
        let names = Names::new("portcullis:");
        let key = StoreKey([7; 32]);
        let all = [
            names.record(key),
            names.lease(key),
            names.mark(key),
            names.index(Index(key.0)),
            names.rate(key),
            names.probe(key.0),
        ];
        assert!(all.iter().all(|name| name.slot == all[0].slot));
        let mut texts: Vec<_> = all.iter().map(|name| &name.text).collect();
        texts.dedup();
        assert_eq!(texts.len(), 6);
        assert_ne!(names.record(StoreKey([8; 32])).slot, all[0].slot);
        assert_eq!(names.key_of(&all[0].text), Some(key));
        assert_eq!(names.key_of(&all[1].text), None, "a lease is no record");
        assert_eq!(Names::new("other:").key_of(&all[0].text), None);
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(Names::new("a*[b]?\\:").records(), "a\\*\\[b\\]\\?\\\\:s:{*}");
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let indexes = vec![Index([1; 32]), Index([2; 32])];
        let head = Head { version: u64::MAX, write: [3; 16], indexes };
        let (before, after) = head.encode().unwrap();
        let bytes = [&before[..], &[b'0'; FENCE], &after, b"payload"].concat();
        assert_eq!(Head::parse(&bytes), Some((head, &b"payload"[..])));
        for length in 0..bytes.len() - b"payload".len() {
            assert_eq!(Head::parse(&bytes[..length]), None, "{length} bytes");
        }
        let newer = [&[FORMAT + 1], &bytes[1..]].concat();
        assert_eq!(Head::parse(&newer), None, "of another format");
    }
}
