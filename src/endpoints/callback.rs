//! `GET callback` and `GET callback/PROVIDER`: the provider's answer in the browser; `POST` where the
//! provider answers by a form (OAuth 2.0 Form Post Response Mode).
//!
//! A POST from the provider's page comes with the attempt's cookie alone: all others are `SameSite=Lax`. The
//! state in that cookie is what guards it.

use std::time::Duration;

use http::{Method, StatusCode};

use super::Call;
use super::sign_out::revoke;
use crate::clock::UnixTime;
use crate::gateway::limits::Kind;
use crate::gateway::sessions::{Admitted, BeginError, Newcomer, PerUser};
use crate::gateway::{Gateway, Refusal, SetCookies, Wish, diagnosis, internal, redirect};
use crate::identity::{Authentication, Identity};
use crate::idp::{Provider, SignInError, SignedIn};
use crate::oidc::TokenError;
use crate::oidc::authorize::LoginAttempt;
use crate::oidc::callback::{self, ATTEMPT_LIFETIME, CallbackError, Outcome, Params};
use crate::oidc::client_auth::is_about_the_client;
use crate::oidc::exchange::ExchangeError;
use crate::policy::step_up::{self, Unmet};
use crate::session::seal::SealError;
use crate::session::{Session, SessionId};
use crate::store::{StoreError, StoreKey};
use crate::web::cookie::{self, Found};
use crate::web::return_to::ReturnTo;
use crate::web::{FORM, Reply, Request, media_type};

/// A failed sign-in: the refusal for the person, the detail for the log.
struct Failure {
    refusal: Refusal,
    detail: String,
}

/// Completes a sign-in. Order (CB-3): shape, cookie, state, path, age, issuer; then the state is spent;
/// only then the provider is called.
pub(super) async fn answer(call: &Call<'_>, cookies: &mut SetCookies) -> Result<Reply, Refusal> {
    let provider = provider(call.gateway, call.request).ok_or(Refusal::NoRoute)?;
    if call.request.method.as_str() != method(provider) {
        return Err(Refusal::MethodNotAllowed);
    }
    if call.request.is_prefetch() {
        // CB-4: a guess of the browser does not spend the attempt.
        return Err(Refusal::BadRequest);
    }
    match complete(call, provider, cookies).await {
        Ok(reply) => Ok(see_other(call, reply)),
        Err(failure) => Err(fail(call, provider, failure).await),
    }
}

/// Counts a failure and tells of it; what is over the limit was told once for all.
async fn fail(call: &Call<'_>, provider: &Provider, Failure { refusal, detail }: Failure) -> Refusal {
    if matches!(refusal, Refusal::TooManyFailures(_)) {
        return refusal;
    }
    let counted = match kind_of(refusal) {
        Some(Kind::StrayCallback) => call.gateway.count_failure(Kind::StrayCallback, call.request).await,
        Some(kind) => {
            call.count_failure(kind).await;
            Ok(())
        }
        None => Ok(()),
    };
    match counted {
        Ok(()) => call.gateway.sign_in_failed(call.request, provider, refusal, &detail),
        Err(too_many) => too_many,
    }
}

/// What a failure counts as, if it may be somebody's who guesses. A page anywhere can have browsers call the callback;
/// what it can't do is to show an attempt of theirs with its state. So what belongs to no attempt counts apart
/// and stops nothing but its like: whoever comes back from the provider gets in. What the provider says
/// (`login_denied`), what is down and what is configured wrongly are nobody's guesses.
const fn kind_of(refusal: Refusal) -> Option<Kind> {
    use Refusal as R;
    if matches!(refusal, R::LoginFailed) {
        return Some(Kind::FailedSignIn);
    }
    let is_stray = matches!(
        refusal,
        R::LoginMalformed
            | R::LoginCookieMissing
            | R::LoginStale
            | R::LoginFramed
            | R::LoginOverHttp
            | R::LoginOtherHost
            | R::LoginStateMismatch
            | R::LoginExpired
            | R::LoginReplayed
    );
    if is_stray { Some(Kind::StrayCallback) } else { None }
}

/// AR-7: the provider whose callback path this is.
fn provider<'a>(gateway: &'a Gateway, request: &Request<'_>) -> Option<&'a Provider> {
    let below = gateway.settings().paths.below(request.target.path())?;
    let providers = &gateway.shared().providers;
    providers.iter().find(|provider| *provider.settings().callback_path == *below).map(AsRef::as_ref)
}

/// CB-1: the one method of a provider's callback.
fn method(provider: &Provider) -> &'static str {
    if provider.settings().form_post { "POST" } else { "GET" }
}

