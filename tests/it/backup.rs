//! `portcullis backup`: a copy of the store while people sign in, and what comes back from it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::browser::Browser;
use crate::support::client::Request;
use crate::support::gateway::{Builder, Gateway};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";

fn stage(change: impl FnOnce(Builder) -> Builder) -> (Upstream, ScriptedProvider, Gateway) {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = change(Gateway::in_front_of(&upstream).provider(provider.entry())).start();
    (upstream, provider, gateway)
}

fn back_up(gateway: &Gateway, output: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["backup", "--config"]).arg(gateway.config_file()).args(output);
    command.output().unwrap()
}

/// What a command says that ends well.
fn told(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    assert_eq!(complaint, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command complains of that ends with 1.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty());
    text
}

fn signed_in(gateway: &Gateway) -> Browser {
    let mut browser = Browser::new(gateway);
    assert_eq!(browser.open(PAGE).status(), 200);
    browser
}

/// The disk is lost and the copy put in its place.
fn restore(gateway: &mut Gateway, copy: &Path) {
    gateway.kill9();
    let file = gateway.data_dir().join("sessions.redb");
    fs::remove_file(&file).unwrap();
    fs::rename(copy, &file).unwrap();
    gateway.restart();
}

#[test]
fn a_backup_made_while_people_sign_in_brings_them_back() {
    let (_upstream, provider, mut gateway) = stage(|builder| builder);
    let mut before = [signed_in(&gateway), signed_in(&gateway)];
    let copy = gateway.data_dir().with_file_name("copy.redb");
    let over = AtomicBool::new(false);
    let mut meanwhile = std::thread::scope(|scope| {
        let people = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut browsers = Vec::new();
                while browsers.is_empty() || !over.load(Ordering::SeqCst) {
                    let mut browser = signed_in(&gateway);
                    assert_eq!(browser.get(PAGE).status, 200);
                    browsers.push(browser);
                }
                browsers
            })
        });
        let text = told(&back_up(&gateway, Some(&copy)));
        over.store(true, Ordering::SeqCst);
        assert!(text.starts_with(&format!("{}: ", copy.display())), "{text}");
        assert!(text.trim_end().ends_with("(by the gateway that runs)"), "{text}");
        people.map(|person| person.join().unwrap()).into_iter().flatten().collect::<Vec<_>>()
    });
    gateway.wait_for_log(&["backup_made"]);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o600);
    let mut after = signed_in(&gateway);
    for browser in before.iter_mut().chain(&mut meanwhile) {
        assert_eq!(browser.get(PAGE).status, 200, "the live store goes on");
    }
    restore(&mut gateway, &copy);
    let calls = provider.calls(Call::Token);
    for browser in &mut before {
        assert_eq!(Echo::of(&browser.get(PAGE)).one("x-forwarded-user"), Some("alice"));
    }
    assert_eq!(provider.calls(Call::Token), calls, "nobody had to sign in again");
    assert_eq!(after.get(PAGE).status, 302, "the copy is of its own moment");
    assert_eq!(after.open(PAGE).status(), 200, "and the store takes sign-ins");
}

#[test]
fn a_backup_without_a_gateway_is_made_from_its_file() {
    let (_upstream, _provider, mut gateway) = stage(|builder| builder);
    let mut browser = signed_in(&gateway);
    gateway.kill9();
    let text = told(&back_up(&gateway, None));
    let copy = gateway.data_dir().join("backup/sessions.redb");
    assert!(text.starts_with(&format!("{}: 1 sessions, ", copy.display())), "{text}");
    assert!(text.trim_end().ends_with("(no gateway runs)"), "{text}");
    gateway.restart();
    restore(&mut gateway, &copy);
    assert_eq!(browser.get(PAGE).status, 200);
}

#[test]
fn without_an_output_one_backup_lies_in_the_data_folder() {
    let (_upstream, _provider, gateway) = stage(|builder| builder);
    for sessions in 1..3 {
        signed_in(&gateway);
        let text = told(&back_up(&gateway, None));
        assert!(text.contains(&format!("backup/sessions.redb: {sessions} sessions, ")), "{text}");
    }
    assert_eq!(fs::read_dir(gateway.data_dir().join("backup")).unwrap().count(), 1);
}

