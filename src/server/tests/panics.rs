//! A panic in the handling of one request (DO-7).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::support::{Application, field, public, settings, start_at, status};
use crate::clock::Clock;

#[test]
fn do_7_a_panic_is_the_end_of_one_request_and_of_nothing_else() {
    let application = Application::echo();
    let provider = "[[provider]]\nid = \"main\"\nissuer = \"http://127.0.0.1:9\"\nclient_id = \"a\"\n";
    let signed_in = format!(
        "[[route]]\nhost = \"app.test\"\npath = \"/app\"\nupstream = \"http://{}\"\n",
        application.address
    );
    let broken = Arc::new(AtomicBool::new(false));
    let settings = settings(&format!("{provider}{signed_in}{}", public(application.address, "")));
    let fixture = start_at(settings, Clock::breaks(Arc::clone(&broken)));
    let navigate = "GET /app HTTP/1.1\r\nHost: app.test\r\nAccept: text/html\r\nConnection: close\r\n\r\n";
    let public = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    let elsewhere = "GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";
    let before = fixture.exchange(navigate);

    broken.store(true, Ordering::SeqCst);
    let answer = fixture.exchange(navigate);
    assert_eq!(status(&answer), 500, "{answer}");
    assert!(answer.contains("internal") && !answer.contains("the clock is broken"), "{answer}");
    assert_eq!(field(&answer, "cache-control"), Some("no-store"));
    assert_eq!(status(&fixture.exchange(elsewhere)), 421, "who needs no clock is answered");
    broken.store(false, Ordering::SeqCst);

    assert_eq!(status(&fixture.exchange(public)), 200);
    assert_eq!(status(&fixture.exchange(navigate)), status(&before), "nothing stays behind");
}
