//! Browsers that sign in one time after another, each over its own connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Url;

use crate::Outcome;
use crate::http::{Connection, Message};

/// What a browser sends with the address of a page.
const HEADERS: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: none\r\n";

struct Browser {
    connection: Connection,
    host: String,
}

/// Signs in `count` times, with so many `browsers` at once.
pub async fn sign_in(gateway: &str, host: &str, count: usize, browsers: usize) -> Outcome<()> {
    let (mut running, begun) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..browsers {
        let connection = Connection::new(TcpStream::connect(gateway).await?)?;
        let mut browser = Browser { connection, host: host.to_owned() };
        let begun = Arc::clone(&begun);
        running.spawn(async move {
            while begun.fetch_add(1, Ordering::Relaxed) < count {
                browser.sign_in_once().await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

impl Browser {
    /// To a page, to the provider, and back with its code: the cookie of a session has to come of it.
    async fn sign_in_once(&mut self) -> Outcome<()> {
        let away = self.ask("/wiki/page", None).await?;
        let to_provider = redirect(&away)?;
        let of = |name: &str| find(&to_provider, name);
        let mut callback = Url::parse(&of("redirect_uri")?)?;
        // What the provider's page would do: the code is the nonce.
        callback.query_pairs_mut().append_pair("code", &of("nonce")?).append_pair("state", &of("state")?);
        let target = callback[url::Position::BeforePath..].to_owned();
        let back = self.ask(&target, Some(&cookies(&away))).await?;
        if !cookies(&back).split("; ").any(|cookie| cookie.contains("portcullis=")) {
            return Err(format!("the callback answered without a session: {back:?}").into());
        }
        Ok(())
    }

    async fn ask(&mut self, target: &str, cookie: Option<&str>) -> Outcome<Message> {
        let host = &self.host;
        let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{HEADERS}{cookie}\r\n");
        self.connection.send(&request).await?;
        Ok(self.connection.receive().await?.ok_or("the gateway has closed the connection")?)
    }
}

/// Where an answer sends the browser.
fn redirect(answer: &Message) -> Outcome<Url> {
    let location = answer.all("location").next().filter(|_| answer.word(1) == "302");
    Ok(Url::parse(location.ok_or_else(|| format!("no redirect to the provider: {answer:?}"))?)?)
}

fn find(url: &Url, name: &str) -> Outcome<String> {
    let found = url.query_pairs().find(|(key, _)| key == name);
    Ok(found.ok_or_else(|| format!("the redirect has no {name}"))?.1.into_owned())
}

/// The cookies that an answer sets, as the browser sends them back.
fn cookies(answer: &Message) -> String {
    let set = answer.all("set-cookie").filter_map(|cookie| cookie.split(';').next());
    set.collect::<Vec<_>>().join("; ")
}
