//! What proxies in front say of the client: `X-Forwarded-For`, `Forwarded`, the PROXY protocol.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};

use portcullis::server::fuzz::proxy_header;
use portcullis::web::proxies::{Network, ToldIn, TrustedProxies};

const PROXY: &str = "10.0.0.1";
const STRANGER: &str = "203.0.113.9";
const CLIENTS: [&str; 2] = ["192.0.2.7", "2001:db8::7"];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn trusted(told_in: ToldIn) -> TrustedProxies {
    let networks = ["10.0.0.0/8", "fd00::/8"].map(|text| Network::parse(text).expect("a network"));
    TrustedProxies::new(networks.to_vec(), told_in)
}

/// What the nearest proxy appended decides, whatever a client wrote in front of it; and a stranger decides nothing.
pub fn proxies(input: &[u8]) {
    if let Some(Some(address)) = proxy_header(input) {
        assert_eq!(proxy_header(input), Some(Some(address)), "one header, two clients");
        assert_eq!(proxy_header(&[input, b"x"].concat()), None, "a byte behind it makes no difference");
    }
    for (told_in, name) in [(ToldIn::XForwardedFor, "x-forwarded-for"), (ToldIn::Forwarded, "forwarded")] {
        let trusted = trusted(told_in);
        for client in CLIENTS {
            let appended = match told_in {
                ToldIn::XForwardedFor => client.to_owned(),
                ToldIn::Forwarded if client.contains(':') => format!("for=\"[{client}]\";proto=https"),
                ToldIn::Forwarded => format!("for={client};proto=https"),
            };
            for lines in [
                vec![[input, b", ", appended.as_bytes()].concat()],
                vec![input.to_vec(), appended.into_bytes()],
            ] {
                check(&trusted, name, &lines, client);
            }
        }
    }
}

fn check(trusted: &TrustedProxies, name: &'static str, lines: &[Vec<u8>], client: &str) {
    let mut headers = HeaderMap::new();
    for line in lines {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(name, value);
    }
    assert_eq!(trusted.client(address(PROXY), &headers), address(client), "{name}");
    assert_eq!(trusted.client(address(STRANGER), &headers), address(STRANGER), "{name} of a stranger");
}
