//! `GET signed_out`: where the provider sends the browser back to after sign-out.

use http::StatusCode;

use super::Call;
use crate::gateway::SetCookies;
use crate::secret;
use crate::session::Purpose;
use crate::session::seal::open_cookie;
use crate::web::cookie::{self, Found};
use crate::web::{Reply, page};

/// Shows the page. A state that is wrong, missing or replayed changes nothing but the log: the page is
/// the same, and no address that the client names is followed (RL-3).
pub(super) fn answer(call: &Call<'_>, cookies: &mut SetCookies) -> Reply {
    if let Some(state) = call.parameter("state") {
        note_state(call, &state);
    }
    let name = call.site.cookies.sign_out();
    if cookie::find(call.request.headers, name) != Found::Absent {
        cookies.delete(name, call.site);
    }
    Reply::html(StatusCode::OK, page::signed_out("/", call.gateway.settings().demo))
}

fn note_state(call: &Call<'_>, state: &str) {
    let name = call.site.cookies.sign_out();
    let matches = match cookie::find(call.request.headers, name) {
        Found::One(value) => {
            let keys = &call.gateway.shared().keys;
            open_cookie(keys, Purpose::SignOutCookie, name, &call.site.name, value)
                .is_ok_and(|sent| secret::equal(&sent.plain, state.as_bytes()))
        }
        Found::Absent | Found::Several => false,
    };
    if !matches {
        tracing::warn!(
            event = "sign_out_state_mismatch",
            request_id = %call.request.id,
            "a browser came back from sign-out with a state that was not sent"
        );
    }
}
