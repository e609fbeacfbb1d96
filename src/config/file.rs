//! The file as written (serde).
