//! `[[provider]]` -> [`ProviderSettings`].

use std::sync::Arc;
use std::time::Duration;

use super::rules::{self, between, one_of};
use super::{Check, HOUR, MINUTE, SECOND, all, client};
use crate::config::file::{self, List};
use crate::config::problem::Told;
use crate::config::read::{Field, Named};
use crate::idp::ProviderSettings;
use crate::oidc::authorize::Parameters;
use crate::oidc::{ClientId, Issuer, ProviderId};
use crate::token::Algorithm;
use crate::web::email::parse_domain;

const SCOPES: &[&str] = &["openid", "profile", "email"];

/// Whether the answer comes by form_post.
const RESPONSE_MODE: &[(&str, bool)] = &[("query", false), ("form_post", true)];

/// The signature algorithms that there are.
pub(super) const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Parameters that the gateway sets itself, or whose answer it could not take (AR-6).
const OWN_PARAMS: &[&str] = &[
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "id_token_hint",
    "nonce",
    "redirect_uri",
    "registration",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

/// The ids as they are written, right or wrong: what a route may name.
pub(super) fn ids(providers: &Field<List<file::Provider>>) -> Vec<String> {
    written(providers).filter_map(|provider| provider.id.peek().cloned()).collect()
}

/// The ids of those that answer by form_post.
pub(super) fn posting_ids(providers: &Field<List<file::Provider>>) -> Vec<String> {
    let posts =
        |provider: &&file::Provider| provider.response_mode.peek().is_some_and(|mode| mode == "form_post");
    written(providers).filter(posts).filter_map(|provider| provider.id.peek().cloned()).collect()
}

fn written(providers: &Field<List<file::Provider>>) -> impl Iterator<Item = &file::Provider> {
    providers.peek().into_iter().flatten().filter_map(Field::peek)
}

impl Check<'_> {
    /// A route that is not public needs somebody to sign people in.
    pub(super) fn providers_where_needed(
        &mut self,
        providers: &Field<List<file::Provider>>,
        routes: &Field<List<file::Route>>,
    ) {
        let none = providers.peek().map_or(!providers.is_written(), Vec::is_empty);
        let routes = routes.peek().map(Vec::as_slice).unwrap_or_default();
        let is_public = |route: &file::Route| route.access.peek().is_some_and(|access| access == "public");
        let asks = routes.iter().find(|route| route.peek().is_some_and(|route| !is_public(route)));
        if let (true, Some(route)) = (none, asks) {
            let message =
                format!("is missing: {} is not public, so a [[provider]] is needed", route.place.path);
            self.problems.add(&providers.place, message);
        }
    }

    pub(super) fn providers(
        &mut self,
        field: Field<List<file::Provider>>,
    ) -> Result<Vec<ProviderSettings>, Told> {
        let list = field.or(Vec::new())?;
        let (mut ids, mut domains) = (Vec::new(), Vec::new());
        let alone = list.len() == 1;
        let providers = all(list.into_iter().enumerate().map(|(index, provider)| {
            let provider = provider.element(&mut self.problems)?;
            self.provider(provider, index, &mut ids, &mut domains)
        }))?;
        if alone && !domains.is_empty() {
            let text = "provider[0].email_domains has no effect: nobody is asked where there is one provider";
            self.warnings.push(text.to_owned());
        }
        Ok(providers)
    }

    fn provider(
        &mut self,
        provider: file::Provider,
        index: usize,
        ids: &mut Vec<String>,
        domains: &mut Vec<Arc<str>>,
    ) -> Result<ProviderSettings, Told> {
        let file::Provider {
            id,
            name,
            issuer,
            client_id,
            client_secret,
            client_key,
            client_auth,
            client_key_algorithm,
            client_certificate,
            client_assertion_audience,
            scopes,
            pushed_authorization_requests,
            authorization_params,
            response_mode,
            email_domains,
            id_token_algorithms,
            trusted_audiences,
            userinfo,
            userinfo_signed_response_alg,
            leeway,
            strict_logout_tokens,
            frontchannel_logout,
            refresh_reuse_grace,
            ca_file,
            danger_internal_addresses,
            timeout,
        } = provider;
        let id = self.provider_id(id, ids);
        let name = name.parse(&mut self.problems, rules::not_empty).optional();
        let issuer = self.issuer(issuer);
        let client_id = self.client_id(client_id);
        self.certificate_needs_https(&client_certificate, issuer.as_ref().ok());
        let client = self.client(client::Fields {
            secret: client_secret,
            key: client_key,
            auth: client_auth,
            key_algorithm: client_key_algorithm,
            certificate: client_certificate,
            audience: client_assertion_audience,
        });
        let scopes = self.scopes(scopes);
        let params = self.authorization_params(authorization_params);
        let form_post = response_mode.parse(&mut self.problems, one_of(RESPONSE_MODE)).or(false);
        let email_domains = self.email_domains(email_domains, domains);
        let algorithms = self.algorithms(id_token_algorithms);
        let trusted_audiences = self.trusted_audiences(trusted_audiences);
        let is_asked = userinfo.peek() != Some(&false);
        let signed = userinfo_signed_response_alg
            .parse(&mut self.problems, one_of(ALGORITHMS))
            .check(
                &mut self.problems,
                |alg| if is_asked { Ok(alg) } else { Err("contradicts userinfo = false") },
            )
            .optional();
        let leeway = leeway.check(&mut self.problems, between(Duration::ZERO, MINUTE)).or(30 * SECOND);
        let grace =
            refresh_reuse_grace.check(&mut self.problems, between(Duration::ZERO, HOUR)).or(Duration::ZERO);
        let ca_file = self.ca_file(ca_file);
        let timeout = timeout.check(&mut self.problems, between(SECOND / 10, MINUTE)).or(10 * SECOND);
        let id = id?;
        Ok(ProviderSettings {
            display_name: name?.map_or_else(|| Arc::clone(&id), Arc::from),
            callback_path: callback_path(index, &id),
            id: ProviderId(id),
            issuer: issuer?,
            client_id: client_id?,
            client: client?,
            scopes: scopes?,
            pushed_authorization_requests: pushed_authorization_requests.or(false)?,
            authorization_params: params?,
            email_domains: email_domains?,
            form_post: form_post?,
            id_token_algorithms: algorithms?,
            trusted_audiences: trusted_audiences?,
            userinfo: userinfo.or(true)?,
            userinfo_signed_response_alg: signed?,
            leeway: leeway?,
            strict_logout_tokens: strict_logout_tokens.or(false)?,
            frontchannel_logout: frontchannel_logout.or(false)?,
            refresh_reuse_grace: grace?,
            ca_file: ca_file?,
            danger_internal_addresses: danger_internal_addresses.or(false)?,
            timeout: timeout?,
        })
    }

    fn provider_id(&mut self, field: Field<String>, ids: &mut Vec<String>) -> Result<Arc<str>, Told> {
        let id = field
            .parse(&mut self.problems, id_shape)
            .check(&mut self.problems, |id| rules::once(id, ids, "is the id of another provider too"));
        id.required(&mut self.problems, "a short name such as \"main\"").map(Arc::from)
    }

    fn issuer(&mut self, field: Field<String>) -> Result<Issuer, Told> {
        let wanted = "the issuer as the provider's discovery document says it";
        field.parse(&mut self.problems, issuer).required(&mut self.problems, wanted)
    }

    fn client_id(&mut self, field: Field<String>) -> Result<ClientId, Told> {
        let id = field.parse(&mut self.problems, rules::not_empty);
        id.required(&mut self.problems, "the client's id at the provider").map(|id| ClientId(id.into()))
    }

    fn scopes(&mut self, field: Field<List<String>>) -> Result<Vec<Arc<str>>, Told> {
        let place = field.place.clone();
        let Some(list) = field.optional()? else {
            return Ok(SCOPES.iter().map(|&scope| scope.into()).collect());
        };
        let rule = |text: &str| rules::token(text).map_err(|_none| "is not one scope");
        let scopes = all(list
            .into_iter()
            .map(|scope| scope.parse(&mut self.problems, rule).element(&mut self.problems)))?;
        if !scopes.iter().any(|scope| &**scope == "openid") {
            return Err(self.problems.add(&place, "does not list \"openid\", without which nobody signs in"));
        }
        Ok(scopes)
    }

    /// Of a provider or of a route.
    pub(super) fn authorization_params(&mut self, field: Field<Named<String>>) -> Result<Parameters, Told> {
        let Named(rows) = field.or(Named::default())?;
        all(rows.into_iter().map(|(name, value)| {
            let place = value.place.clone();
            if OWN_PARAMS.contains(&name.as_str()) {
                return Err(self.problems.add(&place, "is set by the gateway itself"));
            }
            if name == "max_age" {
                let message = "would not be checked when the person comes back; write require = { max_age = \"5m\" } on a route";
                return Err(self.problems.add(&place, message));
            }
            let value = value.element(&mut self.problems)?;
            Ok((Arc::from(name), Arc::from(value)))
        }))
    }

    fn email_domains(
        &mut self,
        field: Field<List<String>>,
        taken: &mut Vec<Arc<str>>,
    ) -> Result<Vec<Arc<str>>, Told> {
        let list = field.or(Vec::new())?;
        all(list.into_iter().map(|domain| {
            domain
                .parse(&mut self.problems, email_domain)
                .check(&mut self.problems, |domain| rules::once(domain, taken, "is listed twice"))
                .element(&mut self.problems)
        }))
    }

    fn trusted_audiences(&mut self, field: Field<List<String>>) -> Result<Vec<Arc<str>>, Told> {
        let list = field.or(Vec::new())?;
        all(list.into_iter().map(|name| {
            let name = name.parse(&mut self.problems, rules::not_empty);
            name.element(&mut self.problems).map(Arc::from)
        }))
    }

    fn algorithms(&mut self, field: Field<List<String>>) -> Result<Vec<Algorithm>, Told> {
        let place = field.place.clone();
        let Some(list) = field.optional()? else { return Ok(vec![Algorithm::RS256]) };
        if list.is_empty() {
            return Err(self.problems.add(&place, "is empty: no ID token could be accepted"));
        }
        all(list
            .into_iter()
            .map(|name| name.parse(&mut self.problems, one_of(ALGORITHMS)).element(&mut self.problems)))
    }
}

/// The first provider has the short callback, so that a single one needs no id in its redirect URI.
fn callback_path(index: usize, id: &str) -> Arc<str> {
    if index == 0 { "callback".into() } else { format!("callback/{id}").into() }
}

fn id_shape(text: &str) -> Result<String, &'static str> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=32).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("is not 1 to 32 of a-z, 0-9 and -")
    }
}

/// OIDC Discovery 1.0 section 3: https, no query, no fragment. Kept byte for byte (ID-6).
fn issuer(text: &str) -> Result<Issuer, &'static str> {
    let url = rules::http_url(text)?;
    if url.scheme() != "https" && !rules::is_loopback(&url) {
        return Err("is not an https URL (http is for loopback hosts only)");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment, which an issuer never has");
    }
    Ok(Issuer(text.into()))
}

fn email_domain(text: &str) -> Result<Arc<str>, &'static str> {
    let complaint = "is not a domain such as \"example.com\"; subdomains are listed one by one";
    parse_domain(text).map(Arc::from).ok_or(complaint)
}
