//! Documents against code: what an operator or a reviewer reads is what there is.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis::config;
use portcullis::endpoints::TABLE;
use portcullis::gateway::Refusal;
use portcullis::identity::headers::{HeaderTable, Preset};
use portcullis::telemetry::Events;
use portcullis::telemetry::events::Access;
use portcullis::telemetry::metrics::Metrics;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The part of a document below a heading, up to the next heading of the same or a higher level.
fn section(text: &str, heading: &str) -> String {
    let level = |line: &str| {
        line.split(' ').next().filter(|mark| mark.bytes().all(|b| b == b'#')).map_or(0, str::len)
    };
    let ends = |line: &&str| (1..=level(heading)).contains(&level(line));
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert_eq!(lines.next(), Some(heading));
    lines.take_while(|line| !ends(line)).collect::<Vec<_>>().join("\n")
}

/// The cells of each row of the tables in a text, without heads and rules.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with("|---");
    let rows = lines.iter().enumerate().filter(|(at, line)| {
        line.starts_with('|') && !is_rule(line) && !lines.get(at + 1).is_some_and(|next| is_rule(next))
    });
    rows.map(|(_, line)| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The first name of each row's first cell.
fn names(text: &str) -> BTreeSet<String> {
    rows(text).iter().filter_map(|row| quoted(&row[0]).into_iter().next()).collect()
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs" || end == "mjs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// Every source in which a test may stand.
fn all_tests() -> String {
    sources("src").into_iter().chain(sources("tests")).map(|(_, source)| source).collect()
}

/// Every family that there is, by the name that its samples have.
fn metric_families() -> BTreeSet<String> {
    let events = Events::new(Arc::new(Metrics::new()), false);
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let error = std::io::Error::other("x");
    let _in_flight = events.request_began();
    events.request_finished(&Access {
        request_id: &"r",
        client,
        method: "GET",
        host: "h",
        path: "/",
        status: 404,
        route: None,
        refusal: Some("no_route"),
        user: None,
        duration: Duration::ZERO,
        bytes_sent: 0,
        user_agent: None,
    });
    events.rate_limited("route", Some("r"), client, 1, true);
    events.connection_refused("address_limit", client, "", false);
    events.signed_in(&"r", "p", "u", client, None);
    events.signed_out(&"r", "p", "u", "local", client);
    events.sessions_displaced(&"r", "p", "u", 1);
    events.refreshed("p", "u");
    events.provider_called("p", "token", true, Duration::ZERO);
    events.provider_up("p");
    events.store_took("get", Duration::ZERO);
    events.store_failed("get", &error);
    events.served_in_outage();
    let text = events.metrics().render();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_is_there() {
    let text = read("docs/operations.md");
    assert_eq!(names(&section(&text, "## Metrics")), metric_families());
}

#[test]
fn every_refusal_is_documented_with_its_status() {
    let text = read("docs/operations.md");
    let told: BTreeSet<_> = rows(&section(&text, "## Refusal codes"))
        .iter()
        .map(|row| (quoted(&row[0])[0].clone(), row[1].clone()))
        .collect();
    let there: BTreeSet<_> = Refusal::ALL
        .iter()
        .map(|refusal| (refusal.code().to_owned(), refusal.status().as_str().to_owned()))
        .collect();
    assert_eq!(told, there);
}

#[test]
fn every_log_event_is_documented_and_every_documented_event_is_there() {
    let text = read("docs/operations.md");
    let mut there = BTreeSet::new();
    for (path, source) in sources("src") {
        // Events that only tests write stand behind this line.
        let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for part in code.split("event = \"").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(!name.is_empty(), "{}", path.display());
            there.insert(name.to_owned());
        }
    }
    assert_eq!(names(&section(&text, "## Log")), there);
}

#[test]
fn every_endpoint_is_documented_with_its_methods() {
    let text = read("docs/operations.md");
    let told: BTreeSet<_> = rows(&section(&text, "## The gateway's own URLs"))
        .iter()
        .map(|row| (quoted(&row[0])[0].clone(), row[1].clone()))
        .collect();
    let there: BTreeSet<_> = TABLE.iter().map(|row| (row.name.to_owned(), row.methods.to_owned())).collect();
    assert_eq!(told, there);
}

#[test]
fn the_readme_names_every_identity_header() {
    let text = read("README.md").to_lowercase();
    for preset in [Preset::XForwarded, Preset::XAuthRequest, Preset::Remote] {
        for name in HeaderTable::new(&[preset], Vec::new()).names() {
            assert!(text.contains(&format!("`{name}`")), "{name}");
        }
    }
}

#[test]
fn the_configuration_in_the_readme_is_a_good_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "x\n").unwrap();
    let readme = read("README.md");
    let blocks: Vec<_> =
        readme.split("```toml\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let text = block.replace("/run/secrets/oidc_client_secret", "secret");
        let file = folder.path().join("portcullis.toml");
        fs::write(&file, text).unwrap();
        let settings = config::load(&file).unwrap_or_else(|error| panic!("{error}\n{block}"));
        assert_eq!(settings.warnings, Vec::<String>::new(), "{block}");
    }
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut files = vec![root().join("README.md")];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for link in text.split("](").skip(1).filter_map(|part| part.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", file.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                assert!(anchors(&text).contains(anchor), "{}: {link}", file.display());
            }
        }
    }
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}
/// `docs/protocol.md` says where each rule is and which test fails without it.
#[test]
fn each_rule_of_the_protocol_names_code_and_a_test_that_are_there() {
    let text = read("docs/protocol.md");
    let tests = all_tests();
    let mut ids = BTreeSet::new();
    for row in rows(&section(&text, "## What holds")) {
        let [id, _, code, proof] = row.as_slice() else { panic!("{row:?}") };
        assert!(ids.insert(id.clone()), "{id} stands there twice");
        let files = quoted(code);
        assert!(!files.is_empty(), "{id} names no code");
        for file in files {
            assert!(root().join("src").join(&file).is_file(), "{id}: {file}");
        }
        let names = quoted(proof);
        assert!(!names.is_empty(), "{id} names no test");
        for name in names {
            assert!(tests.contains(&format!("fn {name}(")), "{id}: {name}");
        }
    }
    assert!(ids.len() > 70, "{}", ids.len());
}

