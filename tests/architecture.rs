//! The law of the layers, read from `src/lib.rs` and checked on every file of `src/`.
//!
//! Three rules: a module imports only from layers above its own; pure modules do no I/O and read no
//! clock; each outside crate is named only by its owner. The checker is a function over (path, text),
//! so that the tests below plant a forbidden line and see it found.

#![expect(clippy::expect_used, reason = "a test that cannot read the source has failed")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// Who may name an outside crate: the crate's name (a prefix of it, so that `pingora_core` is
/// `pingora`) and the files, by the start of their path below `src/`.
const OWNERS: &[(&str, &[&str])] = &[
    ("pingora", &["server/"]),
    ("h2", &["server/http2/"]),
    // cli installs the crypto provider; config checks that certificate and key fit; PEM files.
    ("rustls", &["server/", "cli", "config/", "token/private_key", "store/redis"]),
    ("redb", &["store/disk"]),
    ("redis", &["store/redis"]),
    ("tokio_rustls", &["store/redis"]),
    ("reqwest", &["idp/transport"]),
    ("openidconnect", &["oidc/"]),
    ("jsonwebtoken", &["token/"]),
    ("toml", &["config/"]),
    ("aes_gcm", &["session/"]),
    ("moka", &["gateway/"]),
    ("ipnet", &["web/proxies"]),
    ("askama", &["web/page", "demo/page"]),
    ("prometheus_client", &["telemetry/"]),
    ("axum", &["admin/", "demo/"]),
    ("getrandom", &["random"]),
    ("rustix", &["secret", "server/open_files"]),
    ("clap", &["cli"]),
];

/// Modules and files that are rules over data, by the start of their path below `src/`.
const PURE: &[&str] = &[
    "web/",
    "token/",
    "oidc/",
    "identity/",
    "policy/",
    "session/",
    "route/",
    "gateway/forward",
    "gateway/refusal",
    "config/check",
];

/// What a pure module must not name, as the start of a path.
const IMPURE: &[&[&str]] = &[
    &["tokio"],
    &["std", "fs"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "net", "TcpListener"],
    &["std", "net", "TcpStream"],
    &["std", "net", "ToSocketAddrs"],
    &["std", "net", "UdpSocket"],
    &["std", "os"],
];

/// What a pure module must not name anywhere in a path.
const CLOCKS: &[&str] = &["SystemTime", "Instant"];

/// File and folder names that say nothing.
const NAMELESS: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "types"];

/// The layer of each top-level module.
type Layers = HashMap<String, usize>;

/// Reads the layers out of `lib.rs`: `// layer N` opens one, `pub mod NAME;` stands in it.
fn read_layers(lib: &str) -> Layers {
    let mut layers = Layers::new();
    let mut layer = 0;
    for line in lib.lines() {
        if let Some(rest) = line.strip_prefix("// layer ") {
            let number = rest.split(':').next().unwrap_or_default();
            layer = number.parse().expect("`// layer` is followed by a number");
        }
        if let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            layers.insert(name.to_owned(), layer);
        }
    }
    layers
}

/// A path that a file names, with use trees spread out.
#[derive(Debug)]
struct Named {
    segments: Vec<String>,
    line: usize,
    in_test: bool,
}

/// Where in the file the walk is.
#[derive(Clone)]
struct Place {
    module: Vec<String>,
    in_test: bool,
}

/// All that is wrong with one file; `path` is below `src/`, `in_test` says that it is built for tests only.
fn check(layers: &Layers, path: &str, text: &str, in_test: bool) -> Vec<String> {
    let tokens: TokenStream = match text.parse() {
        Ok(tokens) => tokens,
        Err(error) => return vec![format!("{path}: does not parse: {error}")],
    };
    let module = module_of(path);
    let place = Place { module: module.clone(), in_test };
    let mut found = Vec::new();
    walk(tokens, &place, &mut found);

    let mut problems = nameless(path);
    for named in &found {
        let wrong = [
            forbidden_import(layers, &module, named),
            forbidden_crate(path, named),
            forbidden_io(path, named),
        ];
        problems.extend(wrong.into_iter().flatten().map(|text| format!("{path}:{}: {text}", named.line)));
    }
    problems
}

/// The modules that a file declares as `#[cfg(test)] mod NAME;`: files that are built for tests only.
fn test_modules(path: &str, text: &str) -> Vec<Vec<String>> {
    let tokens: Vec<TokenTree> = text.parse::<TokenStream>().into_iter().flatten().collect();
    let mut found = Vec::new();
    for window in tokens.windows(5) {
        let [TokenTree::Punct(_), attribute, TokenTree::Ident(word), TokenTree::Ident(name), end] = window
        else {
            continue;
        };
        if is_cfg_test(attribute) && word == "mod" && end.to_string() == ";" {
            let mut module = module_of(path);
            module.push(name.to_string());
            found.push(module);
        }
    }
    found
}

