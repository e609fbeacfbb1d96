//! Portcullis: an authentication gateway in front of applications that know nothing of sign-in.
//!
//! # The path of one request
//!
//! ```text
//! server::connection   TLS, the request head under one deadline and a strict grammar
//! server::life         the request, or its cancellation: whichever comes first
//! server::edge         pingora Session -> web::Request (web::target normalises, or 400)
//! endpoints::find      /oauth2/...? -> that endpoint's handler -> Reply -> done
//! gateway::decide      1 route::find          which route
//!                      2 authenticate         who is asking
//!                      3 policy::evaluate     may they: Permit | Denial
//!                      4 forward::plan        what the upstream gets
//! server::edge         Err -> gateway::challenge or gateway::refusal -> Reply
//!                      Ok  -> upstream, identity headers stripped and set, cookies kept apart
//! telemetry::events    one access event for each request
//! ```
//!
//! # The layers
//!
//! The order of the lines below is the law: a module imports only from lines above its own, never
//! from its own line. `tests/architecture.rs` reads these lines and checks every import.

// layer 1: time, entropy, secrets
pub mod clock;
pub mod random;
pub mod secret;

// layer 2: what is told to the operator
pub mod telemetry;

// layer 3: HTTP as data; tokens as data
pub mod token;
pub mod web;

// layer 4: protocol messages as data; who somebody is
pub mod identity;
pub mod oidc;

// layer 5: may they; what is remembered of them
pub mod policy;
pub mod session;

// layer 6: which application; where sessions live; the provider over HTTP
pub mod idp;
pub mod route;
pub mod store;

// layer 7: the verdict
pub mod gateway;

// layer 8: the URLs that the gateway answers itself
pub mod admin;
pub mod endpoints;

// layer 9: the file as written -> settings
pub mod config;

// layer 10: sockets; the only place that names pingora
pub mod server;

// layer 11: programs around it all: a demo with a provider and an application of its own; the chain of a
// sign-in, examined link by link
pub mod demo;
pub mod doctor;

// layer 12: the command line
pub mod cli;
