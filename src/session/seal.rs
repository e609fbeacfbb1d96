//! AES-256-GCM over cookies and records.
//!
//! A sealed cookie is `base64url(version | key id | nonce | ciphertext and tag)`, its associated data
//! the length-prefixed purpose, cookie name, host and key id and the version. A sealed record is
//! `version | key id | salt | nonce | ciphertext and tag` under a key derived from the salt, its
//! associated data the record's store key, the key id and the version. Nonces and salts are random.
//!
//! Opening a cookie is on the path of every request: one allocation for the value, one for the
//! associated data, no key derivation.

use std::{fmt, io};

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut as _, Nonce, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::Session;
use super::key_ring::{KeyId, KeyRing, KeySet, Purpose, Ring};
use super::made_keys::MadeKeys;
use crate::random::{RandomError, random_bytes};

/// The longest sealed cookie value. A browser keeps cookies of 4096 bytes with name and attributes
/// (SC-9); ours need less than 256 for those.
pub const MAX_COOKIE_VALUE: usize = 4096 - 256;

/// The largest session, as JSON. Tokens and claims come from outside and need a bound.
pub const MAX_RECORD: usize = 512 * 1024;

/// The format of both; it is in front of every value and in its associated data.
const VERSION: u8 = 1;

/// Bytes of version and key id.
const HEAD_LEN: usize = 5;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const SALT_LEN: usize = 32;

/// A value that does not open: tampered, of another purpose, name or host, of a key that is gone. One error for all:
/// telling them apart helps nobody but an attacker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value does not open")]
pub struct OpenError;

/// Why a record could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No entropy.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The value is too large or can't be written as JSON.
    #[error("the value is too large to be kept")]
    Value,
}

/// An opened cookie.
pub struct Opened {
    /// The plain bytes.
    pub plain: Zeroizing<Vec<u8>>,
    /// Whether an older key sealed it: the caller may seal it anew.
    pub by_old_key: bool,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened {{ plain: [redacted], by_old_key: {} }}", self.by_old_key)
    }
}

/// Seals `plain` for the cookie `name` on `host`.
///
/// # Errors
/// [`SealError::Random`]; [`SealError::Value`] above [`MAX_COOKIE_VALUE`].
pub fn seal_cookie(
    ring: &KeyRing,
    purpose: Purpose,
    name: &str,
    host: &str,
    plain: &[u8],
) -> Result<String, SealError> {
    let ring = ring.load();
    let set = ring.sealing();
    let head = head_of(set);
    let aad = cookie_aad(&head, purpose, name, host);
    let value = URL_SAFE_NO_PAD.encode(encrypt(set.cookies(purpose), &aad, &head, plain)?);
    if value.len() > MAX_COOKIE_VALUE { Err(SealError::Value) } else { Ok(value) }
}

/// Opens a cookie value.
///
/// # Errors
/// [`OpenError`].
pub fn open_cookie(
    ring: &KeyRing,
    purpose: Purpose,
    name: &str,
    host: &str,
    value: &[u8],
) -> Result<Opened, OpenError> {
    if value.len() > MAX_COOKIE_VALUE {
        return Err(OpenError);
    }
    let bytes = URL_SAFE_NO_PAD.decode(value).ok().ok_or(OpenError)?;
    let ring = ring.load();
    let (set, by_old_key) = key_of(&ring, &bytes).ok_or(OpenError)?;
    let aad = cookie_aad(&head_of(set), purpose, name, host);
    let plain = decrypt(set.cookies(purpose), &aad, bytes, HEAD_LEN)?;
    Ok(Opened { plain, by_old_key })
}

/// Seals a session for the store.
///
/// # Errors
/// [`SealError::Random`]; [`SealError::Value`] above [`MAX_RECORD`].
pub fn seal_record(ring: &KeyRing, store_key: &[u8; 32], session: &Session) -> Result<Vec<u8>, SealError> {
    let mut json = JsonBuffer::default();
    serde_json::to_writer(&mut json, session).ok().ok_or(SealError::Value)?;
    seal_salted(ring, &SESSION_RECORD, store_key, &json.0)
}

/// Seals keys that gateways made, for the store.
///
/// # Errors
/// [`SealError::Random`].
pub fn seal_keys(ring: &KeyRing, store_key: &[u8; 32], keys: &MadeKeys) -> Result<Vec<u8>, SealError> {
    seal_salted(ring, &KEYS_RECORD, store_key, keys.to_text().expose().as_bytes())
}

