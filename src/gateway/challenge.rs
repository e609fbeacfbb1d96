//! The way to sign-in for a request that has none.
