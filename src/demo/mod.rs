//! `portcullis demo`: a local provider, a local application, and the gateway in front, on loopback only.
