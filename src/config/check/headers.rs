//! `[identity]` and `[headers]` -> [`ClaimPaths`] and [`HeaderTable`].

use std::sync::Arc;

use http::header::HeaderName;

use super::rules::{self, one_of};
use super::{Check, all};
use crate::config::file;
use crate::config::problem::Told;
use crate::config::read::{Field, Named};
use crate::identity::ClaimPaths;
use crate::identity::headers::{ACCESS_TOKEN_HEADER, HeaderTable, Preset, Source};
use crate::web::client_addr::FORWARDED_HEADERS;

const PRESETS: &[(&str, Preset)] = &[
    ("x-forwarded", Preset::XForwarded),
    ("x-auth-request", Preset::XAuthRequest),
    ("remote", Preset::Remote),
];

/// Headers with a meaning of their own in HTTP or in the gateway: no claim may stand in them.
const RESERVED: &[&str] = &[
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
];

impl Check<'_> {
    pub(super) fn identity(&mut self, field: Field<file::Identity>) -> Result<ClaimPaths, Told> {
        let file::Identity { user, email, preferred_username, groups } = field.or_empty()?;
        let default = ClaimPaths::default();
        let user = self.claim_path(user, default.user);
        let email = self.claim_path(email, default.email);
        let preferred_username = self.claim_path(preferred_username, default.preferred_username);
        let groups = self.claim_path(groups, default.groups);
        Ok(ClaimPaths {
            user: user?,
            email: email?,
            preferred_username: preferred_username?,
            groups: groups?,
        })
    }

    fn claim_path(&mut self, field: Field<String>, default: Arc<str>) -> Result<Arc<str>, Told> {
        field.parse(&mut self.problems, claim_path).or(default)
    }

    pub(super) fn headers(&mut self, field: Field<file::Headers>) -> Result<HeaderTable, Told> {
        let file::Headers { presets, claims } = field.or_empty()?;
        let presets = match presets.optional()? {
            None => Ok(vec![Preset::default()]),
            Some(list) => all(list
                .into_iter()
                .map(|preset| preset.parse(&mut self.problems, one_of(PRESETS)).element(&mut self.problems))),
        };
        let rows = self.header_rows(claims);
        Ok(HeaderTable::new(&presets?, rows?))
    }

    fn header_rows(&mut self, field: Field<Named<String>>) -> Result<Vec<(HeaderName, Source)>, Told> {
        let Named(rows) = field.or(Named::default())?;
        let mut seen = Vec::new();
        all(rows.into_iter().map(|(name, claim)| {
            let header = header_name(&name).and_then(|name| rules::once(name, &mut seen, "is listed twice"));
            let header = header.map_err(|complaint| self.problems.add(&claim.place, complaint));
            let claim = claim.parse(&mut self.problems, claim_path).element(&mut self.problems);
            Ok((header?, Source::Claim(claim?)))
        }))
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| plain);
    let name = name.ok_or("is not a header name of letters, digits and -")?;
    let reserved = RESERVED.contains(&name.as_str()) || FORWARDED_HEADERS.contains(&name.as_str());
    if reserved {
        return Err("is a header with another meaning; no claim may stand in it".to_owned());
    }
    if name == ACCESS_TOKEN_HEADER {
        return Err("is set where a route says forward_access_token = true".to_owned());
    }
    Ok(name)
}

fn claim_path(text: &str) -> Result<Arc<str>, &'static str> {
    rules::not_empty(text).map(Arc::from)
}
