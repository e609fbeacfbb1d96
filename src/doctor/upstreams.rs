//! The applications: does each answer, and is its certificate good.

use std::time::Duration;

use http::Method;
use tokio::runtime::Handle;

use super::Report;
use crate::idp::transport::reach::Reach;
use crate::idp::transport::{Options, Transport, TransportError};
use crate::route::Upstream;

/// The whole of one question to an application.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most bytes of an answer to HEAD, which has none.
const NO_BODY: usize = 64 * 1024;

pub(super) async fn examine(upstreams: &[Upstream], report: &mut Report<'_>) {
    for upstream in upstreams {
        let url = upstream.url();
        report.about(format!("application {url}"));
        match ask(upstream, &url).await {
            Ok(status) => report.ok(format!("answers (with {status} to HEAD /)")),
            Err(reason) => report.fail(
                format!("does not answer: {reason}"),
                "is it running, is the address right, is its certificate from a CA that is known here?",
            ),
        }
    }
}

async fn ask(upstream: &Upstream, url: &str) -> Result<u16, String> {
    let options = Options {
        ca_file: upstream.ca_file.as_deref().map(Into::into),
        timeout: PATIENCE,
        plain_http: !upstream.tls,
        // The configuration names it: it may be anywhere.
        reach: Reach::new(url, true),
    };
    let transport = Transport::new(&options, Handle::current()).map_err(|error| error.to_string())?;
    let request = http::Request::builder().method(Method::HEAD).uri(format!("{url}/")).body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = transport.send(request, NO_BODY).await.map_err(|error: TransportError| error.to_string())?;
    Ok(answer.status().as_u16())
}
