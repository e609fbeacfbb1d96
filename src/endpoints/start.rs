//! `GET start?rd=&provider=`: sends the browser to a provider. `POST start` with `email` and `rd`: to the
//! provider of the address's domain.

use http::header::LOCATION;
use http::{Method, StatusCode};
use url::form_urlencoded;

use super::{Call, sign_in};
use crate::gateway::{Refusal, SetCookies, Wish};
use crate::idp::Provider;
use crate::policy::Why;
use crate::web::{EmailAddress, FORM, Reply, media_type, page};

/// Begins a sign-in; with several providers and none named, shows the choice.
pub(super) async fn answer(call: &Call<'_>, cookies: &mut SetCookies) -> Result<Reply, Refusal> {
    if *call.request.method == Method::POST {
        return by_email(call, cookies).await;
    }
    if !call.request.is_navigation() || call.request.is_prefetch() {
        return Err(Refusal::SignInRequired(Why::NoCredential));
    }
    let (gateway, request) = (call.gateway, call.request);
    let return_to = gateway.return_to(&call.parameter("rd").unwrap_or_default(), call.site);
    let named = call.parameter("provider");
    match gateway.provider_for(request, call.site, &return_to, named.as_deref())? {
        Some(provider) => {
            gateway.begin_sign_in(request, call.site, provider, Wish::page(return_to), cookies).await
        }
        None => sign_in::answer(call),
    }
}

/// The form of the sign-in page. The address goes to the provider and nowhere else: not into a URL of
/// this host, which histories and logs of others would keep.
async fn by_email(call: &Call<'_>, cookies: &mut SetCookies) -> Result<Reply, Refusal> {
    if !call.request.wants_html() {
        return Err(Refusal::SignInRequired(Why::NoCredential));
    }
    if media_type(call.request.headers).as_deref() != Some(FORM) {
        return Err(Refusal::BadRequest);
    }
    let return_to = call.gateway.return_to(&field(call, "rd"), call.site);
    let typed = field(call, "email");
    let known = EmailAddress::parse(&typed).and_then(|address| Some((provider_of(call, &address)?, address)));
    let Some((provider, address)) = known else {
        return sign_in::show(call, &return_to, Some(&typed));
    };
    let wish = Wish { login_hint: Some(address), ..Wish::page(return_to) };
    let redirect = call.gateway.begin_sign_in(call.request, call.site, provider, wish, cookies).await?;
    Ok(leave(call, provider, redirect))
}

/// A field of the form; the first of several.
fn field(call: &Call<'_>, name: &str) -> String {
    let mut fields = form_urlencoded::parse(call.body);
    fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// The provider that lists the domain, where the host takes it.
fn provider_of<'a>(call: &Call<'a>, address: &EmailAddress) -> Option<&'a Provider> {
    let lists = |provider: &&Provider| {
        let settings = provider.settings();
        settings.email_domains.iter().any(|domain| **domain == *address.domain())
            && call.site.takes(&settings.id)
    };
    call.gateway.shared().providers.iter().map(AsRef::as_ref).find(lists)
}

/// The same way as a page: browsers hold redirects behind a form to the page's `form-action`, at every
/// site that the provider goes on to.
fn leave(call: &Call<'_>, provider: &Provider, redirect: Reply) -> Reply {
    let Some(href) = redirect.headers.get(LOCATION).and_then(|location| location.to_str().ok()) else {
        return redirect;
    };
    let name = &provider.settings().display_name;
    Reply::html(StatusCode::OK, page::leaving(href, name, call.gateway.settings().demo))
}
