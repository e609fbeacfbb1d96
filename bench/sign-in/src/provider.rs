//! An OpenID provider that answers at once, for anybody: tokens and claims as large as Keycloak's.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis::random::random_token;
use portcullis::token::Algorithm;
use portcullis::token::sign::SigningKey;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use url::form_urlencoded;

use crate::Outcome;
use crate::http::{Connection, Message};

/// The client that may sign in.
const CLIENT_ID: &str = "bench";

struct Provider {
    issuer: String,
    key: SigningKey,
}

pub async fn serve(listen: &str, algorithm: Algorithm) -> Outcome<()> {
    let key = SigningKey::generate(algorithm, Some("bench"))?;
    let provider = Arc::new(Provider { issuer: format!("http://{listen}"), key });
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(converse(Arc::clone(&provider), stream));
    }
}

async fn converse(provider: Arc<Provider>, stream: TcpStream) -> Outcome<()> {
    let mut connection = Connection::new(stream)?;
    while let Some(request) = connection.receive().await? {
        let (status, body) = match provider.answer(&request)? {
            Some(document) => ("200 OK", document.to_string()),
            None => ("404 Not Found", "null".to_owned()),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}");
        connection.send(&format!("{head}\r\n\r\n{body}")).await?;
    }
    Ok(())
}

impl Provider {
    fn answer(&self, request: &Message) -> Outcome<Option<Value>> {
        Ok(match request.word(1) {
            "/.well-known/openid-configuration" => Some(self.metadata()),
            "/jwks" => Some(json!({ "keys": [self.key.public_jwk()?] })),
            "/token" => Some(self.tokens(&request.body)?),
            "/userinfo" => Some(userinfo()),
            _ => None,
        })
    }

    fn metadata(&self) -> Value {
        let of = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": of("/authorize"),
            "token_endpoint": of("/token"),
            "userinfo_endpoint": of("/userinfo"),
            "jwks_uri": of("/jwks"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.key.algorithm().name()],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        })
    }

    fn tokens(&self, form: &[u8]) -> Outcome<Value> {
        let code = form_urlencoded::parse(form).find(|(name, _)| name == "code");
        let (_, nonce) = code.ok_or("a token request without a code")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": self.issuer, "sub": "alice", "aud": CLIENT_ID, "azp": CLIENT_ID, "typ": "ID",
            "exp": now + 300, "iat": now, "auth_time": now, "nonce": nonce, "acr": "1",
            "sid": random_token::<16>()?, "jti": random_token::<16>()?,
            "name": "Alice Example", "preferred_username": "alice", "given_name": "Alice",
            "family_name": "Example", "email": "alice@example.com", "email_verified": true,
        });
        Ok(json!({
            "token_type": "Bearer",
            "access_token": random_token::<675>()?,
            "expires_in": 300,
            "refresh_token": random_token::<450>()?,
            "refresh_expires_in": 1800,
            "id_token": self.key.sign(&claims)?,
            "scope": "openid profile email",
        }))
    }
}

fn userinfo() -> Value {
    json!({
        "sub": "alice", "name": "Alice Example", "preferred_username": "alice", "given_name": "Alice",
        "family_name": "Example", "email": "alice@example.com", "email_verified": true,
        "groups": ["staff", "wiki-editors", "berlin", "engineering", "vpn-users"],
    })
}
