//! Attack cases on sessions and their cookies, raw, against the running gateway: SC-140 to SC-158.
//!
//! Those that need no raw bytes stand with their topics: SC-144 (`keys`), SC-152 for sign-ins under way
//! (`login_loop`), SC-153 and SC-157 (`sign_out`), SC-155 (`redis`), SC-159 (`shared_store`).

use std::time::{Duration, Instant};

use crate::support::client::{Connection, Response};
use crate::support::cookie_jar::CookieJar;
use crate::support::rig::{APP, Rig};
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const COOKIE: &str = "__Host-portcullis";

/// What sends nobody on to a sign-in.
const SCRIPT: &str = "Sec-Fetch-Mode: cors\r\n";

/// The value of the cookie in a header line.
fn value_of(line: &str) -> String {
    line.trim_end().split_once('=').expect("a cookie").1.to_owned()
}

fn ask(connection: &mut Connection, path: &str, fields: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {APP}\r\n{fields}\r\n");
    connection.send(request.as_bytes()).expect("the connection is kept");
    connection.response_to("GET")
}

/// Whoever shows these cookies is nobody, in every place.
fn is_nobody(connection: &mut Connection, name: &str, fields: &str) {
    for path in ["/app", "/oauth2/userinfo"] {
        let answer = ask(connection, path, &format!("{fields}{SCRIPT}"));
        assert_eq!(answer.status, 401, "{name}: {path}");
    }
    let anonymous = Echo::of(&ask(connection, "/opt/x", fields));
    assert_eq!(anonymous.one("x-forwarded-user"), None, "{name}");
}

#[test]
fn sc_140_every_cookie_of_a_sign_in_and_out_is_bound_to_its_host_and_hidden_from_scripts() {
    let rig = Rig::echo();
    let mut browser = rig.new_browser(APP);
    let page = browser.open("https://app.test/app");
    assert_eq!(page.status(), 200);
    let mut fields: Vec<String> = Vec::new();
    for (url, answer) in &page.hops {
        if url.host_str() == Some(APP) {
            fields.extend(answer.head.all("set-cookie").into_iter().map(str::to_owned));
        }
    }
    let out = browser.post("https://app.test/oauth2/sign_out", "https://app.test/app");
    fields.extend(out.head.all("set-cookie").into_iter().map(str::to_owned));
    assert!(fields.len() >= 4, "an attempt and a session, made and deleted: {fields:?}");
    for field in &fields {
        let parts: Vec<&str> = field.split("; ").collect();
        assert!(field.starts_with("__Host-") && field.len() < 4096, "{field}");
        for part in ["Secure", "HttpOnly", "Path=/", "SameSite=Lax"] {
            assert!(parts.contains(&part), "{part}: {field}");
        }
        assert!(!field.to_ascii_lowercase().contains("domain="), "{field}");
    }
    assert_eq!(browser.jar.rejected, Vec::<String>::new());
    let mut jar = CookieJar::default();
    let url = "https://app.test/".parse().unwrap();
    for field in &fields {
        jar.take(&url, field);
    }
    assert!(jar.get(APP, COOKIE).is_none(), "the deletion deletes");
}

#[test]
fn sc_141_a_session_cookie_that_was_changed_anywhere_is_none_and_is_cleared() {
    let rig = Rig::echo();
    let value = value_of(&rig.alice());
    let mut values: Vec<String> = Vec::new();
    for at in 0..value.len() {
        let mut bytes = value.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        values.push(String::from_utf8(bytes).unwrap());
    }
    let cut = |length: usize| value.chars().take(length).collect::<String>();
    values.extend([
        cut(value.len() - 1),
        cut(value.len() / 2),
        cut(1),
        format!("{value}A"),
        format!("{value}="),
    ]);
    values.extend([
        "%%%".to_owned(),
        String::new(),
        "A".repeat(4096),
        format!("\"{value}\""),
        value.to_uppercase(),
    ]);
    values.extend([format!("{value}%00"), format!("{value} x"), value.replace('.', "/"), "null".to_owned()]);
    values.retain(|changed| *changed != value);
    let mut connection = rig.send("");
    for (number, changed) in values.iter().enumerate() {
        let fields = format!("Cookie: {COOKIE}={changed}\r\n");
        is_nobody(&mut connection, changed, &fields);
        // Some of them, since sign-ins that begin are counted.
        if number % 8 == 0 || number > value.len() {
            let answer = ask(&mut connection, "/app", &fields);
            let is_deletion =
                |field: &&str| field.starts_with("__Host-portcullis=;") && field.contains("Max-Age=0");
            assert_eq!(answer.status, 302, "{changed}");
            assert!(answer.head.all("set-cookie").iter().any(is_deletion), "{changed}: {:?}", answer.head);
        }
    }
    let good = ask(&mut connection, "/app", &format!("Cookie: {COOKIE}={value}\r\n"));
    assert_eq!(Echo::of(&good).one("x-forwarded-user"), Some("alice"));
}

