//! Signing, for the gateway's own tokens: the demo's provider, later client assertions.
