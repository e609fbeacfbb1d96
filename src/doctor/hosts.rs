//! The public names: do they lead anywhere, what of cookies there, who speaks TLS.

use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Report;
use crate::config::{ListenerSettings, Settings};
use crate::route::{HostPattern, HostSettings};

/// How long a name may take to resolve.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn examine(settings: &Settings, report: &mut Report<'_>) {
    for host in &settings.hosts {
        report.about(format!("host {}", host.pattern));
        name(host, report).await;
        cookies(host, report);
        tls(host, &settings.listeners, report);
    }
}

async fn name(host: &HostSettings, report: &mut Report<'_>) {
    let HostPattern::Exact(name) = &host.pattern else {
        return report.note("is a pattern: whether its names lead here is not examined");
    };
    let port = host.public_url.port_or_known_default().unwrap_or(443);
    match resolve(name, port).await {
        Ok(addresses) => report.ok(format!("is {addresses} in the DNS as seen from here")),
        Err(reason) => report.warn(
            format!("can't be resolved from here: {reason}"),
            "browsers need it in the DNS; where only they have it, all is well",
        ),
    }
}

/// The addresses of a name, or why there are none.
pub(super) async fn resolve(name: &str, port: u16) -> Result<String, String> {
    let found = timeout(PATIENCE, lookup_host((name, port))).await;
    let found =
        found.or(Err(format!("no answer within {PATIENCE:?}")))?.map_err(|error| error.to_string())?;
    let addresses: Vec<_> = found.map(|address| address.ip().to_string()).collect();
    if addresses.is_empty() { Err("it has no address".to_owned()) } else { Ok(addresses.join(", ")) }
}

fn cookies(host: &HostSettings, report: &mut Report<'_>) {
    if host.public_url.scheme() == "https" {
        return report
            .ok("has cookies of its own (`__Host-`, Secure): no other host gets them or can set them");
    }
    report.warn(
        "is http: its cookies go without `Secure` and `__Host-`, so every host and port of this name may set them",
        "use https, and http for trying things out on loopback only",
    );
}

/// Who ends TLS, as far as the listeners tell.
fn tls(host: &HostSettings, listeners: &[ListenerSettings], report: &mut Report<'_>) {
    let here = listeners.iter().filter(|listener| listener.tls.is_some()).count();
    if host.public_url.scheme() == "https" && here == 0 {
        report.note(format!(
            "is https and no listener has TLS: a load balancer in front ends it, and has to pass `Host: {}` on",
            host.public_url.host_str().unwrap_or_default()
        ));
    }
}
