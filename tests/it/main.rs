//! The integration tests: the real binary between a real client, a provider and an application.
//!
//! One binary, so that it links once. [`support`] is the environment; every other file is a topic.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness that cannot go on has failed its test"
)]
#![expect(unreachable_pub, reason = "nothing is reachable from outside a test binary")]

mod support;

mod admin_cases;
mod backchannel_logout;
mod backup;
mod bounds;
mod browser;
mod client_address;
mod client_auth;
mod config;
mod conformance;
mod cross_site;
mod docs;
mod doctor;
mod form_post;
mod framing_cases;
mod frontchannel_logout;
mod full_disk;
mod harness;
mod header_cases;
mod headers;
mod http2;
mod http2_floods;
mod keys;
mod kills;
mod leaks;
mod limits;
mod login_cases;
mod login_loop;
mod logout_cases;
mod operation;
mod path_cases;
mod providers;
mod proxy;
mod pushed_requests;
mod redis;
mod refresh;
mod seeds;
mod session_cases;
mod session_limits;
mod sessions;
mod shared_store;
mod sign_in;
mod sign_out;
mod step_up;
mod tls;
mod token_cases;