/// Opens keys from the store.
///
/// # Errors
/// [`OpenError`].
pub fn open_keys(ring: &KeyRing, store_key: &[u8; 32], bytes: &[u8]) -> Result<MadeKeys, OpenError> {
    let text = open_salted(ring, &KEYS_RECORD, store_key, bytes)?;
    let text = std::str::from_utf8(&text).ok().ok_or(OpenError)?;
    MadeKeys::parse(text).ok().ok_or(OpenError)
}

/// What is in a record: the cipher for one with a salt, and its word in the associated data.
struct Kind {
    cipher: fn(&KeySet, &[u8; SALT_LEN]) -> Aes256Gcm,
    label: &'static [u8],
}

const SESSION_RECORD: Kind = Kind { cipher: KeySet::record, label: b"portcullis record" };
const KEYS_RECORD: Kind = Kind { cipher: KeySet::keys, label: b"portcullis keys" };

fn seal_salted(
    ring: &KeyRing,
    kind: &Kind,
    store_key: &[u8; 32],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    let ring = ring.load();
    let set = ring.sealing();
    let (head, salt) = (head_of(set), random_bytes::<SALT_LEN>()?);
    let aad = record_aad(kind, &head, store_key);
    encrypt(&(kind.cipher)(set, &salt), &aad, &[&head[..], &salt].concat(), plain)
}

fn open_salted(
    ring: &KeyRing,
    kind: &Kind,
    store_key: &[u8; 32],
    bytes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    if bytes.len() > HEAD_LEN + SALT_LEN + NONCE_LEN + MAX_RECORD + TAG_LEN {
        return Err(OpenError);
    }
    let ring = ring.load();
    let (set, _) = key_of(&ring, bytes).ok_or(OpenError)?;
    let salt = bytes.get(HEAD_LEN..).and_then(<[u8]>::first_chunk).ok_or(OpenError)?;
    let aad = record_aad(kind, &head_of(set), store_key);
    decrypt(&(kind.cipher)(set, salt), &aad, bytes.to_vec(), HEAD_LEN + SALT_LEN)
}

/// The key that sealed a cookie, as its head says; `None` where it is no value of ours.
#[must_use]
pub fn cookie_key(value: &[u8]) -> Option<KeyId> {
    // Eight characters are the first six bytes.
    let mut bytes = [0; 6];
    URL_SAFE_NO_PAD.decode_slice(value.get(..8)?, &mut bytes).ok()?;
    if bytes[0] == VERSION { record_key(&bytes) } else { None }
}

/// The key that sealed a record, as its head says.
#[must_use]
pub fn record_key(bytes: &[u8]) -> Option<KeyId> {
    let (&[_, ref id @ ..], _) = bytes.split_first_chunk::<HEAD_LEN>()?;
    Some(KeyId(*id))
}

/// Opens a session from the store.
///
/// # Errors
/// [`OpenError`].
pub fn open_record(ring: &KeyRing, store_key: &[u8; 32], bytes: &[u8]) -> Result<Session, OpenError> {
    let json = open_salted(ring, &SESSION_RECORD, store_key, bytes)?;
    serde_json::from_slice(&json).ok().ok_or(OpenError)
}

/// What every sealed value starts with: the version and the id of its key.
fn head_of(set: &KeySet) -> [u8; HEAD_LEN] {
    let KeyId([a, b, c, d]) = set.id();
    [VERSION, a, b, c, d]
}

/// The key that sealed `bytes`, and whether it is an older one.
fn key_of<'a>(ring: &'a Ring, bytes: &[u8]) -> Option<(&'a KeySet, bool)> {
    let (&[version, ref id @ ..], _) = bytes.split_first_chunk::<HEAD_LEN>()?;
    if version == VERSION { ring.find(KeyId(*id)) } else { None }
}

/// SC-3: a value can't move between purposes, names, hosts, keys or versions.
fn cookie_aad(head: &[u8], purpose: Purpose, name: &str, host: &str) -> Vec<u8> {
    let purpose = purpose.label().as_bytes();
    associated_data([b"portcullis cookie", purpose, name.as_bytes(), host.as_bytes(), head])
}

/// A record can't move to another store key.
fn record_aad(kind: &Kind, head: &[u8], store_key: &[u8; 32]) -> Vec<u8> {
    associated_data([kind.label, store_key, head])
}

