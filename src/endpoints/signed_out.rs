//! `GET signed_out`: where the provider sends the browser back to after sign-out.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Call;
use crate::gateway::SetCookies;
use crate::secret::Secret;
use crate::session::Purpose;
use crate::session::seal::open_cookie;
use crate::web::cookie::{self, Found};
use crate::web::return_to::ReturnTo;
use crate::web::{Reply, page};

/// What the browser keeps, sealed, while the provider signs the person out.
#[derive(Serialize, Deserialize)]
pub(super) struct Farewell {
    /// The state that was sent to the provider; empty where nobody was sent there.
    pub(super) state: Secret<String>,
    /// Where the page leads.
    pub(super) return_to: ReturnTo,
}

/// Shows the page. A state that is wrong, missing or replayed changes nothing but the log: the page is
/// the same, and no address that the client names is followed (RL-3).
pub(super) fn answer(call: &Call<'_>, cookies: &mut SetCookies) -> Reply {
    let farewell = farewell(call);
    if let Some(state) = call.parameter("state") {
        note_state(call, farewell.as_ref(), &Secret::new(state));
    }
    let name = call.site.cookies.sign_out();
    if cookie::find(call.request.headers, name) != Found::Absent {
        cookies.delete(name, call.site);
    }
    let return_to = farewell.map_or_else(ReturnTo::root, |farewell| farewell.return_to);
    Reply::html(StatusCode::OK, page::signed_out(return_to.as_str(), call.gateway.settings().demo))
}

fn farewell(call: &Call<'_>) -> Option<Farewell> {
    let name = call.site.cookies.sign_out();
    let Found::One(value) = cookie::find(call.request.headers, name) else { return None };
    let keys = &call.gateway.shared().keys;
    let opened = open_cookie(keys, Purpose::SignOutCookie, name, &call.site.name, value).ok()?;
    serde_json::from_slice(&opened.plain).ok()
}

fn note_state(call: &Call<'_>, farewell: Option<&Farewell>, state: &Secret<String>) {
    if farewell.is_none_or(|sent| sent.state != *state) {
        tracing::warn!(
            event = "sign_out_state_mismatch",
            request_id = %call.request.id,
            "a browser came back from sign-out with a state that was not sent"
        );
    }
}