/// What the callback at this path takes.
pub(super) fn methods(gateway: &Gateway, request: &Request<'_>) -> &'static str {
    provider(gateway, request).map_or("GET, POST", method)
}

/// RFC 9110 15.4.4: behind a POST the browser goes on by GET.
fn see_other(call: &Call<'_>, mut reply: Reply) -> Reply {
    if *call.request.method == Method::POST && reply.status == StatusCode::FOUND {
        reply.status = StatusCode::SEE_OTHER;
    }
    reply
}

/// CB-1: the answer's parameters, from the one place where this provider's are.
fn parameters<'a>(call: &Call<'a>, provider: &Provider) -> Result<&'a str, CallbackError> {
    if !provider.settings().form_post {
        return Ok(call.request.target.query().unwrap_or_default());
    }
    if media_type(call.request.headers).as_deref() != Some(FORM) {
        return Err(CallbackError::Malformed("the body is not a form"));
    }
    std::str::from_utf8(call.body).or(Err(CallbackError::Malformed("not UTF-8")))
}

async fn complete(call: &Call<'_>, provider: &Provider, cookies: &mut SetCookies) -> Result<Reply, Failure> {
    let params = callback::parse(parameters(call, provider)?)?;
    let name = call.site.cookies.login(params.state.expose());
    call.gateway.learn_key(call.request, &name).await?;
    let Some(attempt) = find_attempt(call, &name)? else {
        let refusal = diagnosis::missing_cookie(call.request, params.state.expose());
        return resume(call, &ReturnTo::root(), failure(refusal, "no login cookie for this state"), cookies)
            .await;
    };
    match check(call, provider, &params, &attempt).await {
        Ok(()) => {}
        Err(over) if over.refusal == Refusal::LoginExpired => {
            return resume(call, &attempt.return_to, over, cookies).await;
        }
        Err(failure) => return Err(failure),
    }
    if matches!(params.outcome, Outcome::Code(_)) {
        // Before the attempt is spent: it is good for another try in its time.
        call.check_failures(Kind::FailedSignIn).await?;
    }
    let is_first = spend(call, &attempt).await?;
    // From here on the attempt is spent, whatever comes of it.
    if provider.settings().form_post {
        cookies.0.push(cookie::delete_for_posts(&name));
    } else {
        cookies.delete(&name, call.site);
    }
    if !is_first {
        let over = failure(Refusal::LoginReplayed, "the state was used before");
        return resume(call, &attempt.return_to, over, cookies).await;
    }
    let code = match &params.outcome {
        Outcome::Code(code) => code,
        Outcome::Error { error, description } => return Err(denied(error, description)),
    };
    let signed_in = provider.complete(&attempt, code).await?;
    if let Err(unmet) = check_step_up(call, provider, &attempt, &signed_in) {
        return once_more(call, provider, attempt, unmet, cookies).await;
    }
    let (id, user) = begin_session(call, provider, &attempt, signed_in).await?;
    set_cookie(call, &id, cookies)?;
    let (request, events) = (call.request, &call.gateway.shared().events);
    events.signed_in(&request.id, &attempt.provider.0, &user, request.client, request.user_agent());
    on(call, &attempt.return_to, cookies)
}

/// On to the application: one round trip more.
fn on(call: &Call<'_>, to: &ReturnTo, cookies: &mut SetCookies) -> Result<Reply, Failure> {
    call.gateway.note_trip(call.request, call.site, cookies);
    Ok(redirect(to.as_str())?)
}

/// A callback that can't be completed any more, reloaded or from a bookmark: on to the application where a
/// session lives, else `over`. It never becomes a token request, nor by itself a new sign-in: a browser
/// that loses its cookies would go round and round.
async fn resume(
    call: &Call<'_>,
    to: &ReturnTo,
    over: Failure,
    cookies: &mut SetCookies,
) -> Result<Reply, Failure> {
    match call.gateway.session(call.site, call.request).await? {
        Ok(_) => on(call, to, cookies),
        Err(_) => Err(over),
    }
}

/// The attempt in the cookie of this name; `None` where the browser sends none.
fn find_attempt(call: &Call<'_>, name: &str) -> Result<Option<LoginAttempt>, Failure> {
    let value = match cookie::find(call.request.headers, name) {
        Found::One(value) => value,
        Found::Absent => return Ok(None),
        Found::Several => {
            return Err(failure(Refusal::LoginStateMismatch, "several login cookies for one state"));
        }
    };
    match call.gateway.open_attempt(name, value, call.site) {
        Some(attempt) => Ok(Some(attempt)),
        None => Err(failure(
            Refusal::LoginStateMismatch,
            "the login cookie does not open: it was changed, or made by a gateway with other session keys",
        )),
    }
}