#[test]
fn sc_145_cookies_that_claim_to_be_parts_of_one_cost_nothing_and_make_none() {
    let rig = Rig::echo();
    let value = value_of(&rig.alice());
    let (first, second) = value.split_at(value.len() / 2);
    let parts: Vec<String> = (0..300).map(|part| format!("app_{part}={first}")).collect();
    let cases = [
        ("a count", format!("app_chunks=99999999; {COOKIE}=99999999")),
        ("a negative count", format!("{COOKIE}=-1")),
        ("a large count", format!("{COOKIE}=1e9")),
        ("a count of zeros", format!("{COOKIE}=00")),
        ("two halves", format!("{COOKIE}={first}; {COOKIE}={second}")),
        ("three hundred parts", parts.join("; ")),
    ];
    let mut connection = rig.send("");
    for (name, cookies) in cases {
        let begun = Instant::now();
        is_nobody(&mut connection, name, &format!("Cookie: {cookies}\r\n"));
        // Three answers. Generous, because the machine may be busy: a count that counted would take minutes.
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", begun.elapsed());
    }
}

#[test]
fn sc_147_two_cookies_of_the_sessions_name_are_none_in_whatever_order() {
    let rig = Rig::echo();
    let (alice, mallory) = (value_of(&rig.alice()), value_of(&rig.sign_in(APP, "mallory", "users")));
    let cases = [
        ("junk first", format!("Cookie: {COOKIE}=junk; {COOKIE}={alice}\r\n")),
        ("junk last", format!("Cookie: {COOKIE}={alice}; {COOKIE}=junk\r\n")),
        ("an empty one", format!("Cookie: {COOKIE}={alice}; {COOKIE}=\r\n")),
        ("another session first", format!("Cookie: {COOKIE}={mallory}; {COOKIE}={alice}\r\n")),
        ("another session last", format!("Cookie: {COOKIE}={alice}; {COOKIE}={mallory}\r\n")),
        ("twice the same", format!("Cookie: {COOKIE}={alice}; {COOKIE}={alice}\r\n")),
        ("in two lines", format!("Cookie: {COOKIE}=junk\r\nCookie: {COOKIE}={alice}\r\n")),
        ("in two lines, turned round", format!("Cookie: {COOKIE}={alice}\r\nCookie: {COOKIE}=junk\r\n")),
    ];
    let mut connection = rig.send("");
    for (name, fields) in cases {
        is_nobody(&mut connection, name, &fields);
    }
    for (name, fields) in [
        ("in another case", format!("Cookie: {COOKIE}={alice}; __host-portcullis={mallory}\r\n")),
        ("without the prefix", format!("Cookie: portcullis={mallory}; {COOKIE}={alice}\r\n")),
        ("a name that goes on", format!("Cookie: {COOKIE}x={mallory}; {COOKIE}={alice}\r\n")),
    ] {
        let answer = ask(&mut connection, "/app", &fields);
        assert_eq!(Echo::of(&answer).one("x-forwarded-user"), Some("alice"), "{name}");
    }
}

#[test]
fn sc_150_cookies_in_several_lines_are_read_as_in_one() {
    let rig = Rig::echo();
    let alice = rig.alice();
    let cases = [
        (format!("Cookie: a=1\r\n{alice}Cookie: b=2\r\n"), Some("a=1; b=2")),
        (format!("{alice}Cookie: a=1\r\nCookie: b=2\r\n"), Some("a=1; b=2")),
        (format!("Cookie: a=1; b\r\n{alice}"), Some("a=1; b")),
        (format!("Cookie: =x; ;;a=1\r\n{alice}"), None),
        (alice.replace("Cookie: ", "Cookie: \t "), None),
        (format!("Cookie: odd=\u{e9}\r\n{alice}"), None),
    ];
    let mut connection = rig.send("");
    for (fields, others) in cases {
        for path in ["/app", "/opt/x"] {
            let echo = Echo::of(&ask(&mut connection, path, &fields));
            assert_eq!(echo.one("x-forwarded-user"), Some("alice"), "{fields}");
            assert!(others.is_none() || echo.one("cookie") == others, "{fields}: {:?}", echo.one("cookie"));
        }
    }
}

