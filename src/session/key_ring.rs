//! The key ring: the first key seals, all of them open; the key id stands inside (SC-5).
//!
//! Owns the secrets and everything derived from them. Ciphers for cookies are built once, when keys
//! come, so that opening a cookie derives nothing. Keys are exchanged all at once while requests go on:
//! who opens or seals takes the ring of that moment, without a lock. Never prints a secret, and gives none
//! out but through [`Key::to_text`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aes_gcm::{Aes256Gcm, KeyInit as _};
use arc_swap::{ArcSwap, Guard};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::random::{RandomError, random_bytes};
use crate::secret::Secret;

/// What a cookie is sealed for. Each purpose has a key of its own (HKDF-SHA-256), and the purpose is
/// in the associated data too (SC-3). Records of a store have keys of their own, one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The reference in the session cookie.
    SessionCookie,
    /// A login attempt in its cookie.
    LoginCookie,
    /// The state of a sign-out on its way through the provider.
    SignOutCookie,
    /// When the last sign-ins of a browser ended.
    TripsCookie,
}

impl Purpose {
    /// The word for this purpose in key derivation and associated data; part of the format.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::SessionCookie => "session cookie",
            Self::LoginCookie => "login cookie",
            Self::SignOutCookie => "sign-out cookie",
            Self::TripsCookie => "trips cookie",
        }
    }
}

/// Bytes of a secret.
const SECRET_LEN: usize = 32;

/// Fewer different bytes than this are not random: 32 random ones have so few once in 10^15 keys.
const MIN_DIFFERENT_BYTES: usize = 16;

/// The longest text of a key, white space around it included; a file that is longer is none.
const MAX_TEXT_LEN: usize = 128;

/// The most keys of a ring: every value that comes is looked up in it.
pub const MAX_KEYS: usize = 64;

/// Tells which key sealed a value. It is derived from the key and no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(super) [u8; 4]);

#[cfg(test)]
impl KeyId {
    pub(crate) const fn for_tests(id: [u8; 4]) -> Self {
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// One secret of the ring: 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Derived from the secret; tells which key sealed a value.
    pub id: KeyId,
    secret: Secret<Vec<u8>>,
}

/// A key that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Wrong length or alphabet.
    #[error("a session key is 32 random bytes in base64 (run `portcullis keygen`)")]
    Malformed,
    /// Bytes that nobody drew at random: few different ones, a sequence, or text (SC-5).
    #[error("the session key is too weak: its bytes are not random (run `portcullis keygen`)")]
    Weak,
    /// Two keys of the ring are the same.
    #[error("the same session key is listed twice")]
    Duplicate,
    /// No key at all.
    #[error("no session key")]
    Empty,
    /// More than a ring has.
    #[error("more than {MAX_KEYS} session keys")]
    TooMany,
}

impl Key {
    /// Reads a key as `portcullis keygen` writes it: 32 bytes in base64 or base64url, padded or not,
    /// white space around it trimmed.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::Weak`].
    pub fn parse(text: &Secret<String>) -> Result<Self, KeyError> {
        let bytes = decode(text.expose()).ok_or(KeyError::Malformed)?;
        if is_weak(&bytes) {
            return Err(KeyError::Weak);
        }
        Ok(Self::from_bytes(*bytes))
    }

    /// A new key.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn random() -> Result<Self, RandomError> {
        Ok(Self::from_bytes(random_bytes()?))
    }

    /// A key of fresh random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; SECRET_LEN]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self { id: KeyId(derive(&bytes[..], "key id")), secret: Secret::new(bytes.to_vec()) }
    }

    /// The key in the form that [`Key::parse`] reads, with a final newline.
    #[must_use]
    pub fn to_text(&self) -> Secret<String> {
        // Room for all of it at once: a string that grows leaves copies behind.
        let mut text = String::with_capacity(2 * SECRET_LEN);
        URL_SAFE_NO_PAD.encode_string(self.secret.expose(), &mut text);
        text.push('\n');
        Secret::new(text)
    }
}

