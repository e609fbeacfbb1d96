//! `GET start?rd=&provider=`: sends the browser to a provider.

use super::Call;
use crate::gateway::{Refusal, SetCookies};
use crate::policy::Why;
use crate::web::Reply;

/// Begins a sign-in; with several providers and none named, shows the choice.
pub(super) async fn answer(call: &Call<'_>, cookies: &mut SetCookies) -> Result<Reply, Refusal> {
    if !call.request.is_navigation() || call.request.is_prefetch() {
        return Err(Refusal::SignInRequired(Why::NoCredential));
    }
    let wanted = call.parameter("rd").unwrap_or_default();
    let return_to = call.gateway.return_to(&wanted, call.site);
    let providers = &call.gateway.shared().providers;
    let provider = match (call.parameter("provider"), providers.as_slice()) {
        (Some(id), _) => Some(providers.iter().find(|p| *p.settings().id.0 == *id).ok_or(Refusal::NoRoute)?),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    match provider {
        Some(provider) => {
            call.gateway.begin_sign_in(call.request, call.site, provider, return_to, cookies).await
        }
        None => super::sign_in::answer(call),
    }
}
