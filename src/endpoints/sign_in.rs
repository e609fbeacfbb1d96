//! `GET sign_in?rd=`: the page with a field for an address and a button for each provider.

use http::StatusCode;
use url::form_urlencoded::Serializer;

use super::Call;
use crate::gateway::Refusal;
use crate::idp::ProviderSettings;
use crate::web::Reply;
use crate::web::page::{self, Choice, EmailForm, SignInPage};
use crate::web::return_to::ReturnTo;

/// Shows the page. It says nothing of who is signed in, so it is the same for everybody.
pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let wanted = call.parameter("rd").unwrap_or_default();
    show(call, &call.gateway.return_to(&wanted, call.site), None)
}

/// Shows the page; `unknown` is an address that nobody signs in with.
pub(super) fn show(call: &Call<'_>, return_to: &ReturnTo, unknown: Option<&str>) -> Result<Reply, Refusal> {
    let offered: Vec<_> =
        call.gateway.shared().providers.iter().map(|provider| provider.settings()).collect();
    let offered: Vec<_> = offered.into_iter().filter(|provider| call.site.takes(&provider.id)).collect();
    if offered.is_empty() {
        // Nobody can sign in where no provider is configured.
        return Err(Refusal::NoRoute);
    }
    let action = call.gateway.settings().paths.of("start");
    // Who is found by address has no button: the page would list partners to everybody.
    let asks = offered.len() > 1 && offered.iter().any(|provider| !provider.email_domains.is_empty());
    let has_button = |provider: &&ProviderSettings| !asks || provider.email_domains.is_empty();
    let buttons = offered.into_iter().filter(has_button);
    let choices: Vec<_> = buttons.map(|provider| choice(provider, &action, return_to)).collect();
    let form = EmailForm {
        action: &action,
        return_to: return_to.as_str(),
        typed: unknown.unwrap_or_default(),
        unknown: unknown.is_some(),
    };
    let page =
        SignInPage { email: asks.then_some(form), choices: &choices, demo: call.gateway.settings().demo };
    let status = if unknown.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    Ok(Reply::html(status, page::sign_in(&page)))
}

fn choice(provider: &ProviderSettings, start: &str, return_to: &ReturnTo) -> Choice {
    let query = Serializer::new(String::new())
        .append_pair("provider", &provider.id.0)
        .append_pair("rd", return_to.as_str())
        .finish();
    Choice { name: provider.display_name.to_string(), href: format!("{start}?{query}") }
}