/// Reads the keys of a text, one a line, the first one first; empty lines count for nothing.
///
/// # Errors
/// [`KeyError::Empty`], [`KeyError::TooMany`], and those of [`Key::parse`]: no key is taken of a text with a
/// line that is none.
pub fn parse_keys(text: &Secret<String>) -> Result<Vec<Key>, KeyError> {
    let lines = text.expose().lines().filter(|line| !line.trim_ascii().is_empty());
    let keys: Vec<_> = lines.take(MAX_KEYS + 1).map(parse_line).collect::<Result<_, _>>()?;
    match keys.len() {
        0 => Err(KeyError::Empty),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(KeyError::TooMany),
    }
}

fn parse_line(line: &str) -> Result<Key, KeyError> {
    Key::parse(&Secret::new(line.to_owned()))
}

/// The 32 bytes that `text` writes; nothing for any other length, alphabet or spelling.
fn decode(text: &str) -> Option<Zeroizing<[u8; SECRET_LEN]>> {
    if text.len() > MAX_TEXT_LEN {
        return None;
    }
    let text = text.trim_ascii();
    let mut buffer = Zeroizing::new([0u8; MAX_TEXT_LEN]);
    let len = base64_of(text).decode_slice(text, &mut buffer[..]).ok()?;
    let bytes = <&[u8; SECRET_LEN]>::try_from(buffer.get(..len)?).ok()?;
    Some(Zeroizing::new(*bytes))
}

/// The engine for the alphabet that `text` uses; padding may stand or not.
fn base64_of(text: &str) -> GeneralPurpose {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let is_url_safe = text.contains(['-', '_']);
    GeneralPurpose::new(if is_url_safe { &alphabet::URL_SAFE } else { &alphabet::STANDARD }, CONFIG)
}

/// Whether nobody can have drawn these bytes at random: few different ones, few different steps from
/// one to the next (a sequence), or nothing but printable ASCII (a pass phrase).
fn is_weak(bytes: &[u8; SECRET_LEN]) -> bool {
    let steps = bytes.iter().zip(bytes.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a));
    count_different(bytes.iter().copied()) < MIN_DIFFERENT_BYTES
        || count_different(steps) < MIN_DIFFERENT_BYTES
        || bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

fn count_different(bytes: impl Iterator<Item = u8>) -> usize {
    let mut seen = Zeroizing::new([false; 256]);
    bytes.for_each(|byte| seen[usize::from(byte)] = true);
    seen.iter().filter(|seen| **seen).count()
}

/// HKDF-SHA-256 (RFC 5869) of a secret: `N` bytes for the use that `label` names.
fn derive<const N: usize>(secret: &[u8], label: &str) -> [u8; N] {
    expand(b"portcullis key v1", secret, label)
}

#[expect(clippy::expect_used, reason = "HKDF fails above 8160 bytes only; N is 32 or less")]
fn expand<const N: usize>(salt: &[u8], secret: &[u8], label: &str) -> [u8; N] {
    const { assert!(N <= SECRET_LEN) }
    let mut out = [0u8; N];
    Hkdf::<Sha256>::new(Some(salt), secret).expand(label.as_bytes(), &mut out).expect("short output");
    out
}

/// The ring, whose keys can be exchanged.
pub struct KeyRing {
    keys: ArcSwap<Ring>,
    exchanges: AtomicU64,
}

/// The keys of one moment.
pub(super) struct Ring {
    sealing: KeySet,
    /// Keys that only open.
    older: Vec<KeySet>,
}

/// All that is derived from one key.
pub(super) struct KeySet {
    id: KeyId,
    session: Aes256Gcm,
    login: Aes256Gcm,
    sign_out: Aes256Gcm,
    trips: Aes256Gcm,
    record: Zeroizing<[u8; 32]>,
    keys: Zeroizing<[u8; 32]>,
}

impl KeyRing {
    /// The first key seals, all open.
    ///
    /// # Errors
    /// [`KeyError::Empty`], [`KeyError::TooMany`]; [`KeyError::Duplicate`] where two keys have the same id.
    pub fn new(keys: &[Key]) -> Result<Self, KeyError> {
        Ok(Self { keys: ArcSwap::from_pointee(Ring::new(keys)?), exchanges: AtomicU64::new(0) })
    }