#[test]
fn sc_152_a_head_of_too_many_cookies_is_refused_and_the_next_one_is_served() {
    let rig = Rig::echo();
    let alice = rig.alice();
    let large = format!("Cookie: big={}\r\n", "x".repeat(60_000));
    let status = rig.refuse("60 KB", format!("GET /app HTTP/1.1\r\nHost: {APP}\r\n{alice}{large}\r\n"));
    assert_eq!(status, 431);
    let many: Vec<String> = (0..200).map(|number| format!("c{number}={number}")).collect();
    let fields = format!("{alice}Cookie: {}\r\n", many.join("; "));
    let echo = rig.reach(format!("GET /app HTTP/1.1\r\nHost: {APP}\r\n{fields}\r\n"));
    assert_eq!((echo.one("x-forwarded-user"), echo.one("cookie")), (Some("alice"), Some(&*many.join("; "))));
}

#[test]
fn sc_154_a_session_ends_after_its_idle_time_and_after_its_lifetime_however_busy_it_is() {
    let session =
        |lines: &'static str| Rig::in_front_of(Upstream::start(), move |builder, _| builder.session(lines));
    let lasts = |rig: &Rig, alice: &str, pause: Duration| {
        let begun = Instant::now();
        let mut asked = begun;
        wait_for("the session to end", || {
            if asked.elapsed() < pause {
                return None;
            }
            asked = Instant::now();
            let answer = rig.ask(format!("GET /app HTTP/1.1\r\nHost: {APP}\r\n{alice}\r\n"));
            assert!(matches!(answer.status, 200 | 302), "{}", answer.status);
            (answer.status == 302).then_some(())
        });
        begun.elapsed()
    };
    let old = session("idle_timeout = \"4s\"\nmax_lifetime = \"4s\"\n");
    let alice = old.alice();
    let lasted = lasts(&old, &alice, Duration::ZERO);
    assert!(lasted > Duration::from_secs(2), "a busy session ended after {lasted:?}");

    let idle = session("idle_timeout = \"1s\"\nmax_lifetime = \"1h\"\n");
    let alice = idle.alice();
    let pause = Duration::from_secs(3);
    assert!(lasts(&idle, &alice, pause) < pause * 2, "the first request after the pause is refused");
}

#[test]
fn sc_156_who_asks_who_is_signed_in_gets_no_token_and_no_other_site_does() {
    let rig = Rig::echo();
    let alice = rig.alice();
    let fields = format!("{alice}Origin: https://evil.test\r\nSec-Fetch-Mode: cors\r\n");
    let answer = rig.ask(format!("GET /oauth2/userinfo HTTP/1.1\r\nHost: {APP}\r\n{fields}\r\n"));
    assert_eq!(answer.field("access-control-allow-origin"), None);
    assert!(
        answer.field("cache-control").is_some_and(|value| value.contains("no-store")),
        "{:?}",
        answer.head
    );
    let own = rig.ask(format!("GET /oauth2/userinfo HTTP/1.1\r\nHost: {APP}\r\n{alice}\r\n"));
    assert_eq!(own.status, 200);
    for answer in [answer, own] {
        let text = answer.text();
        for secret in rig.provider.issued().iter().chain([&value_of(&alice)]) {
            assert!(!text.contains(secret.as_str()), "{text}");
        }
    }
}

#[test]
fn sc_158_a_page_for_one_person_is_kept_by_no_shared_cache() {
    let rig = Rig::echo();
    let (alice, bob) = (rig.alice(), rig.sign_in(APP, "bob", "users"));
    let page = "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=600, s-maxage=3600\r\n\
                CDN-Cache-Control: max-age=600\r\nSurrogate-Control: max-age=600\r\nContent-Length: 4\r\n\r\npage";
    for path in ["/page", "/opt/page", "/public/page"] {
        rig.upstream.answers_and_stays(path, page.as_bytes());
    }
    for who in [&alice, &bob, &alice] {
        for path in ["/page", "/opt/page"] {
            let hits = rig.upstream.hits();
            let answer = rig.ask(format!("GET {path} HTTP/1.1\r\nHost: {APP}\r\n{who}\r\n"));
            assert_eq!(answer.field("cache-control"), Some("private, max-age=600"), "{path}");
            for name in ["cdn-cache-control", "surrogate-control"] {
                assert_eq!(answer.field(name), None, "{path}");
            }
            assert_eq!(rig.upstream.hits(), hits + 1, "{path}: nothing is cached here");
        }
    }
    rig.deny("nobody", format!("GET /page HTTP/1.1\r\nHost: {APP}\r\n\r\n"));
    for path in ["/opt/page", "/public/page"] {
        let answer = rig.ask(format!("GET {path} HTTP/1.1\r\nHost: {APP}\r\n\r\n"));
        assert_eq!(answer.field("cache-control"), Some("public, max-age=600, s-maxage=3600"), "{path}");
    }
}
