//! HTTP to the provider, bounded (TE-1): TLS verified, no redirects, deadlines, body caps.
