//! The configuration as an operator meets it: what the program says and with which status it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::certificate::Authority;

const EX_CONFIG: i32 = 78;

fn portcullis(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments).env_remove("PORTCULLIS_CONFIG").env_remove("STATE_DIRECTORY");
    command.output().unwrap()
}

fn check(file: &Path) -> Output {
    portcullis(&["check", "--config", file.to_str().unwrap()])
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory with `portcullis.toml` in it.
fn written(text: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::with_prefix("portcullis-it-").unwrap();
    let file = folder.path().join("portcullis.toml");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

const GOOD: &str = r#"
[[listener]]
address = "127.0.0.1:8080"

[[provider]]
id = "main"
issuer = "https://op.example/realms/a"
client_id = "wiki"

[[provider]]
id = "partners"
issuer = "https://partners.example/"
client_id = "wiki"

[[host]]
name = "*.example.com"
public_url = "https://*.example.com:8443"

[[route]]
host = "*.example.com"
upstream = "http://10.0.0.5:3000"

[[route]]
name = "health"
host = "*"
path = "/healthz"
access = "public"
upstream = "http://10.0.0.5:3000"
"#;

/// What a file of `tests/data/config_errors` must print stands in its `#: ` lines.
#[test]
fn each_wrong_file_is_told_as_it_says_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config_errors");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> =
        files.iter().filter(|file| file.extension().is_some_and(|end| end == "toml")).collect();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let wanted: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("#: ")).collect();
        let wanted = format!("{}: {}\n", file.display(), wanted.join("\n"));
        let output = check(file);
        assert_eq!(stderr(&output), wanted);
        assert_eq!(output.status.code(), Some(EX_CONFIG), "{}", file.display());
        assert_eq!(stdout(&output), "", "{}", file.display());
    }
}

#[test]
fn a_wrong_file_keeps_the_gateway_from_starting_with_the_same_words() {
    let (_folder, file) = written("[session]\nstore = \"ram\"\n");
    let checked = check(&file);
    let run = portcullis(&["run", "--config", file.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(EX_CONFIG));
    assert_eq!(stderr(&run), stderr(&checked));
    assert!(stderr(&run).contains("session.store: \"ram\" is not one of"), "{}", stderr(&run));
}

#[test]
fn a_file_that_is_not_there_is_told_with_its_name() {
    let output = portcullis(&["check", "--config", "/nowhere/portcullis.toml"]);
    assert_eq!(output.status.code(), Some(EX_CONFIG));
    let wanted = "/nowhere/portcullis.toml: 1 problem\n  can't be read: No such file or directory";
    assert!(stderr(&output).starts_with(wanted), "{}", stderr(&output));
}

#[test]
fn check_says_what_to_register_at_the_provider() {
    let (_folder, file) = written(GOOD);
    let output = check(&file);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    for line in [
        "https://*.example.com:8443/oauth2/callback for each name",
        "https://*.example.com:8443/oauth2/callback/partners for each name",
        "https://*.example.com:8443/oauth2/signed_out for each name",
        "*.example.com/ -> http://10.0.0.5:3000, signed in",
        "*/healthz -> http://10.0.0.5:3000, public (health)",
        "127.0.0.1:8080 without TLS",
        "x-forwarded-user",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    assert!(!told.contains("Warnings"), "{told}");
}

#[test]
fn check_says_where_the_public_half_of_a_key_is() {
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys/p256.pkcs8.pem");
    let lines = format!("id = \"main\"\nclient_key = {{ file = \"{}\" }}", key.display());
    let (_folder, file) = written(&GOOD.replacen("id = \"main\"", &lines, 1));
    let told = stdout(&check(&file));
    let uri = "register there as the client's JWKS URI:\n    https://*.example.com:8443/oauth2/jwks";
    assert_eq!(told.matches("/oauth2/jwks").count(), 1, "for the provider with the key alone: {told}");
    assert!(told.contains(uri), "{told}");
}

#[test]
fn the_path_can_come_from_the_environment_and_the_argument_wins() {
    let (_folder, file) = written(GOOD);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.arg("check").args(arguments).env("PORTCULLIS_CONFIG", &file).output().unwrap()
    };
    assert_eq!(run(&[]).status.code(), Some(0));
    assert_eq!(run(&["--config", "/nowhere"]).status.code(), Some(EX_CONFIG));
}

#[test]
fn the_state_directory_of_systemd_is_the_default_of_data_dir() {
    let (_folder, file) = written(GOOD);
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["check", "--config"]).arg(&file).env("STATE_DIRECTORY", "/state/one:/state/two");
    let told = stdout(&command.output().unwrap());
    assert!(told.contains("on disk in /state/one\n"), "{told}");
}

