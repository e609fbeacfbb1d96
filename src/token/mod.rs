//! JOSE: (bytes, keys, now) -> claims. Every signature in the gateway is checked here and nowhere
//! else. Nothing that a token says is ever fetched (`jku`, `x5u`, `jwk`, `x5c` are ignored).

pub mod claims;
pub mod jwk;
pub mod jws;
pub mod rules;
pub mod sign;
pub mod verify;

pub use claims::{ClaimError, Claims};
pub use jwk::KeySet;
pub use verify::Algorithm;
