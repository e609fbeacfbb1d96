//! `GET userinfo`: who am I, as JSON, with the member names of oauth2-proxy.

use http::StatusCode;
use serde_json::{Map, Value};

use super::Call;
use crate::gateway::Refusal;
use crate::identity::Identity;
use crate::web::Reply;

/// Tells who is asking. Never a token, never cached, no CORS (CS-4).
pub(super) async fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let session = call.gateway.session(call.site, call.request).await?.map_err(Refusal::SignInRequired)?;
    Ok(Reply::json(StatusCode::OK, &tell(&session.identity)))
}

fn tell(identity: &Identity) -> Value {
    let mut members = Map::new();
    members.insert("user".into(), Value::from(&*identity.user));
    if let Some(email) = &identity.email {
        members.insert("email".into(), Value::from(&**email));
    }
    if let Some(groups) = &identity.groups {
        members.insert("groups".into(), groups.iter().map(|group| Value::from(&**group)).collect());
    }
    if let Some(name) = &identity.preferred_username {
        members.insert("preferredUsername".into(), Value::from(&**name));
    }
    Value::Object(members)
}