#[test]
fn secrets_come_from_files_and_the_environment_and_are_never_printed() {
    let secret = "client_id = \"wiki\"\nclient_secret = { env = \"THE_SECRET\" }";
    let keys = "[session]\nkeys = [{ file = \"session_key\" }]\n";
    let (folder, file) = written(&format!("{}\n{keys}", GOOD.replacen("client_id = \"wiki\"", secret, 1)));
    let key = stdout(&portcullis(&["keygen"]));
    std::fs::write(folder.path().join("session_key"), &key).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["check", "--config"]).arg(&file).env("THE_SECRET", "hunter2");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(told.contains("1 configured key"), "{told}");
    assert!(!told.contains("hunter2") && !told.contains(key.trim()), "{told}");
}

#[test]
fn keygen_makes_a_new_key_each_time() {
    let (one, two) = (stdout(&portcullis(&["keygen"])), stdout(&portcullis(&["keygen"])));
    assert_ne!(one, two);
    assert!(one.ends_with('\n') && one.trim().len() >= 43, "{}", one.len());
}

#[test]
fn the_example_that_is_printed_is_the_one_of_the_repository() {
    assert_eq!(stdout(&portcullis(&["example-config"])), include_str!("../../config.example.toml"));
}

#[test]
fn wrong_arguments_end_with_2_and_help_and_version_with_0() {
    for (arguments, status) in
        [(&["jump"][..], 2), (&[], 2), (&["--help"], 0), (&["run", "--help"], 0), (&["--version"], 0)]
    {
        assert_eq!(portcullis(arguments).status.code(), Some(status), "{arguments:?}");
    }
    assert_eq!(stdout(&portcullis(&["--version"])), format!("portcullis {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn certificate_and_key_of_a_listener_must_be_readable_and_fit() {
    let (folder, _) = written("");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    std::fs::create_dir(&one).unwrap();
    std::fs::create_dir(&two).unwrap();
    let authority = Authority::new();
    let (chain, key) = authority.issue(&["wiki.test"]).write(&one);
    let (_, other_key) = authority.issue(&["wiki.test"]).write(&two);
    let nowhere = folder.path().join("nowhere.pem");
    let cases = [
        ("that fit", &chain, &key, None),
        ("a key of another certificate", &chain, &other_key, Some("listener[0].tls.key: ")),
        ("no certificate", &nowhere, &key, Some("listener[0].tls.certificate: ")),
        ("no key", &chain, &nowhere, Some("listener[0].tls.key: ")),
        ("a key as certificate", &key, &key, Some("listener[0].tls.certificate: ")),
        ("a certificate as key", &chain, &chain, Some("listener[0].tls.key: ")),
    ];
    for (name, chain, key, wanted) in cases {
        let tls = format!("tls = {{ certificate = \"{}\", key = \"{}\" }}", chain.display(), key.display());
        let address = "address = \"127.0.0.1:8080\"";
        let (_folder, file) = written(&GOOD.replace(address, &format!("{address}\n{tls}")));
        let output = check(&file);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(wanted.map_or(0, |_| EX_CONFIG)), "{name}: {told}");
        assert!(told.contains(wanted.unwrap_or_default()), "{name}: {told}");
        assert!(!told.contains("PRIVATE KEY"), "{name}: {told}");
    }
}
