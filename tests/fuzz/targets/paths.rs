//! Request targets and return URLs.

use percent_encoding::percent_decode;
use portcullis::web::return_to::ReturnTo;
use portcullis::web::target::split_absolute_form;
use portcullis::web::{Host, Target};
use url::Url;

/// What rules see is what is forwarded, to every reader.
pub fn target(input: &[u8]) {
    if let Ok(target) = Target::parse_with_slashes(input) {
        assert_eq!(Target::parse(input).is_ok(), target.split_path().is_none(), "an escaped slash passes");
        check_target(input, &target);
    }
    if let Some((scheme, authority, origin_form)) = split_absolute_form(input) {
        check_absolute(input, scheme, authority, &origin_form);
    }
    if let Ok(host) = Host::parse(input) {
        assert_eq!(
            Host::parse(host.to_string().as_bytes()).as_ref(),
            Ok(&host),
            "a host's own form is another"
        );
        check_host(&host);
    }
}

fn check_target(input: &[u8], target: &Target) {
    let (text, rules) = (target.as_str(), target.path());
    assert!(text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    let again = Target::parse_with_slashes(text.as_bytes());
    assert_eq!(again.as_ref(), Ok(target), "the canonical form has another");
    let judged = Target::parse_with_slashes(rules.as_bytes()).expect("what rules see is a target");
    assert_eq!(judged.path(), rules, "what rules see has another form");
    let wire = text.split('?').next().unwrap_or_default();
    let sent = input.split(|byte| *byte == b'?').next().unwrap_or_default();
    let meant: Vec<u8> = percent_decode(sent).collect();
    assert_eq!(percent_decode(rules.as_bytes()).collect::<Vec<_>>(), meant, "rules see another path");
    assert_eq!(percent_decode(wire.as_bytes()).collect::<Vec<_>>(), meant, "another path is forwarded");
    assert_eq!(lax(wire.as_bytes()), meant, "a lax reader arrives elsewhere");
    if let Some(split) = target.split_path() {
        assert_eq!(
            percent_decode(split.as_bytes()).collect::<Vec<_>>(),
            meant,
            "the other reading is another path"
        );
        assert!(Target::parse(split.as_bytes()).is_ok(), "the other reading is no path of its own");
    }
    assert_eq!(target.query().map_or(wire.len(), |query| wire.len() + 1 + query.len()), text.len());
    let browser = Url::parse("https://app.test").and_then(|base| base.join(text)).expect("a URL");
    assert_eq!(browser.host_str(), Some("app.test"), "{text:?} leads a browser away");
    assert_eq!(
        percent_decode(browser.path().as_bytes()).collect::<Vec<_>>(),
        meant,
        "a browser goes elsewhere"
    );
}

/// The path as the most forgiving application reads it: escapes decoded first, backslashes for slashes,
/// slashes merged, parameters cut off, cut at NUL, dots followed.
pub fn lax(path: &[u8]) -> Vec<u8> {
    let decoded: Vec<u8> = percent_decode(path).map(|byte| if byte == b'\\' { b'/' } else { byte }).collect();
    let decoded = decoded.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| *byte == b'/') {
        match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut path = vec![b'/'];
    path.extend(kept.join(&b'/'));
    if decoded.ends_with(b"/") && path.len() > 1 {
        path.push(b'/');
    }
    path
}

/// An absolute form that is let through names the host and path that a browser would go to.
fn check_absolute(input: &[u8], scheme: &str, authority: &[u8], origin_form: &[u8]) {
    let (Ok(host), Ok(target)) = (Host::parse(authority), Target::parse_with_slashes(origin_form)) else {
        return;
    };
    check_target(origin_form, &target);
    let text = std::str::from_utf8(input).expect("authority and target are ASCII");
    let Ok(url) = Url::parse(text) else { return };
    assert_eq!(url.scheme(), scheme);
    assert_same_host(&url, &host);
}

/// A browser that is sent to the host goes to that host.
fn check_host(host: &Host) {
    if let Ok(url) = Url::parse(&format!("http://{host}/")) {
        assert_same_host(&url, host);
        assert!(url.username().is_empty() && url.password().is_none() && url.path() == "/");
    }
}

fn assert_same_host(url: &Url, host: &Host) {
    assert_eq!(url.host_str().map(|name| name.trim_end_matches('.')), Some(host.name()));
    let port = host.port().filter(|port| url.scheme() != "http" || *port != 80);
    let port = port.filter(|port| url.scheme() != "https" || *port != 443);
    assert_eq!(url.port(), port);
}

/// Nobody is sent to another host.
pub fn return_to(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for base in ["https://app.test/", "http://localhost:4180/", "https://[2001:db8::1]:8443/"] {
        let base: Url = base.parse().expect("a URL");
        if let Some(return_to) = ReturnTo::parse(&text, &base, "/oauth2") {
            check_return(&base, return_to.as_str());
        }
    }
}

fn check_return(base: &Url, path: &str) {
    let resolved = base.join(path).expect("it was parsed once");
    assert_eq!(resolved.origin(), base.origin(), "{path:?} leads away");
    assert!(resolved.username().is_empty() && resolved.password().is_none());
    assert!(path.starts_with('/') && !path.starts_with("//"), "{path:?} is not a path");
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{path:?}");
    assert!(!path.contains('#'), "{path:?} has a fragment");
    let target = Target::parse_with_slashes(path.as_bytes()).expect("a return URL is a target");
    for reading in [Some(target.path()), target.split_path()].into_iter().flatten() {
        assert!(!reading.starts_with("/oauth2/") && reading != "/oauth2", "{path:?} is ours");
    }
    // Also where it is resolved by somebody who decodes it first.
    let decoded = percent_decode(target.path().as_bytes()).decode_utf8_lossy();
    let lax = base.join(&decoded).expect("a path");
    assert_eq!(lax.origin(), base.origin(), "{path:?} leads away when it is decoded");
    let again = ReturnTo::parse(path, base, "/oauth2");
    assert_eq!(again.as_ref().map(ReturnTo::as_str), Some(path), "it is not accepted again");
}