/// The parts, each behind its length, so that they can't run into each other.
fn associated_data<const N: usize>(parts: [&[u8]; N]) -> Vec<u8> {
    let len = parts.iter().map(|part| size_of::<u64>() + part.len()).sum();
    let mut aad = Vec::with_capacity(len);
    for part in parts {
        aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
        aad.extend_from_slice(part);
    }
    aad
}

/// `head | nonce | ciphertext and tag` under a fresh nonce.
fn encrypt(cipher: &Aes256Gcm, aad: &[u8], head: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce = random_bytes::<NONCE_LEN>()?;
    let mut out = Vec::with_capacity(head.len() + NONCE_LEN + plain.len() + TAG_LEN);
    for part in [head, &nonce, plain] {
        out.extend_from_slice(part);
    }
    let (_, text) = out.split_at_mut(head.len() + NONCE_LEN);
    let tag = cipher.encrypt_inout_detached(&nonce.into(), aad, text.into()).ok().ok_or(SealError::Value)?;
    out.extend_from_slice(&tag);
    Ok(out)
}

/// Decrypts `nonce | ciphertext and tag`, which stands behind `head_len` bytes, in its own place and
/// gives what is left: the plain bytes.
fn decrypt(
    cipher: &Aes256Gcm,
    aad: &[u8],
    bytes: Vec<u8>,
    head_len: usize,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let mut bytes = Zeroizing::new(bytes);
    let body = bytes.get_mut(head_len..).ok_or(OpenError)?;
    decrypt_in_place(cipher, aad, body).ok_or(OpenError)?;
    let end = bytes.len() - TAG_LEN;
    bytes.truncate(end);
    bytes.drain(..head_len + NONCE_LEN);
    Ok(bytes)
}

fn decrypt_in_place(cipher: &Aes256Gcm, aad: &[u8], body: &mut [u8]) -> Option<()> {
    let (nonce, rest) = body.split_first_chunk_mut::<NONCE_LEN>()?;
    let (text, tag) = rest.split_last_chunk_mut::<TAG_LEN>()?;
    let (nonce, tag) = (Nonce::<Aes256Gcm>::from(*nonce), Tag::<Aes256Gcm>::from(*tag));
    cipher.decrypt_inout_detached(&nonce, aad, text.into(), &tag).ok()
}

/// JSON on its way into a record. It grows into a new buffer and zeroes the old one, where a plain
/// vector would leave copies of tokens behind. Refuses more than [`MAX_RECORD`] bytes.
#[derive(Default)]
struct JsonBuffer(Zeroizing<Vec<u8>>);

