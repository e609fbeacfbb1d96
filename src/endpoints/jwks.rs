//! `GET jwks`: the public halves of the keys that the clients sign their assertions with, for the providers.

use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use crate::gateway::Refusal;
use crate::web::Reply;

/// Those of all providers: a key says nothing of whom it is for. There is nothing here where no client has one.
pub(super) async fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let mut keys: Vec<Value> = Vec::new();
    for provider in &call.gateway.shared().providers {
        for key in provider.public_keys().await {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    if keys.is_empty() {
        return Err(Refusal::NoRoute);
    }
    Ok(Reply::json(StatusCode::OK, &json!({ "keys": keys })))
}