#[test]
fn each_threat_names_a_defence_and_a_test_that_is_there() {
    let text = read("docs/security.md");
    let threats = text.split("\n## What is not defended").next().unwrap();
    let tests = all_tests();
    let rows = rows(threats);
    for row in &rows {
        let [threat, defence, proof] = row.as_slice() else { panic!("{row:?}") };
        assert!(!threat.is_empty() && !defence.is_empty(), "{row:?}");
        let names = quoted(proof);
        assert!(!names.is_empty(), "{threat}: no test");
        for name in names {
            assert!(tests.contains(&format!("fn {name}(")), "{threat}: {name}");
        }
    }
    assert!(rows.len() > 40, "{}", rows.len());
}

#[test]
fn every_module_of_the_conformance_suite_that_is_listed_is_a_test_and_every_test_is_listed() {
    let listed = rows(&section(&read("docs/protocol.md"), "## The conformance suite"));
    let modules = listed.iter().flat_map(|row| quoted(&row[1]));
    // The suite's name is `oidcc-client-test` and what stands here; one module has no more than that.
    let listed: BTreeSet<String> = modules
        .map(|module| {
            module.strip_prefix("oidcc-").unwrap_or(&module).trim_start_matches('-').replace('-', "_")
        })
        .collect();
    let tests = read("tests/it/conformance.rs");
    let tests: BTreeSet<String> = tests
        .lines()
        .filter_map(|line| line.strip_prefix("fn conformance_")?.split_once('('))
        .map(|(module, _)| module.to_owned())
        .collect();
    assert!(tests.len() > 30);
    assert_eq!(listed, tests);
}