/// Everything that is checked before any call to the provider.
async fn check(
    call: &Call<'_>,
    provider: &Provider,
    params: &Params,
    attempt: &LoginAttempt,
) -> Result<(), Failure> {
    let settings = provider.settings();
    let same_client = attempt.provider == settings.id
        && attempt.issuer == settings.issuer
        && attempt.client_id == settings.client_id;
    if !same_client {
        return Err(failure(Refusal::LoginStateMismatch, "the attempt is for another provider or client"));
    }
    let here = call.gateway.url(call.site, &settings.callback_path)?;
    let now = call.gateway.shared().clock.now();
    callback::check(params, attempt, here.as_str(), false, now)?;
    // Whether `iss` is needed is known only from the metadata, which may have to be fetched after a
    // restart: not before all that needs no call has passed.
    let metadata = provider.metadata().await.map_err(SignInError::from)?;
    Ok(callback::check(params, attempt, here.as_str(), metadata.iss_parameter_supported, now)?)
}

/// CB-4: of any number of callbacks with one state, one gets `true`.
async fn spend(call: &Call<'_>, attempt: &LoginAttempt) -> Result<bool, Failure> {
    let key = StoreKey::derive("spent state", &[attempt.state.expose().as_bytes()]);
    // As long as the attempt could still be accepted, and as long again for clocks that differ.
    Ok(call.gateway.shared().store.put_once(key, ATTEMPT_LIFETIME * 2).await?)
}

/// AR-12: what was asked of the sign-in, against what it brought.
fn check_step_up(
    call: &Call<'_>,
    provider: &Provider,
    attempt: &LoginAttempt,
    signed_in: &SignedIn,
) -> Result<(), Unmet> {
    let found = Authentication::of(&signed_in.claims);
    let now = call.gateway.shared().clock.now();
    step_up::check(&attempt.step_up, &found, now, provider.settings().leeway)
}

/// A sign-in that did not bring what was asked: back to the provider where that may help, and only once.
/// The session that the browser has lives on.
async fn once_more(
    call: &Call<'_>,
    provider: &Provider,
    attempt: LoginAttempt,
    unmet: Unmet,
    cookies: &mut SetCookies,
) -> Result<Reply, Failure> {
    if unmet != Unmet::TooOld || attempt.again {
        return Err(failure(Refusal::StepUpFailed, &unmet.to_string()));
    }
    let wish = Wish { again: true, replaces: attempt.replaces, ..Wish::page(attempt.return_to) };
    Ok(call.gateway.begin_sign_in(call.request, call.site, provider, wish, cookies).await?)
}

fn denied(error: &str, description: &str) -> Failure {
    let refusal = match error {
        "temporarily_unavailable" | "server_error" => Refusal::ProviderUnavailable,
        // OpenID Connect Core Error Code unmet_authentication_requirements 1.0.
        "unmet_authentication_requirements" => Refusal::StepUpFailed,
        _ => Refusal::LoginDenied,
    };
    Failure { refusal, detail: format!("the provider answered {error}: {description}") }
}

/// Stores the session under a new id; the one that the browser showed ends (CB-12).
async fn begin_session(
    call: &Call<'_>,
    provider: &Provider,
    attempt: &LoginAttempt,
    signed_in: SignedIn,
) -> Result<(SessionId, String), Failure> {
    let (gateway, reading) = (call.gateway, &call.gateway.settings().reading);
    let identity = Identity::from_claims(&signed_in.claims, &reading.claim_paths)
        .map_err(|error| failure(Refusal::LoginFailed, &error.to_string()))?;
    // The ID token was verified: `iat` is there.
    let issued_at = UnixTime::from_secs(signed_in.claims.seconds("iat").ok().flatten().unwrap_or_default());
    let session = new_session(call, provider, attempt, signed_in, &identity)?;
    let sessions = &gateway.shared().sessions;
    let id = sessions.begin(&session, &reading.limits).await?;
    let key = StoreKey(id.store_key());
    let shown = gateway.session_id(call.site, call.request).ok().map(|id| id.store_key());
    let replaces = shown.or(attempt.replaces).map(StoreKey);
    let begun = Begun { session: &session, key, replaces, issued_at };
    if let Err(failure) = settle(call, provider, &begun, &identity.user).await {
        // Nobody gets its cookie; what is left of it in an outage ends by its time.
        sessions.end(key).await.ok();
        return Err(failure);
    }
    Ok((id, identity.user.to_string()))
}

/// A session in the store whose cookie nobody has yet.
struct Begun<'a> {
    session: &'a Session,
    key: StoreKey,
    replaces: Option<StoreKey>,
    issued_at: UnixTime,
}