    /// Takes these keys in the place of all that it had; says whether it had others.
    ///
    /// # Errors
    /// As [`KeyRing::new`]; the ring is then as before.
    pub fn replace(&self, keys: &[Key]) -> Result<bool, KeyError> {
        if keys.iter().map(|key| key.id).eq(self.ids()) {
            return Ok(false);
        }
        self.keys.store(Arc::new(Ring::new(keys)?));
        self.exchanges.fetch_add(1, Ordering::Release);
        Ok(true)
    }

    /// How often its keys were exchanged. What was opened since this was last asked, and it says the same, was
    /// opened with the keys that it has.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Acquire)
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn sealing_id(&self) -> KeyId {
        self.load().sealing.id
    }

    /// Whether it has a key.
    #[must_use]
    pub fn has(&self, id: KeyId) -> bool {
        self.load().find(id).is_some()
    }

    /// The ids of its keys; the first one seals.
    #[must_use]
    pub fn ids(&self) -> Vec<KeyId> {
        let ring = self.load();
        std::iter::once(&ring.sealing).chain(&ring.older).map(KeySet::id).collect()
    }

    /// The keys of this moment.
    pub(super) fn load(&self) -> Guard<Arc<Ring>> {
        self.keys.load()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", 1 + self.load().older.len())
    }
}

/// Whether keys can be one ring.
///
/// # Errors
/// As [`KeyRing::new`].
pub fn check_ring(keys: &[Key]) -> Result<(), KeyError> {
    let repeats = |(place, key): (usize, &Key)| keys.iter().take(place).any(|other| other.id == key.id);
    match keys.len() {
        0 => Err(KeyError::Empty),
        1..=MAX_KEYS if keys.iter().enumerate().any(repeats) => Err(KeyError::Duplicate),
        1..=MAX_KEYS => Ok(()),
        _ => Err(KeyError::TooMany),
    }
}

impl Ring {
    fn new(keys: &[Key]) -> Result<Self, KeyError> {
        check_ring(keys)?;
        let mut sets = keys.iter().map(KeySet::new);
        let sealing = sets.next().ok_or(KeyError::Empty)?;
        Ok(Self { sealing, older: sets.collect() })
    }

    /// The key that seals.
    pub(super) const fn sealing(&self) -> &KeySet {
        &self.sealing
    }

    /// The key with this id, and whether it is an older one.
    pub(super) fn find(&self, id: KeyId) -> Option<(&KeySet, bool)> {
        if self.sealing.id == id {
            return Some((&self.sealing, false));
        }
        self.older.iter().find(|set| set.id == id).map(|set| (set, true))
    }
}

impl KeySet {
    fn new(key: &Key) -> Self {
        let secret = key.secret.expose();
        let cookie = |purpose: Purpose| cipher(&Zeroizing::new(derive(secret, purpose.label())));
        Self {
            id: key.id,
            session: cookie(Purpose::SessionCookie),
            login: cookie(Purpose::LoginCookie),
            sign_out: cookie(Purpose::SignOutCookie),
            trips: cookie(Purpose::TripsCookie),
            record: Zeroizing::new(derive(secret, "records")),
            keys: Zeroizing::new(derive(secret, "made keys")),
        }
    }

    /// The key's id.
    pub(super) const fn id(&self) -> KeyId {
        self.id
    }

    /// The cipher for cookies of a purpose.
    pub(super) const fn cookies(&self, purpose: Purpose) -> &Aes256Gcm {
        match purpose {
            Purpose::SessionCookie => &self.session,
            Purpose::LoginCookie => &self.login,
            Purpose::SignOutCookie => &self.sign_out,
            Purpose::TripsCookie => &self.trips,
        }
    }

    /// The cipher for the one record that has this salt: random nonces under one key would come near
    /// their limit of 2^32 in a big fleet.
    pub(super) fn record(&self, salt: &[u8; 32]) -> Aes256Gcm {
        cipher(&Zeroizing::new(expand(salt, &self.record[..], "record")))
    }

    /// The cipher for the one record of keys that has this salt.
    pub(super) fn keys(&self, salt: &[u8; 32]) -> Aes256Gcm {
        cipher(&Zeroizing::new(expand(salt, &self.keys[..], "keys")))
    }
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(key.into())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

    use super::*;

