//! `GET sign_in?rd=`: the page with a button for each provider.

use http::StatusCode;
use url::form_urlencoded::Serializer;

use super::Call;
use crate::gateway::Refusal;
use crate::web::Reply;
use crate::web::page::{self, Choice};

/// Shows the page. It says nothing of who is signed in, so it is the same for everybody.
pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let gateway = call.gateway;
    let wanted = call.parameter("rd").unwrap_or_default();
    let return_to = gateway.return_to(&wanted, call.site);
    let start = gateway.settings().paths.of("start");
    let choices: Vec<Choice> = gateway
        .shared()
        .providers
        .iter()
        .map(|provider| {
            let settings = provider.settings();
            let query = Serializer::new(String::new())
                .append_pair("provider", &settings.id.0)
                .append_pair("rd", return_to.as_str())
                .finish();
            Choice { name: settings.display_name.to_string(), href: format!("{start}?{query}") }
        })
        .collect();
    if choices.is_empty() {
        // Nobody can sign in where no provider is configured.
        return Err(Refusal::NoRoute);
    }
    Ok(Reply::html(StatusCode::OK, page::sign_in(&choices, gateway.settings().demo)))
}
