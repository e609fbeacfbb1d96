//! What `portcullis check` says about a good configuration: what the gateway will do with it, and what
//! is to be registered at the providers.

use std::time::Duration;

use crate::config::{Settings, StoreKind};
use crate::idp::ProviderSettings;
use crate::policy::{Access, Rule};
use crate::route::{Route, RouteTable, Upstream, UpstreamId};

/// The summary, a block of lines for each subject, warnings last.
pub(super) fn of(settings: &Settings) -> String {
    let blocks = [
        block("Listeners", listeners(settings)),
        block("Routes", settings.gateway.routes.iter().map(|route| line(route, &settings.gateway.routes))),
        settings.providers.iter().map(|provider| provider_block(provider, settings)).collect(),
        block("Identity headers", settings.gateway.reading.headers.names().map(ToString::to_string)),
        block("Sessions", sessions(settings)),
        block("Warnings", settings.warnings.iter().cloned()),
    ];
    blocks.into_iter().filter(|block| !block.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A title and its lines; nothing where there are none.
fn block(title: &str, lines: impl IntoIterator<Item = String>) -> String {
    let lines: Vec<_> = lines.into_iter().collect();
    if lines.is_empty() { String::new() } else { format!("{title}\n  {}\n", lines.join("\n  ")) }
}

fn listeners(settings: &Settings) -> Vec<String> {
    let listeners = settings.listeners.iter().map(|listener| {
        let behind = if listener.proxy_protocol { ", behind the PROXY protocol" } else { "" };
        match &listener.tls {
            Some(tls) => format!("{} with TLS ({}){behind}", listener.address, tls.certificate.display()),
            None => format!("{} without TLS{behind}", listener.address),
        }
    });
    let admin = settings.admin.map(|address| format!("{address} for health and metrics (admin)"));
    listeners.chain(admin).collect()
}

fn line(route: &Route, table: &RouteTable) -> String {
    let place = format!("{}{}", route.host, route.path);
    let named = if *route.name == *place { String::new() } else { format!(" ({})", route.name) };
    format!("{place} -> {}, {}{named}", upstream(table, route.upstream), who(&route.rule))
}

fn upstream(table: &RouteTable, id: UpstreamId) -> String {
    table.upstreams.get(id.0).map(Upstream::url).unwrap_or_default()
}

fn who(rule: &Rule) -> String {
    match rule.access {
        Access::Public => "public".to_owned(),
        Access::Optional => "everybody, told who if signed in".to_owned(),
        Access::SignedIn => {
            let groups =
                (!rule.groups.is_empty()).then(|| format!("in a group of: {}", rule.groups.join(", ")));
            let acr = &rule.step_up.acr;
            let acr = (!acr.is_empty()).then(|| format!("authenticated by one of: {}", acr.join(", ")));
            let age = rule.step_up.max_age.map(humantime::format_duration);
            let age = age.map(|age| format!("authenticated no longer than {age} ago"));
            let rest = [groups, acr, age].into_iter().flatten();
            std::iter::once("signed in".to_owned()).chain(rest).collect::<Vec<_>>().join(" and ")
        }
    }
}

/// A provider, with the URIs that its client must be registered with.
fn provider_block(provider: &ProviderSettings, settings: &Settings) -> String {
    let mut lines = vec![format!("issuer {}, client {}", provider.issuer, provider.client_id.0)];
    if !provider.email_domains.is_empty() {
        lines.push(format!("signs in addresses at: {}", provider.email_domains.join(", ")));
    }
    lines.push("register there as redirect URIs:".to_owned());
    let indented = |url| format!("  {url}");
    lines.extend(settings.public_urls(&provider.id, &provider.callback_path).map(indented));
    lines.push("register there as post-logout redirect URIs:".to_owned());
    lines.extend(settings.public_urls(&provider.id, "signed_out").map(indented));
    if !provider.client.keys.is_empty() {
        lines.push("register there as the client's JWKS URI:".to_owned());
        lines.extend(settings.public_urls(&provider.id, "jwks").take(1).map(indented));
    }
    block(&format!("Provider {} ({})", provider.id, provider.display_name), lines)
}

fn sessions(settings: &Settings) -> Vec<String> {
    let limits = &settings.gateway.reading.limits;
    let store = match settings.store {
        StoreKind::Disk => format!("on disk in {}", settings.data_dir.display()),
        StoreKind::Memory => "in memory".to_owned(),
        StoreKind::Redis => {
            let addresses = settings.redis.iter().flat_map(|redis| &redis.addresses).map(ToString::to_string);
            format!("in Redis at {}", addresses.collect::<Vec<_>>().join(", "))
        }
    };
    let keys = match settings.keys.iter().map(|entry| entry.keys.len()).sum() {
        0_usize => own_keys(settings),
        1 => "1 configured key".to_owned(),
        count => format!("{count} configured keys, of which the first seals"),
    };
    let idle = humantime::format_duration(limits.idle_timeout);
    let max = humantime::format_duration(limits.max_lifetime);
    vec![store, keys, format!("end after {idle} without use, and {max} after sign-in")]
}

fn own_keys(settings: &Settings) -> String {
    let place = match settings.store {
        StoreKind::Disk | StoreKind::Redis => settings.data_dir.display().to_string(),
        StoreKind::Memory => "memory".to_owned(),
    };
    match settings.key_rotation {
        Some(every) => {
            format!("keys of its own in {place}, a new one every {}", span(every))
        }
        None => format!("keys of its own in {place}, a new one by `portcullis keys rotate` only"),
    }
}

/// Whole days as days: a month has no length that anybody wrote.
fn span(time: Duration) -> String {
    let day = Duration::from_hours(24);
    let days = time.as_secs() / day.as_secs();
    match days {
        1 if time == day => "day".to_owned(),
        2.. if time == day * u32::try_from(days).unwrap_or(u32::MAX) => format!("{days} days"),
        _ => humantime::format_duration(time).to_string(),
    }
}