#[test]
fn nobody_without_the_token_has_a_backup_made() {
    let (_upstream, _provider, gateway) = stage(|builder| builder);
    let token = fs::read_to_string(gateway.data_dir().join("admin.token")).unwrap();
    let authorization = format!("Bearer {token}");
    let address = gateway.admin_address().to_string();
    let port = gateway.admin_address().port();
    let ask = |method: &str, host: &str, fields: &[(&str, &str)]| {
        let mut request = Request::new(method, "/backup").with("Host", host);
        for (name, value) in fields {
            request = request.with(name, value);
        }
        gateway.ask_admin(&request)
    };
    let shown = ("Authorization", authorization.as_str());
    let cases: [(&str, &str, &str, Vec<_>, u16); 7] = [
        ("nothing shown", "POST", &address, vec![], 401),
        ("another token", "POST", &address, vec![("Authorization", "Bearer AAAA")], 401),
        ("no scheme", "POST", &address, vec![("Authorization", &token)], 401),
        ("a page", "POST", &address, vec![shown, ("Origin", "https://evil.test")], 403),
        ("a browser", "POST", &address, vec![shown, ("Sec-Fetch-Site", "same-origin")], 403),
        ("a name", "POST", &format!("rebound.test:{port}"), vec![shown], 403),
        ("a link", "GET", &address, vec![shown], 405),
    ];
    for (name, method, host, fields, status) in cases {
        assert_eq!(ask(method, host, &fields).status, status, "{name}");
    }
    assert!(!gateway.data_dir().join("backup").exists(), "nothing was made");
    let line = gateway.wait_for_log(&["admin_action_refused"]);
    assert!(line.contains("\"reason\":\"token\""), "{line}");
    assert_eq!(ask("POST", &address, &[shown]).status, 200);
    assert!(gateway.log().iter().all(|line| !line.contains(&token)));
}

#[test]
fn a_backup_that_cannot_be_made_says_why() {
    let upstream = Upstream::start();
    let public = || Gateway::empty().path("/", &upstream, "access = \"public\"");
    let in_memory = public().session("store = \"memory\"\n").prepare();
    let text = complaint(&back_up(&in_memory, None));
    assert_eq!(
        text,
        "portcullis: no backup was made: session.store is \"memory\": there is nothing on disk to back up\n"
    );
    let mut gateway = public().prepare();
    assert!(complaint(&back_up(&gateway, None)).contains("there is no store yet"));
    assert!(!gateway.data_dir().exists(), "and none is made");
    gateway.restart();
    let nowhere = gateway.data_dir().join("missing/copy");
    assert!(complaint(&back_up(&gateway, Some(&nowhere))).contains("missing: "));
    fs::write(gateway.data_dir().join("backup"), "in the way").unwrap();
    let text = complaint(&back_up(&gateway, None));
    assert!(text.contains("answered 503: ") && text.contains("backup/sessions.redb.new: "), "{text}");
    gateway.wait_for_log(&["backup_failed"]);
    fs::remove_file(gateway.data_dir().join("admin.token")).unwrap();
    let text = complaint(&back_up(&gateway, None));
    assert!(text.contains("admin.token can't be read: ") && text.contains("as the gateway's user"), "{text}");
}

#[test]
fn a_token_of_an_earlier_run_opens_nothing() {
    let (_upstream, _provider, mut gateway) = stage(|builder| builder);
    let file = gateway.data_dir().join("admin.token");
    let earlier = fs::read(&file).unwrap();
    gateway.kill9();
    gateway.restart();
    let now = wait_for("a new token", || fs::read(&file).ok().filter(|token| *token != earlier));
    fs::write(&file, earlier).unwrap();
    assert!(complaint(&back_up(&gateway, None)).contains("answered 401: token"));
    fs::write(&file, now).unwrap();
    told(&back_up(&gateway, None));
}
