//! What was found once, by hand or by the fuzzer, is tried in every run: all seeds through the fuzz targets.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use url::Url;

use self::targets::TARGETS;
use self::targets::paths::lax;
use crate::support::client::{Connection, Request, Response};
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::Upstream;

/// Return URLs that lead away from a host.
const OPEN_REDIRECTS: &str = include_str!("../data/open_redirects.txt");
/// Request targets that two readers may read as two paths.
const PATHS: &str = include_str!("../data/path_payloads.txt");

/// The lines of a list, without its comments.
pub fn lines(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The inputs that are kept for a target: name and bytes.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let seed = |path: &Path| (path.display().to_string(), fs::read(path).expect("a seed can be read"));
    let mut seeds: Vec<_> = files.map(|file| seed(&file.expect("a folder can be read").path())).collect();
    let list = match target {
        "return_to" => OPEN_REDIRECTS,
        "target" => PATHS,
        _ => "",
    };
    seeds.extend(lines(list).map(|line| (line.to_owned(), line.as_bytes().to_vec())));
    seeds
}

#[test]
fn every_seed_of_the_fuzzer_holds() {
    let broken: Vec<String> = TARGETS
        .iter()
        .flat_map(|(name, run)| seeds(name).into_iter().map(move |seed| (run, seed)))
        .filter(|(run, (_, bytes))| catch_unwind(|| run(bytes)).is_err())
        .map(|(_, (name, _))| name)
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_target_has_seeds_and_every_folder_of_seeds_a_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
    let mut folders: Vec<String> = fs::read_dir(folder)
        .expect("there are seeds")
        .map(|entry| entry.expect("a folder").file_name().into_string().expect("a plain name"))
        .collect();
    folders.sort();
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(folders, names);
    for name in names {
        assert!(seeds(name).len() >= 8, "{name} has {} seeds", seeds(name).len());
    }
}

#[test]
fn the_lists_are_long_and_say_nothing_twice() {
    for (name, list, least) in [("open redirects", OPEN_REDIRECTS, 800), ("paths", PATHS, 300)] {
        let mut known: Vec<&str> = lines(list).collect();
        let all = known.len();
        known.sort_unstable();
        known.dedup();
        assert!(known.len() >= least, "{name}: {}", known.len());
        assert_eq!(known.len(), all, "{name}: a line stands there twice");
    }
}

/// The crates of a lock file, with their versions, and what the gateway itself names of them.
fn locked(text: &str) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let file: toml::Table = text.parse().expect("a lock file is TOML");
    let packages = file["package"].as_array().expect("a lock file has packages");
    let text = |value: &toml::Value| value.as_str().expect("a string").to_owned();
    let versions = packages.iter().map(|package| (text(&package["name"]), text(&package["version"])));
    let gateway = packages.iter().find(|package| package["name"].as_str() == Some("portcullis"));
    let named = gateway.expect("the gateway is in it")["dependencies"].as_array().expect("a list");
    (versions.collect(), named.iter().map(text).collect())
}

#[test]
fn the_fuzzer_is_locked_to_the_crates_of_the_gateway() {
    let (fuzzed, fuzzed_names) = locked(include_str!("../fuzz/Cargo.lock"));
    let (built, built_names) = locked(include_str!("../../Cargo.lock"));
    let only_fuzzed: Vec<&str> = fuzzed.difference(&built).map(|(name, _)| name.as_str()).collect();
    let advice = "cp Cargo.lock tests/fuzz/ && cargo metadata --manifest-path tests/fuzz/Cargo.toml";
    assert_eq!(only_fuzzed, ["arbitrary", "libfuzzer-sys", "portcullis-fuzz"], "{advice}");
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("a manifest is TOML");
    let wanted = manifest["dependencies"].as_table().expect("there are some").keys();
    for name in wanted {
        let of_name = |names: &BTreeSet<String>| {
            names.iter().find(|known| known.split(' ').next() == Some(name)).cloned()
        };
        let (fuzzed, built) = (of_name(&fuzzed_names), of_name(&built_names));
        assert!(fuzzed.is_some() && fuzzed == built, "{name}: {fuzzed:?}, {built:?}: {advice}");
    }
}

/// Where the buttons of the sign-in page lead in the end.
fn return_url(page: &str) -> String {
    let (_, link) = page.split_once("/oauth2/start?").expect("a button");
    let query = link.split('"').next().unwrap_or_default().replace("&#38;", "&").replace("&amp;", "&");
    let mut wanted = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "rd");
    wanted.next().expect("a return URL").1.into_owned()
}

#[test]
fn lc_096_every_known_open_redirect_is_shown_the_door_by_a_gateway() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut connection = gateway.place(WIKI).connect().expect("it listens");
    let base: Url = "https://wiki.test/".parse().expect("a URL");
    for payload in lines(OPEN_REDIRECTS) {
        let payload = payload.replace("app.test", WIKI);
        // Unescaped as far as a request line may have it, so that escapes of the list are decoded once, and escaped.
        let escaped: String = url::form_urlencoded::byte_serialize(payload.as_bytes()).collect();
        let as_it_stands: String = payload.chars().map(once).collect();
        for rd in [escaped, as_it_stands] {
            let page = connection.request(
                &Request::get(&format!("/oauth2/sign_in?rd={rd}"))
                    .with("Host", WIKI)
                    .with("Accept", "text/html"),
            );
            assert_eq!(page.status, 200, "{payload:?}");
            let url = base.join(&return_url(&page.text())).expect("a URL");
            assert_eq!(url.origin(), base.origin(), "{payload:?} leads to {url}");
        }
    }
    assert_eq!(upstream.hits(), 0);
}

/// A character as it may stand in a query.
fn once(character: char) -> String {
    match character {
        '!'..='~' if !r#""<>\#&+"#.contains(character) => character.to_string(),
        _ => url::form_urlencoded::byte_serialize(character.to_string().as_bytes()).collect(),
    }
}

#[test]
fn every_path_payload_is_refused_or_stays_where_anybody_may_go() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/public", &upstream, "access = \"public\"")
        .provider(provider.entry())
        .start();
    let mut open: Option<Connection> = None;
    let mut passed = 0;
    for payload in lines(PATHS) {
        let connection = open.get_or_insert_with(|| gateway.place(WIKI).connect().expect("it listens"));
        connection
            .send(format!("GET {payload} HTTP/1.1\r\nHost: {WIKI}\r\n\r\n").as_bytes())
            .expect("it listens");
        let answer = connection.response_to("GET");
        passed += usize::from(check_answer(payload, &answer));
        if answer.field("connection") == Some("close") {
            open = None;
        }
    }
    assert_eq!(upstream.hits(), passed, "each request that went through is one of those looked at");
    assert!(passed > 5, "only {passed} payloads reach the public pages");
}

/// Whether the application was reached; then by a path that everybody reads as a public one.
fn check_answer(payload: &str, answer: &Response) -> bool {
    assert!(answer.status < 500, "{payload:?}: {}", answer.text());
    let Ok(told) = serde_json::from_slice::<serde_json::Value>(&answer.body) else { return false };
    let Some(line) = told["line"].as_str() else { return false };
    let target = line.split(' ').nth(1).expect("a target");
    let path = lax(target.split('?').next().unwrap_or_default().as_bytes());
    let is_public = path == b"/public" || path.starts_with(b"/public/");
    assert!(is_public, "{payload:?} was let through as {target}");
    true
}
