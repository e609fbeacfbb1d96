//! The names of the gateway's cookies, and which of a request's cookies are its own.

/// The cookie names of one host. Where cookies can be `Secure` the names start with `__Host-`; on a
/// cleartext loopback host they do without both (SC-2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieNames {
    secure: bool,
}

/// At most so many login attempts for each browser (CB-11).
pub const MAX_LOGIN_ATTEMPTS: usize = 5;

impl CookieNames {
    /// Names for a host whose public URL is https (`secure`) or not.
    #[must_use]
    pub const fn new(secure: bool) -> Self {
        Self { secure }
    }

    /// Whether the cookies carry `Secure`.
    #[must_use]
    pub const fn secure(&self) -> bool {
        self.secure
    }

    /// `__Host-portcullis` or `portcullis`.
    #[must_use]
    pub const fn session(&self) -> &'static str {
        if self.secure { "__Host-portcullis" } else { "portcullis" }
    }

    /// `__Host-portcullis-sign-out` or `portcullis-sign-out`.
    #[must_use]
    pub const fn sign_out(&self) -> &'static str {
        if self.secure { "__Host-portcullis-sign-out" } else { "portcullis-sign-out" }
    }

    /// The start of the names of login attempts.
    #[must_use]
    pub const fn login_prefix(&self) -> &'static str {
        if self.secure { "__Host-portcullis-login-" } else { "portcullis-login-" }
    }

    /// The name of the attempt with this `state`: the prefix and 16 hex digits of SHA-256 of the state.
    #[must_use]
    pub fn login(&self, state: &str) -> String {
        todo!()
    }
}

/// Whether a cookie name is the gateway's, with or without `__Host-` or `__Secure-`, in any case
/// (SC-14): such cookies never reach an upstream and no upstream may set them.
#[must_use]
pub fn is_ours(name: &[u8]) -> bool {
    todo!()
}