/// What can still be in the way of a session that was begun; if nothing is, the one before ends.
async fn settle(call: &Call<'_>, provider: &Provider, begun: &Begun<'_>, user: &str) -> Result<(), Failure> {
    if call.gateway.is_overtaken(begun.session, begun.issued_at).await? {
        return Err(failure(Refusal::LoginFailed, "the provider signed the person out meanwhile"));
    }
    if let Some(limit) = call.gateway.settings().per_user {
        admit(call, provider, begun, user, &limit).await?;
    }
    if let Some(old) = begun.replaces {
        call.gateway.shared().sessions.end(old).await?;
    }
    Ok(())
}

/// Holds the user's sessions against the limit.
async fn admit(
    call: &Call<'_>,
    provider: &Provider,
    begun: &Begun<'_>,
    user: &str,
    limit: &PerUser,
) -> Result<(), Failure> {
    let Begun { session, key, replaces, .. } = *begun;
    let Session { created_at, issuer, subject, .. } = session;
    let new = Newcomer { key, created_at: *created_at, issuer, subject, replaces };
    let shared = call.gateway.shared();
    match shared.sessions.admit(&new, limit).await? {
        Admitted::Yes(0) => {}
        Admitted::Yes(ended) => {
            shared.events.sessions_displaced(&call.request.id, &session.provider.0, user, ended);
        }
        Admitted::No => {
            revoke(provider, session);
            return Err(failure(Refusal::SessionLimit, "the user has session.max_per_user sessions"));
        }
    }
    Ok(())
}

fn new_session(
    call: &Call<'_>,
    provider: &Provider,
    attempt: &LoginAttempt,
    signed_in: SignedIn,
    identity: &Identity,
) -> Result<Session, Failure> {
    let now = call.gateway.shared().clock.now();
    let sid =
        signed_in.claims.string("sid").map_err(|error| failure(Refusal::LoginFailed, &error.to_string()))?;
    Ok(Session {
        provider: provider.settings().id.clone(),
        issuer: attempt.issuer.clone(),
        subject: identity.subject.clone(),
        sid: sid.map(Into::into),
        host: call.site.name.clone(),
        access_expires_at: signed_in.access_expires_at,
        id_token: signed_in.tokens.id_token,
        access_token: signed_in.tokens.access_token,
        refresh_token: signed_in.tokens.refresh_token,
        refreshed_at: None,
        refresh_sent_at: None,
        created_at: now,
        last_seen: now,
        longest_idle: Duration::ZERO,
        client: Some(call.request.client),
        user_agent: call.request.user_agent().map(Into::into),
        claims: signed_in.claims,
    })
}

fn set_cookie(call: &Call<'_>, id: &SessionId, cookies: &mut SetCookies) -> Result<(), Failure> {
    let cookie = call.gateway.session_cookie(call.site, id);
    cookies.0.push(cookie.map_err(|error| Failure::from(internal(call.request, &error)))?);
    Ok(())
}

fn failure(refusal: Refusal, detail: &str) -> Failure {
    Failure { refusal, detail: detail.to_owned() }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, detail: refusal.code().to_owned() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { refusal: Refusal::StoreUnavailable, detail: error.to_string() }
    }
}

impl From<BeginError> for Failure {
    fn from(error: BeginError) -> Self {
        let refusal = match error {
            BeginError::Store(_) => Refusal::StoreUnavailable,
            // Claims and tokens without measure: it is the provider's answer that can't be used.
            BeginError::Seal(SealError::Value) => Refusal::LoginFailed,
            BeginError::Seal(SealError::Random(_)) | BeginError::Random(_) => Refusal::Internal,
        };
        Self { refusal, detail: error.to_string() }
    }
}

impl From<CallbackError> for Failure {
    fn from(error: CallbackError) -> Self {
        let refusal = match error {
            CallbackError::Malformed(_) => Refusal::LoginMalformed,
            CallbackError::Expired => Refusal::LoginExpired,
            CallbackError::StateMismatch | CallbackError::IssuerMismatch | CallbackError::WrongCallback => {
                Refusal::LoginStateMismatch
            }
        };
        Self { refusal, detail: error.to_string() }
    }
}

impl From<SignInError> for Failure {
    fn from(error: SignInError) -> Self {
        let refusal = match &error {
            SignInError::Unavailable(_) | SignInError::Exchange(ExchangeError::Unavailable { .. }) => {
                Refusal::ProviderUnavailable
            }
            SignInError::Exchange(ExchangeError::Refused { error, .. }) if is_about_the_client(error) => {
                Refusal::LoginFailedClient
            }
            SignInError::IdToken(TokenError::Clock(_)) => Refusal::LoginFailedClock,
            SignInError::Exchange(_) | SignInError::IdToken(_) | SignInError::Userinfo(_) => {
                Refusal::LoginFailed
            }
        };
        Self { refusal, detail: error.to_string() }
    }
}