/// `gateway/refusal.rs` is `[gateway, refusal]`, `gateway/mod.rs` is `[gateway]`, `lib.rs` the root.
fn module_of(path: &str) -> Vec<String> {
    let stem = path.trim_end_matches(".rs").trim_end_matches("/mod");
    if stem == "lib" || stem == "main" {
        return Vec::new();
    }
    stem.split('/').map(str::to_owned).collect()
}

fn nameless(path: &str) -> Vec<String> {
    let parts = path.trim_end_matches(".rs").split('/');
    parts
        .filter(|part| NAMELESS.contains(part))
        .map(|part| format!("{path}: `{part}` says nothing of what is in it"))
        .collect()
}

fn forbidden_import(layers: &Layers, module: &[String], named: &Named) -> Option<String> {
    let here = module.first()?;
    if named.segments.first()? != "crate" {
        return None;
    }
    let there = named.segments.get(1)?;
    if there == here {
        return None;
    }
    let (Some(from), Some(to)) = (layers.get(here), layers.get(there)) else {
        return Some(format!("`{here}` or `{there}` stands in no layer of lib.rs"));
    };
    (to >= from).then(|| format!("layer {from} `{here}` imports from layer {to} `{there}`"))
}

fn forbidden_crate(path: &str, named: &Named) -> Option<String> {
    if named.in_test {
        return None;
    }
    let first = named.segments.first()?;
    let is_of =
        |name: &str| first == name || first.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
    let (name, owners) = OWNERS.iter().find(|(name, _)| is_of(name))?;
    let owned = owners.iter().any(|owner| path.starts_with(owner));
    (!owned).then(|| format!("`{name}` belongs to {}", owners.join(", ")))
}

fn forbidden_io(path: &str, named: &Named) -> Option<String> {
    if named.in_test || !PURE.iter().any(|pure| path.starts_with(pure)) {
        return None;
    }
    let segments: Vec<&str> = named.segments.iter().map(String::as_str).collect();
    let impure = IMPURE.iter().any(|wrong| segments.starts_with(wrong))
        || segments.iter().any(|segment| CLOCKS.contains(segment))
        || segments == ["async"];
    impure.then(|| format!("a pure module names `{}`", segments.join("::")))
}

/// Collects what a token stream names; goes into groups, macro bodies included.
fn walk(tokens: TokenStream, place: &Place, found: &mut Vec<Named>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    let mut test_item = false;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                test_item |= tokens.get(at + 1).is_some_and(is_cfg_test);
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => test_item = false,
            TokenTree::Group(group) => {
                let inner = inside(place, &tokens, at, test_item);
                walk(group.stream(), &inner, found);
                test_item &= group.delimiter() != Delimiter::Brace;
            }
            TokenTree::Ident(_) if !follows_colons(&tokens, at) => {
                let here = Place { in_test: place.in_test || test_item, ..place.clone() };
                at = read_path(&tokens, at, &[], &here, found);
                continue;
            }
            TokenTree::Punct(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
}

fn is_cfg_test(token: &TokenTree) -> bool {
    let text: String = token.to_string().split_whitespace().collect();
    text.starts_with("[cfg(test") || text.starts_with("[cfg(all(test")
}

/// The place inside the group at `at`: one module deeper where it is the body of a `mod`.
fn inside(place: &Place, tokens: &[TokenTree], at: usize, test_item: bool) -> Place {
    let mut inner = place.clone();
    inner.in_test |= test_item;
    if let [TokenTree::Ident(keyword), TokenTree::Ident(name)] = &tokens[at.saturating_sub(2)..at]
        && keyword == "mod"
    {
        inner.module.push(name.to_string());
    }
    inner
}

/// Reads the path that starts at `at`, spreading out a use tree at its end, and returns where it ends.
fn read_path(
    tokens: &[TokenTree],
    mut at: usize,
    before: &[String],
    place: &Place,
    found: &mut Vec<Named>,
) -> usize {
    let mut segments = before.to_vec();
    let mut line = 0;
    let is_use = matches!(tokens.get(at.wrapping_sub(1)), Some(TokenTree::Ident(word)) if word == "use");
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        segments.push(ident.to_string());
        line = ident.span().start().line;
        at += 1;
        if !follows_colons(tokens, at + 2) {
            break;
        }
        at += 2;
    }
    if let Some(TokenTree::Group(group)) = tokens.get(at)
        && group.delimiter() == Delimiter::Brace
        && follows_colons(tokens, at)
    {
        read_use_tree(group.stream(), &segments, place, found);
        return at + 1;
    }
    // A lone word is a path only in `use word;` or inside a use tree; `async` is looked for as well.
    if segments.len() > 1 || is_use || segments == ["async"] {
        found.push(Named { segments: resolve(segments, &place.module), line, in_test: place.in_test });
    }
    at
}

