//! Cookies: whose they are, and what opens.

use std::sync::LazyLock;

use http::header::{COOKIE, HeaderMap, HeaderValue};
use portcullis::session::cookie::{CookieNames, attempts_in, is_ours};
use portcullis::session::key_ring::{Key, KeyRing, Purpose};
use portcullis::session::seal::{cookie_key, open_cookie, open_keys, open_record, record_key, seal_cookie};
use portcullis::web::cookie::{Found, find, set_cookie_name, starting, without};

use super::edited;

/// Nothing of ours goes to an application, and nothing of an application's is lost.
pub fn cookie(input: &[u8]) {
    let fields = input.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    let headers: HeaderMap = fields.map(|field| (COOKIE, field)).collect();
    check_removal(&headers);
    for names in [CookieNames::new(true), CookieNames::new(false)] {
        check_lookup(&headers, names.session());
        assert!(starting(&headers, names.login_prefix()).all(|(name, _)| is_ours(name.as_bytes())));
    }
    assert!(attempts_in(input).iter().all(|(name, _)| is_ours(name.as_bytes())));
    input.split(|byte| *byte == b'\n').for_each(check_set_cookie);
}

/// The pieces between semicolons, as a simple reader has them: name and whole.
fn pieces(headers: &HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    let fields: Vec<Vec<u8>> =
        headers.get_all(COOKIE).iter().map(|field| field.as_bytes().to_vec()).collect();
    let joined = fields.join(&b';');
    let pieces = joined.split(|byte| *byte == b';').map(trim).filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| {
            (trim(piece.split(|byte| *byte == b'=').next().unwrap_or_default()).to_vec(), piece.to_vec())
        })
        .collect()
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn check_removal(headers: &HeaderMap) {
    let left: HeaderMap = without(headers, is_ours).into_iter().map(|field| (COOKIE, field)).collect();
    let mine = |(name, _): &(Vec<u8>, Vec<u8>)| is_ours(name);
    assert!(!pieces(&left).iter().any(mine), "a cookie of ours is left: {left:?}");
    // A nameless cookie, which some readers name by its value, may be taken for ours and go too.
    let nameless = |(name, _): &(Vec<u8>, Vec<u8>)| name.is_empty();
    let of_others = |headers: &HeaderMap| -> Vec<Vec<u8>> {
        pieces(headers)
            .into_iter()
            .filter(|piece| !mine(piece) && !nameless(piece))
            .map(|(_, piece)| piece)
            .collect()
    };
    assert_eq!(of_others(&left), of_others(headers), "a cookie of somebody else is lost or changed");
}

fn check_lookup(headers: &HeaderMap, name: &str) {
    let all = pieces(headers);
    let same = all.iter().filter(|(found, piece)| found == name.as_bytes() && piece.contains(&b'='));
    match (find(headers, name), same.count()) {
        (Found::Absent, 0) | (Found::One(_), 1) | (Found::Several, 2..) => {}
        (found, count) => panic!("{count} cookies are {found:?}"),
    }
}

/// What an application sets under a name that is not ours does not come back from a browser as ours
/// (RFC 6265 bis, 5.7 and 5.8.3).
fn check_set_cookie(field: &[u8]) {
    let pair = trim(field.split(|byte| *byte == b';').next().unwrap_or_default());
    let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
        Some(equals) => (trim(&pair[..equals]), trim(&pair[equals + 1..])),
        None => (b"".as_slice(), pair),
    };
    let sent = if name.is_empty() { value.to_vec() } else { [name, b"=", value].concat() };
    let Ok(sent) = HeaderValue::from_bytes(&sent) else { return };
    let headers: HeaderMap = [(COOKIE, sent)].into_iter().collect();
    let comes_back = pieces(&headers).iter().any(|(name, _)| is_ours(name));
    assert!(
        !comes_back || is_ours(set_cookie_name(field)),
        "an application can set a cookie of ours: {headers:?}"
    );
}

static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    let key = |first: u8| {
        Key::from_bytes(std::array::from_fn(|at| {
            first.wrapping_add(u8::try_from(at * 7).unwrap_or_default())
        }))
    };
    KeyRing::new(&[key(1), key(101)]).expect("two good keys")
});

const PURPOSES: [Purpose; 4] =
    [Purpose::SessionCookie, Purpose::LoginCookie, Purpose::SignOutCookie, Purpose::TripsCookie];
const NAME: &str = "__Host-portcullis";
const HOST: &str = "app.test";

static SEALED: LazyLock<String> = LazyLock::new(|| {
    seal_cookie(&RING, Purpose::SessionCookie, NAME, HOST, b"a session of 32 bytes: 0123456789")
        .expect("it is small")
});

/// Nothing opens but what was sealed, unchanged, for this purpose, name and host.
pub fn sealed(input: &[u8]) {
    let changed = edited(&SEALED, input);
    for value in [input, &changed] {
        for purpose in PURPOSES {
            for (name, host) in [(NAME, HOST), ("portcullis", HOST), (NAME, "evil.test")] {
                let genuine = value == SEALED.as_bytes()
                    && (purpose, name, host) == (Purpose::SessionCookie, NAME, HOST);
                assert_eq!(open_cookie(&RING, purpose, name, host, value).is_ok(), genuine);
            }
        }
        let _ = (cookie_key(value), record_key(value));
    }
    assert!(open_record(&RING, &[7; 32], input).is_err(), "a record out of nothing");
    assert!(open_keys(&RING, &[7; 32], input).is_err(), "keys out of nothing");
}
