//! `GET start?rd=&provider=`: sends the browser to a provider.

use super::Call;
use crate::gateway::{Refusal, SetCookies, Wish};
use crate::policy::Why;
use crate::web::Reply;

/// Begins a sign-in; with several providers and none named, shows the choice.
pub(super) async fn answer(call: &Call<'_>, cookies: &mut SetCookies) -> Result<Reply, Refusal> {
    if !call.request.is_navigation() || call.request.is_prefetch() {
        return Err(Refusal::SignInRequired(Why::NoCredential));
    }
    let wanted = call.parameter("rd").unwrap_or_default();
    let return_to = call.gateway.return_to(&wanted, call.site);
    match call.gateway.provider(call.parameter("provider").as_deref())? {
        Some(provider) => {
            call.gateway
                .begin_sign_in(call.request, call.site, provider, Wish::page(return_to), cookies)
                .await
        }
        None => super::sign_in::answer(call),
    }
}