    /// Bytes that use both alphabets' own characters.
    const BYTES: [u8; 32] = [
        0xfb, 0xef, 0xbe, 0xff, 0x07, 0x11, 0x9c, 0x33, 0x4d, 0x88, 0xe0, 0x12, 0x5a, 0x6b, 0x90, 0xc1, 0xd2,
        0x2f, 0x39, 0x74, 0xa5, 0x03, 0x1d, 0xb7, 0x66, 0xf8, 0x41, 0x9f, 0x0a, 0xcc, 0x58, 0xe6,
    ];

    fn parse(text: impl Into<String>) -> Result<Key, KeyError> {
        Key::parse(&Secret::new(text.into()))
    }

    #[test]
    fn a_key_reads_in_every_spelling_of_base64() {
        let cases = [
            ("standard", STANDARD.encode(BYTES)),
            ("standard, unpadded", STANDARD_NO_PAD.encode(BYTES)),
            ("url-safe", URL_SAFE.encode(BYTES)),
            ("url-safe, unpadded", URL_SAFE_NO_PAD.encode(BYTES)),
            ("white space around", format!(" \t{}\r\n", STANDARD.encode(BYTES))),
        ];
        for (name, text) in cases {
            assert_eq!(parse(text).unwrap().secret.expose(), &BYTES, "{name}");
        }
    }

    #[test]
    fn a_key_that_was_written_reads_back() {
        let key = Key::from_bytes(BYTES);
        let text = key.to_text();
        assert!(text.expose().ends_with('\n'));
        let read = Key::parse(&text).unwrap();
        assert_eq!((read.id, read.secret.expose()), (key.id, key.secret.expose()));
    }

    #[test]
    fn what_is_no_key_is_malformed() {
        let good = STANDARD.encode(BYTES);
        let cases = [
            ("empty", String::new()),
            ("white space", " \n".to_owned()),
            ("31 bytes", STANDARD.encode(&BYTES[1..])),
            ("33 bytes", STANDARD.encode([&BYTES[..], &[1]].concat())),
            ("64 bytes", STANDARD.encode([BYTES, BYTES].concat())),
            ("hex", "fbefbeff07119c334d88e0125a6b90c1d22f3974a5031db766f8419f0acc58e6".to_owned()),
            ("a phrase", "correct horse battery staple".to_owned()),
            ("white space within", good.replacen('i', " i", 1)),
            ("both alphabets", good.replacen('+', "-", 1)),
            ("bits after the end", STANDARD_NO_PAD.encode(BYTES).replace("OY", "OZ")),
            ("two lines", format!("{good}\n{good}\n")),
            ("very long", "A".repeat(1 << 20)),
        ];
        assert!(good.contains('+') && good.matches(['+', '/']).count() > 1 && good.ends_with('='));
        for (name, text) in cases {
            assert_eq!(parse(text).err(), Some(KeyError::Malformed), "{name}");
        }
    }

    #[test]
    fn keys_that_nobody_drew_at_random_are_refused() {
        let there_and_back: Vec<u8> =
            BYTES.iter().take(15).chain(BYTES.iter().take(15).rev()).copied().collect();
        let cases: [(&str, Vec<u8>); 6] = [
            ("zeros", vec![0; 32]),
            ("all alike", vec![0xa7; 32]),
            ("two values in turn", [0x13, 0xee].repeat(16)),
            ("fifteen different bytes", [&there_and_back[..], &BYTES[1..3]].concat()),
            ("a sequence", (100..132).collect()),
            ("a pass phrase", b"Tr0ub4dor&3-Zq9!pLx7Wm2@Ky5#Hn8u".to_vec()),
        ];
        for (name, bytes) in cases {
            assert_eq!(bytes.len(), 32, "{name}");
            assert_eq!(parse(STANDARD.encode(bytes)).err(), Some(KeyError::Weak), "{name}");
        }
    }

    #[test]
    fn random_keys_are_never_weak() {
        for _ in 0..1000 {
            assert!(!is_weak(&crate::random::random_bytes().unwrap()));
        }
    }

