//! `[server]`: who may name the client.

use super::rules::one_of;
use super::{Check, all};
use crate::config::file::{self, List};
use crate::config::problem::Told;
use crate::config::read::Field;
use crate::web::proxies::{Network, ToldIn, TrustedProxies};

const TOLD_IN: &[(&str, ToldIn)] =
    &[("x-forwarded-for", ToldIn::XForwardedFor), ("forwarded", ToldIn::Forwarded)];

/// Whether any trusted proxy is written, right or wrong.
pub(super) fn has_trusted_proxies(server: &Field<file::Server>) -> bool {
    let list = server.peek().and_then(|server| server.trusted_proxies.peek());
    list.is_some_and(|list| !list.is_empty())
}

impl Check<'_> {
    pub(super) fn trusted_proxies(
        &mut self,
        networks: Field<List<String>>,
        header: Field<String>,
    ) -> Result<TrustedProxies, Told> {
        let list = networks.or(Vec::new())?;
        let is_empty = list.is_empty();
        let rule = |text: &str| Network::parse(text).map_err(|error| error.to_string());
        let networks = all(list
            .into_iter()
            .map(|text| text.parse(&mut self.problems, rule).element(&mut self.problems)));
        let told_in =
            header.parse(&mut self.problems, one_of(TOLD_IN)).check(&mut self.problems, |told_in| {
                if is_empty && told_in != ToldIn::default() {
                    return Err("has no effect without server.trusted_proxies");
                }
                Ok(told_in)
            });
        let told_in = told_in.or(ToldIn::default())?;
        Ok(TrustedProxies::new(networks?, told_in))
    }
}