fn read_use_tree(tree: TokenStream, before: &[String], place: &Place, found: &mut Vec<Named>) {
    let tokens: Vec<TokenTree> = tree.into_iter().collect();
    let mut at = 0;
    let mut entry_starts = true;
    while let Some(token) = tokens.get(at) {
        if entry_starts && matches!(token, TokenTree::Ident(_)) {
            at = read_path(&tokens, at, before, place, found);
            entry_starts = false;
            continue;
        }
        entry_starts = matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',');
        at += 1;
    }
}

/// Whether the two tokens before `at` are `::`.
fn follows_colons(tokens: &[TokenTree], at: usize) -> bool {
    let Some([TokenTree::Punct(one), TokenTree::Punct(two)]) =
        at.checked_sub(2).and_then(|from| tokens.get(from..at))
    else {
        return false;
    };
    one.as_char() == ':' && one.spacing() == Spacing::Joint && two.as_char() == ':'
}

/// Makes `super::` and `self::` paths start at `crate`.
fn resolve(segments: Vec<String>, module: &[String]) -> Vec<String> {
    let mut base = module.to_vec();
    let mut rest = segments.as_slice();
    match rest.first().map(String::as_str) {
        Some("self") => rest = &rest[1..],
        Some("super") => {}
        _ => return segments,
    }
    while let Some((first, after)) = rest.split_first()
        && first == "super"
    {
        base.pop();
        rest = after;
    }
    std::iter::once("crate".to_owned()).chain(base).chain(rest.iter().cloned()).collect()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All `.rs` files below `folder`, as paths below `src/` with their text.
fn source_files(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            source_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(src()).expect("the file is below src");
            let text = fs::read_to_string(&path).expect("a source file can be read");
            into.push((below.to_string_lossy().into_owned(), text));
        }
    }
}

fn layers_of_the_crate() -> Layers {
    read_layers(&fs::read_to_string(src().join("lib.rs")).expect("lib.rs can be read"))
}