impl io::Write for JsonBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.0.len() + bytes.len();
        if len > MAX_RECORD {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if len > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity((2 * len).max(4096)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;
    use std::io::Write as _;

    use serde_json::json;

    use super::*;
    use crate::clock::UnixTime;
    use crate::oidc::{Issuer, ProviderId};
    use crate::secret::Secret;
    use crate::session::{Key, SessionId};
    use crate::token::Claims;

    const NAME: &str = "__Host-portcullis";
    const HOST: &str = "wiki.example.com";
    const SESSION: Purpose = Purpose::SessionCookie;
    const STORE_KEY: [u8; 32] = [9; 32];

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32])
    }

    fn ring(keys: &[u8]) -> KeyRing {
        let keys: Vec<Key> = keys.iter().map(|&byte| key(byte)).collect();
        KeyRing::new(&keys).unwrap()
    }

    fn seal(ring: &KeyRing, plain: &[u8]) -> String {
        seal_cookie(ring, SESSION, NAME, HOST, plain).unwrap()
    }

    fn open(ring: &KeyRing, value: impl AsRef<[u8]>) -> Result<Opened, OpenError> {
        open_cookie(ring, SESSION, NAME, HOST, value.as_ref())
    }

    pub(crate) fn session() -> Session {
        let claims = json!({"sub": "1", "name": "Zoë", "groups": ["a", "b"]});
        Session {
            provider: ProviderId("main".into()),
            issuer: Issuer("https://op.example".into()),
            subject: "1".into(),
            sid: Some("s-1".into()),
            host: HOST.into(),
            claims: Claims::new(claims.as_object().unwrap().clone()),
            id_token: Secret::new("the.id.token".into()),
            access_token: Secret::new("the-access-token".into()),
            access_expires_at: Some(UnixTime::from_secs(300)),
            refresh_token: None,
            refreshed_at: None,
            refresh_sent_at: None,
            created_at: UnixTime::from_secs(1),
            last_seen: UnixTime::from_secs(2),
            longest_idle: std::time::Duration::ZERO,
            client: Some([10, 0, 0, 1].into()),
            user_agent: None,
        }
    }

    #[test]
    fn a_cookie_opens_to_what_was_sealed() {
        let ring = ring(&[1]);
        for plain in [&b""[..], b"x", &[0xff; 32], &[b'a'; 2000]] {
            let opened = open(&ring, seal(&ring, plain)).unwrap();
            assert_eq!((&**opened.plain, opened.by_old_key), (plain, false));
        }
    }

    #[test]
    fn a_session_cookie_has_about_a_hundred_bytes_of_base64url() {
        let value = seal(&ring(&[1]), SessionId::new([5; 32]).expose());
        assert_eq!(value.len(), 87);
        assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }

    #[test]
    fn sealing_twice_gives_two_values() {
        let ring = ring(&[1]);
        assert_ne!(seal(&ring, b"same"), seal(&ring, b"same"));
        let records = [0, 1].map(|_| seal_record(&ring, &STORE_KEY, &session()).unwrap());
        let after_head = records.each_ref().map(|record| &record[HEAD_LEN..]);
        assert_ne!(after_head[0][..SALT_LEN], after_head[1][..SALT_LEN], "salt");
        assert_ne!(after_head[0][SALT_LEN..][..NONCE_LEN], after_head[1][SALT_LEN..][..NONCE_LEN], "nonce");
    }

    #[test]
    fn a_cookie_with_any_bit_changed_does_not_open() {
        let ring = ring(&[1, 2]);
        let bytes = URL_SAFE_NO_PAD.decode(seal(&ring, &[7; 32])).unwrap();
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[place] ^= 1 << bit;
                let value = URL_SAFE_NO_PAD.encode(changed);
                assert_eq!(open(&ring, value).err(), Some(OpenError), "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_cookie_with_any_character_changed_does_not_open() {
        let ring = ring(&[1]);
        let value = seal(&ring, &[7; 32]).into_bytes();
        for place in 0..value.len() {
            for other in (0..=255).filter(|other| *other != value[place]) {
                let mut changed = value.clone();
                changed[place] = other;
                assert_eq!(open(&ring, changed).err(), Some(OpenError), "character {place} as {other}");
            }
        }
    }

    #[test]
    fn a_cookie_that_is_cut_or_extended_does_not_open() {
        let ring = ring(&[1]);
        let value = seal(&ring, &[7; 32]);
        for len in 0..value.len() {
            assert_eq!(open(&ring, &value.as_bytes()[..len]).err(), Some(OpenError), "cut to {len}");
        }
        for more in ["A", "AA", "AAAA", "=", "==", " ", "%%%", "\0", ".x", &"A".repeat(4096)] {
            assert_eq!(open(&ring, format!("{value}{more}")).err(), Some(OpenError), "extended by {more:?}");
        }
    }

    #[test]
    fn what_was_never_sealed_does_not_open() {
        let ring = ring(&[1]);
        let four_kib = "A".repeat(4096);
        let million = "A".repeat(1 << 20);
        for value in ["", "A", "%%%", "null", "\u{feff}", &four_kib, &million] {
            assert_eq!(open(&ring, value).err(), Some(OpenError), "{} bytes", value.len());
        }
    }

    #[test]
    fn a_cookie_opens_only_for_its_purpose_name_and_host() {
        let ring = ring(&[1]);
        let value = seal(&ring, b"plain");
        let cases = [
            ("purpose", Purpose::LoginCookie, NAME, HOST),
            ("another purpose", Purpose::SignOutCookie, NAME, HOST),
            ("a third purpose", Purpose::TripsCookie, NAME, HOST),
            ("name", SESSION, "portcullis", HOST),
            ("case of the name", SESSION, "__host-portcullis", HOST),
            ("host", SESSION, NAME, "files.example.com"),
            ("name and host cut elsewhere", SESSION, "__Host-portcullisw", "iki.example.com"),
            ("no host", SESSION, NAME, ""),
        ];
        assert!(open_cookie(&ring, SESSION, NAME, HOST, value.as_bytes()).is_ok());
        for (what, purpose, name, host) in cases {
            let opened = open_cookie(&ring, purpose, name, host, value.as_bytes());
            assert_eq!(opened.err(), Some(OpenError), "{what}");
        }
    }

    #[test]
    fn the_purpose_is_in_the_associated_data_too() {
        let purposes =
            [Purpose::SessionCookie, Purpose::LoginCookie, Purpose::SignOutCookie, Purpose::TripsCookie];
        let aads: HashSet<_> = purposes.map(|purpose| cookie_aad(&[1], purpose, NAME, HOST)).into();
        assert_eq!(aads.len(), purposes.len());
    }

    #[test]
    fn the_version_and_the_key_id_are_in_the_associated_data_too() {
        let head = [VERSION, 1, 2, 3, 4];
        for place in 0..head.len() {
            let mut other = head;
            other[place] ^= 1;
            assert_ne!(cookie_aad(&head, SESSION, NAME, HOST), cookie_aad(&other, SESSION, NAME, HOST));
            let [one, two] = [head, other].map(|head| record_aad(&SESSION_RECORD, &head, &STORE_KEY));
            assert_ne!(one, two);
        }
    }

    #[test]
    fn an_older_key_opens_and_says_so_and_a_removed_key_opens_nothing() {
        let value = seal(&ring(&[1]), b"plain");
        let cases: [(&str, &[u8], Option<bool>); 4] = [
            ("alone", &[1], Some(false)),
            ("behind a new key", &[2, 1], Some(true)),
            ("in front of another", &[1, 2], Some(false)),
            ("removed", &[2], None),
        ];
        for (name, keys, wanted) in cases {
            let opened = open(&ring(keys), &value).ok().map(|opened| opened.by_old_key);
            assert_eq!(opened, wanted, "{name}");
        }
    }

    #[test]
    fn the_first_key_seals() {
        let value = seal(&ring(&[2, 1]), b"plain");
        assert!(open(&ring(&[2]), &value).is_ok());
        assert_eq!(open(&ring(&[1]), &value).err(), Some(OpenError));
    }

    #[test]
    fn a_value_too_long_for_a_cookie_is_not_sealed() {
        let ring = ring(&[1]);
        let most = MAX_COOKIE_VALUE / 4 * 3 - HEAD_LEN - NONCE_LEN - TAG_LEN;
        assert!(open(&ring, seal(&ring, &vec![1; most])).is_ok());
        let sealed = seal_cookie(&ring, SESSION, NAME, HOST, &vec![1; most + 1]);
        assert!(matches!(sealed, Err(SealError::Value)));
    }

    #[test]
    fn what_is_longer_than_anything_that_is_sealed_does_not_open() {
        let ring = ring(&[1]);
        let now = ring.load();
        let set = now.sealing();
        let (head, salt) = (head_of(set), [3; SALT_LEN]);
        let aad = cookie_aad(&head, SESSION, NAME, HOST);
        let cookie = |len| encrypt(set.cookies(SESSION), &aad, &head, &vec![b'x'; len]).unwrap();
        assert!(open(&ring, URL_SAFE_NO_PAD.encode(cookie(2800))).is_ok());
        assert_eq!(open(&ring, URL_SAFE_NO_PAD.encode(cookie(2900))).err(), Some(OpenError));
        let json = serde_json::to_string(&session()).unwrap();
        let record = |len| {
            let aad = record_aad(&SESSION_RECORD, &head, &STORE_KEY);
            let json = format!("{json}{}", " ".repeat(len - json.len()));
            encrypt(&set.record(&salt), &aad, &[&head[..], &salt].concat(), json.as_bytes()).unwrap()
        };
        assert!(open_record(&ring, &STORE_KEY, &record(MAX_RECORD)).is_ok());
        assert_eq!(open_record(&ring, &STORE_KEY, &record(MAX_RECORD + 1)).err(), Some(OpenError));
    }

    #[test]
    fn a_record_opens_to_the_session_that_was_sealed() {
        let ring = ring(&[1]);
        let bytes = seal_record(&ring, &STORE_KEY, &session()).unwrap();
        let opened = open_record(&ring, &STORE_KEY, &bytes).unwrap();
        let [one, two] = [&session(), &opened].map(|session| serde_json::to_value(session).unwrap());
        assert_eq!(one, two);
    }

    #[test]
    fn a_record_shows_nothing_of_the_session() {
        let bytes = seal_record(&ring(&[1]), &STORE_KEY, &session()).unwrap();
        for word in ["the-access-token", "the.id.token", "op.example", "subject"] {
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn a_record_with_any_byte_changed_or_cut_does_not_open() {
        let ring = ring(&[1, 2]);
        let bytes = seal_record(&ring, &STORE_KEY, &session()).unwrap();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert_eq!(open_record(&ring, &STORE_KEY, &changed).err(), Some(OpenError), "byte {place}");
            assert_eq!(open_record(&ring, &STORE_KEY, &bytes[..place]).err(), Some(OpenError), "cut {place}");
        }
    }

    #[test]
    fn a_record_opens_only_under_its_store_key() {
        let ring = ring(&[1]);
        let bytes = seal_record(&ring, &STORE_KEY, &session()).unwrap();
        assert!(open_record(&ring, &STORE_KEY, &bytes).is_ok());
        assert_eq!(open_record(&ring, &[8; 32], &bytes).err(), Some(OpenError));
    }

    #[test]
    fn a_record_of_an_older_key_opens_and_of_a_removed_key_does_not() {
        let bytes = seal_record(&ring(&[1]), &STORE_KEY, &session()).unwrap();
        assert!(open_record(&ring(&[2, 1]), &STORE_KEY, &bytes).is_ok());
        assert_eq!(open_record(&ring(&[2]), &STORE_KEY, &bytes).err(), Some(OpenError));
    }

    #[test]
    fn a_cookie_is_no_record_and_a_record_no_cookie() {
        let ring = ring(&[1]);
        let record = seal_record(&ring, &STORE_KEY, &session()).unwrap();
        assert_eq!(open(&ring, URL_SAFE_NO_PAD.encode(record)).err(), Some(OpenError));
        let cookie = URL_SAFE_NO_PAD.decode(seal(&ring, &[1; 500])).unwrap();
        assert_eq!(open_record(&ring, &STORE_KEY, &cookie).err(), Some(OpenError));
    }

    #[test]
    fn a_cookie_tells_its_key_and_nothing_else_does() {
        let ring = ring(&[1]);
        assert_eq!(cookie_key(seal(&ring, b"x").as_bytes()), Some(key(1).id));
        for value in ["", "AQ", "AAAAAAAA", "%%%%%%%%", "Ag8PDw8P"] {
            assert_eq!(cookie_key(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn keys_open_as_keys_only_and_under_their_store_key_only() {
        let ring = ring(&[1]);
        let fresh = Key::from_bytes(random_bytes().unwrap());
        let keys = MadeKeys::first(fresh, UnixTime::from_secs(7));
        let bytes = seal_keys(&ring, &STORE_KEY, &keys).unwrap();
        assert_eq!(open_keys(&ring, &STORE_KEY, &bytes), Ok(keys));
        assert_eq!(open_keys(&ring, &[8; 32], &bytes), Err(OpenError));
        assert_eq!(open_record(&ring, &STORE_KEY, &bytes).err(), Some(OpenError));
        let record = seal_record(&ring, &STORE_KEY, &session()).unwrap();
        assert_eq!(open_keys(&ring, &STORE_KEY, &record), Err(OpenError));
    }

    #[test]
    fn a_record_has_a_bound() {
        let ring = ring(&[1]);
        let with_token = |len: usize| Session { access_token: Secret::new("x".repeat(len)), ..session() };
        assert!(seal_record(&ring, &STORE_KEY, &with_token(MAX_RECORD - 1024)).is_ok());
        let sealed = seal_record(&ring, &STORE_KEY, &with_token(MAX_RECORD));
        assert!(matches!(sealed, Err(SealError::Value)));
        assert_eq!(open_record(&ring, &STORE_KEY, &vec![1; 2 * MAX_RECORD]).err(), Some(OpenError));
    }

    #[test]
    fn json_grows_without_losing_a_byte() {
        let mut buffer = JsonBuffer::default();
        let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        for chunk in bytes.chunks(77) {
            buffer.write_all(chunk).unwrap();
        }
        assert_eq!(*buffer.0, bytes);
    }

    #[test]
    fn nothing_that_was_sealed_is_printed() {
        let ring = ring(&[1]);
        let opened = open(&ring, seal(&ring, b"hunter2")).unwrap();
        assert_eq!(format!("{opened:?}"), "Opened { plain: [redacted], by_old_key: false }");
    }
}
