//! `POST /backup`: a copy of the disk store into `data_dir`, for whoever has the token.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use super::token::Token;
use super::{Admin, json_reply, not_found};
use crate::store::disk::{BackupError, DiskStore};

/// What a backup needs.
#[derive(Debug)]
pub struct Backups {
    /// Who may ask for one.
    pub token: Token,
    /// Where the admin listener is.
    pub address: SocketAddr,
    /// What is copied.
    pub store: Arc<DiskStore>,
    /// Where it is, and where the copy goes.
    pub data_dir: PathBuf,
}

/// Answers when the copy is whole. Nothing of it is in the answer: whoever may have it reads the file.
pub(super) async fn back_up(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let Some(backups) = &admin.backups else { return not_found().await };
    if let Err(refused) = backups.token.admit(backups.address, &headers) {
        let reason = refused.word();
        tracing::warn!(event = "admin_action_refused", action = "backup", reason);
        return json_reply(refused.status(), &json!({"error": "refused", "reason": reason}));
    }
    let began = Instant::now();
    match backups.store.back_up(&backups.data_dir).await {
        Ok(made) => {
            let (file, sessions, bytes) = (made.file.display(), made.sessions, made.bytes);
            let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(event = "backup_made", file = %file, sessions, bytes, duration_ms);
            json_reply(StatusCode::OK, &json!({"sessions": sessions, "bytes": bytes}))
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &BackupError) -> Response {
    let status = if matches!(error, BackupError::Busy) {
        StatusCode::CONFLICT
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    tracing::warn!(event = "backup_failed", %error);
    json_reply(status, &json!({"error": "backup_failed", "detail": error.to_string()}))
}