#[test]
fn every_file_keeps_the_law_of_the_layers() {
    let layers = layers_of_the_crate();
    let mut files = Vec::new();
    source_files(&src(), &mut files);
    assert!(files.len() > 40, "only {} files were found", files.len());
    let for_tests: Vec<_> = files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let in_test = |path: &str| for_tests.iter().any(|module| module_of(path).starts_with(module));
    let problems: Vec<String> =
        files.iter().flat_map(|(path, text)| check(&layers, path, text, in_test(path))).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_module_of_the_crate_stands_in_a_layer_and_every_listed_owner_exists() {
    let layers = layers_of_the_crate();
    let mut files = Vec::new();
    source_files(&src(), &mut files);
    for (path, _) in files.iter().filter(|(path, _)| path != "lib.rs" && path != "main.rs") {
        let top = module_of(path).first().cloned().unwrap_or_default();
        assert!(layers.contains_key(&top), "{path}: `{top}` stands in no layer of lib.rs");
    }
    for listed in PURE.iter().chain(OWNERS.iter().flat_map(|(_, owners)| *owners)) {
        let exists = files.iter().any(|(path, _)| path.starts_with(listed));
        assert!(exists, "{listed} is listed here and not in src");
    }
}

#[test]
fn the_layers_are_read_in_the_order_of_the_file() {
    let layers =
        read_layers("// layer 1: below\npub mod clock;\n\n// layer 2: above\npub mod web;\npub mod token;\n");
    assert_eq!((layers["clock"], layers["web"], layers["token"]), (1, 2, 2));
}

/// A crate of three layers for the planted cases.
fn planted(path: &str, text: &str) -> Vec<String> {
    let lib = "// layer 1: a\npub mod clock;\n// layer 2: b\npub mod web;\npub mod token;\n// layer 3: c\npub mod server;\npub mod config;\npub mod store;\npub mod gateway;\n";
    check(&read_layers(lib), path, text, false)
}

#[test]
fn a_planted_import_from_the_own_or_a_later_layer_is_found() {
    let cases = [
        ("a later layer", "web/mod.rs", "use crate::server::run;"),
        ("the own layer", "web/mod.rs", "use crate::token::Claims;"),
        ("in a tree", "web/mod.rs", "use crate::{clock::Clock, token::{Claims}};"),
        ("in an expression", "web/mod.rs", "fn f() { let x = crate::server::run(); }"),
        ("in a macro", "web/mod.rs", "fn f() { println!(\"{}\", crate::server::NAME); }"),
        ("through super", "web/cookie.rs", "use super::super::token::Claims;"),
        ("through super in a tree", "web/mod.rs", "use super::{clock, server};"),
        ("from an inner module", "web/mod.rs", "mod inner { use super::super::token::Claims; }"),
        ("from tests", "web/mod.rs", "#[cfg(test)] mod tests { use crate::server::run; }"),
        ("a module in no layer", "web/mod.rs", "use crate::elsewhere::X;"),
        ("a public re-export", "clock.rs", "pub use crate::web::Host as H;"),
        ("in a type", "web/mod.rs", "fn f(x: &[crate::token::Claims]) {}"),
    ];
    for (name, path, text) in cases {
        assert_eq!(planted(path, text).len(), 1, "{name}: {:?}", planted(path, text));
    }
}

#[test]
fn what_the_law_allows_is_not_reported() {
    let cases = [
        ("an earlier layer", "web/mod.rs", "use crate::clock::Clock;"),
        ("the own module", "web/mod.rs", "use crate::web::cookie; use self::cookie::find; mod cookie {}"),
        ("super within the module", "web/cookie.rs", "use super::Host; mod tests { use super::*; }"),
        ("a comment", "web/mod.rs", "// use crate::server::run;\n//! crate::server\n"),
        ("a doc comment", "web/mod.rs", "/// See [`crate::server::run`].\nfn f() {}"),
        ("a string", "web/mod.rs", "const X: &str = \"crate::server::run, std::fs\";"),
        ("an address is data", "web/mod.rs", "use std::net::{IpAddr, SocketAddr};"),
        ("a field of that name", "web/mod.rs", "struct A { toml: u8 } fn f(a: A) -> u8 { a.toml }"),
        ("an owner", "server/tls.rs", "use pingora::tls::X; use pingora_core::Y; use std::fs;"),
        ("a dev-crate in tests", "web/mod.rs", "#[cfg(test)] mod tests { use toml::Value; use std::fs; }"),
    ];
    for (name, path, text) in cases {
        assert_eq!(planted(path, text), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_planted_foreign_crate_is_found_outside_its_owner() {
    let cases = [
        ("pingora in the gateway", "gateway/mod.rs", "use pingora::proxy::Session;"),
        ("a crate of the family", "gateway/mod.rs", "use pingora_core::Error;"),
        ("without use", "gateway/mod.rs", "fn f() -> redb::Error { todo!() }"),
        ("renamed", "gateway/mod.rs", "use toml as t;"),
        ("in a derive", "gateway/mod.rs", "#[derive(askama::Template)] struct A;"),
        ("another file of the folder", "store/memory.rs", "use redb::Database;"),
        ("after tests", "web/mod.rs", "#[cfg(test)] mod tests {} use toml::Value;"),
    ];
    for (name, path, text) in cases {
        assert_eq!(planted(path, text).len(), 1, "{name}: {:?}", planted(path, text));
    }
}

#[test]
fn a_file_that_is_built_for_tests_only_is_known_by_its_declaration() {
    let declared =
        "mod jwks;\n#[cfg(test)]\nmod loopback;\n#[cfg(test)]\nmod tests { mod inner; }\nmod transport;";
    assert_eq!(test_modules("idp/mod.rs", declared), [["idp", "loopback"]]);
    let layers = read_layers("// layer 1: a\npub mod idp;\n");
    let text = "use axum::Router; use std::fs;";
    assert_eq!(check(&layers, "idp/loopback.rs", text, true), Vec::<String>::new());
    assert_eq!(check(&layers, "idp/loopback.rs", text, false).len(), 1);
}

#[test]
fn planted_io_is_found_in_pure_modules_only() {
    let lines = [
        "async fn f() {}",
        "fn f() -> impl Future { async {} }",
        "use tokio::sync::Mutex;",
        "use std::fs;",
        "use std::{env, fmt};",
        "use std::net::{IpAddr, TcpStream};",
        "use std::time::SystemTime;",
        "use std::time; fn f() { time::Instant::now(); }",
        "fn f() { std::thread::sleep(x) }",
    ];
    for line in lines {
        for path in ["web/cookie.rs", "gateway/forward.rs", "config/check.rs"] {
            assert_eq!(planted(path, line).len(), 1, "{path}: {line}: {:?}", planted(path, line));
        }
        assert_eq!(planted("gateway/challenge.rs", line), Vec::<String>::new(), "{line}");
    }
}

#[test]
fn a_file_whose_name_says_nothing_is_found() {
    assert_eq!(planted("web/utils.rs", "").len(), 1);
    assert_eq!(planted("common/mod.rs", "").len(), 1);
    assert_eq!(planted("web/cookie.rs", "").len(), 0);
}