    #[test]
    fn a_ring_needs_keys_that_differ() {
        let (one, two) = (Key::from_bytes(BYTES), Key::from_bytes([7; 32]));
        assert_eq!(KeyRing::new(&[]).err(), Some(KeyError::Empty));
        let twice = [one.clone(), two.clone(), one.clone()];
        assert_eq!(KeyRing::new(&twice).err(), Some(KeyError::Duplicate));
        assert!(KeyRing::new(&[one, two]).is_ok());
        let many: Vec<Key> = (0..=64).map(|byte| Key::from_bytes([byte; 32])).collect();
        assert_eq!(KeyRing::new(&many).err(), Some(KeyError::TooMany));
        assert!(KeyRing::new(&many[1..]).is_ok());
    }

    #[test]
    fn keys_are_exchanged_all_at_once_or_not_at_all() {
        let keys: Vec<Key> = (0..3).map(|byte| Key::from_bytes([byte; 32])).collect();
        let ring = KeyRing::new(&keys[..1]).unwrap();
        ring.replace(&keys[1..]).unwrap();
        assert_eq!(ring.ids(), [keys[1].id, keys[2].id]);
        assert_eq!(ring.replace(&[]), Err(KeyError::Empty));
        assert_eq!(ring.replace(&[keys[0].clone(), keys[0].clone()]), Err(KeyError::Duplicate));
        assert_eq!(ring.ids(), [keys[1].id, keys[2].id]);
    }

    #[test]
    fn a_text_has_one_key_a_line_and_every_line_counts() {
        let keys = [BYTES, [BYTES[0]; 32].map(|byte| byte ^ 1)].map(Key::from_bytes);
        let [one, two] = keys.each_ref().map(|key| STANDARD.encode(key.secret.expose()));
        let other = URL_SAFE_NO_PAD.encode(BYTES.map(|byte| byte.wrapping_mul(3)));
        let cases: [(&str, String, Result<usize, KeyError>); 9] = [
            ("one", one.clone(), Ok(1)),
            ("a newline", format!("{one}\n"), Ok(1)),
            ("two", format!("{one}\n{other}\n"), Ok(2)),
            ("of Windows, and empty lines", format!("\r\n{one}\r\n\r\n{other}\r\n \n"), Ok(2)),
            ("nothing", String::new(), Err(KeyError::Empty)),
            ("empty lines", " \n\n".to_owned(), Err(KeyError::Empty)),
            ("a weak one behind a good one", format!("{one}\n{two}\n"), Err(KeyError::Weak)),
            ("cut in the second", format!("{one}\n{}", other.split_at(20).0), Err(KeyError::Malformed)),
            ("too many", format!("{one}\n").repeat(65), Err(KeyError::TooMany)),
        ];
        for (name, text, wanted) in cases {
            let found = parse_keys(&Secret::new(text)).map(|keys| keys.len());
            assert_eq!(found, wanted, "{name}");
        }
    }

    #[test]
    fn the_first_key_is_the_one_that_seals_and_all_are_found() {
        let keys: Vec<Key> = (0..3).map(|byte| Key::from_bytes([byte; 32])).collect();
        let ring = KeyRing::new(&keys).unwrap();
        let ring = ring.load();
        assert_eq!(ring.sealing().id(), keys[0].id);
        let found: Vec<_> = keys.iter().map(|key| ring.find(key.id).map(|(_, older)| older)).collect();
        assert_eq!(found, [Some(false), Some(true), Some(true)]);
        assert!(ring.find(Key::from_bytes(BYTES).id).is_none());
    }

    #[test]
    fn every_use_of_a_secret_has_bytes_of_its_own() {
        let labels = ["key id", "session cookie", "login cookie", "sign-out cookie", "records", "made keys"];
        let mut derived: Vec<[u8; 4]> = labels.iter().map(|label| derive(&BYTES, label)).collect();
        derived.sort_unstable();
        derived.dedup();
        assert_eq!(derived.len(), labels.len());
    }

    #[test]
    fn nothing_of_a_secret_is_printed() {
        let key = Key::from_bytes(BYTES);
        assert_eq!(format!("{key:?}"), format!("Key {{ id: {:?}, secret: [redacted] }}", key.id));
        assert_eq!(format!("{:?}", key.to_text()), "[redacted]");
        assert_eq!(format!("{:?}", KeyRing::new(&[key]).unwrap()), "KeyRing(1 keys)");
    }
}
