//! Key sets: parsed key by key from raw JSON, so that one odd key never spoils the set.

/// The usable verification keys of one provider.
#[derive(Clone, Debug, Default)]
pub struct KeySet {}
