//! A browser without a window: follows redirects, keeps cookies, fills forms, sends what browsers send.

use std::collections::HashMap;
use std::net::ToSocketAddrs as _;

use url::Url;

use super::client::{Place, Request, Response};
use super::cookie_jar::CookieJar;
use super::form::{find_form, links};
use super::gateway::{Gateway, WIKI};
use super::wire::Head;

/// After so many redirects browsers give up.
const MAX_REDIRECTS: usize = 20;

/// A browser.
#[derive(Clone, Default)]
pub struct Browser {
    /// Its cookies.
    pub jar: CookieJar,
    places: HashMap<String, Place>,
}

/// What the browser shows after a navigation.
#[derive(Clone, Debug)]
pub struct Page {
    /// The address bar.
    pub url: Url,
    /// The last answer.
    pub response: Response,
    /// Every answer of the navigation with its URL, this page's own last.
    pub hops: Vec<(Url, Response)>,
}

impl Page {
    /// The status.
    pub fn status(&self) -> u16 {
        self.response.status
    }

    /// The page's source.
    pub fn html(&self) -> String {
        self.response.text()
    }

    /// The first hop whose URL starts like this.
    ///
    /// # Panics
    /// When there is none.
    pub fn hop(&self, start: &str) -> &(Url, Response) {
        let hop = self.hops.iter().find(|(url, _)| url.as_str().starts_with(start));
        hop.unwrap_or_else(|| panic!("no hop at {start}: {:?}", self.urls()))
    }

    /// All URLs of the navigation.
    pub fn urls(&self) -> Vec<&str> {
        self.hops.iter().map(|(url, _)| url.as_str()).collect()
    }
}

impl Browser {
    /// A browser that finds `https://wiki.test` at this gateway.
    pub fn new(gateway: &Gateway) -> Self {
        let mut browser = Self::default();
        browser.finds(&format!("https://{WIKI}"), gateway.place(WIKI));
        browser
    }

    /// Makes the browser find an origin at a place, as DNS and a load balancer would.
    pub fn finds(&mut self, origin: &str, place: Place) {
        self.places.insert(origin.to_owned(), place);
    }

    /// Opens a URL that was typed in.
    ///
    /// # Panics
    /// After too many redirects.
    pub fn open(&mut self, url: &str) -> Page {
        self.navigate(&parse(url), None, Vec::new())
    }

    /// Opens a URL that was typed in, and stops at the first answer.
    pub fn open_once(&mut self, url: &str) -> Response {
        self.load(&parse(url), None, &Method::Get)
    }

    /// Opens a URL that was typed in at a server that may end at any moment: what the head of an answer
    /// brings is kept, if one comes.
    pub fn open_once_if_it_answers(&mut self, url: &str) {
        let url = parse(url);
        let request = self.with_cookies(&url, navigation(&url, None, "GET"), false);
        let Ok(mut connection) = self.place(&url).connect() else { return };
        let sent = connection.send(&request.bytes());
        if let Ok(Some(head)) = sent.and_then(|()| Head::read(connection.stream())) {
            self.keep_cookies(&url, &head);
        }
    }

    /// Follows a link of a page.
    pub fn follow(&mut self, page: &Page, link: &str) -> Page {
        let url = page.url.join(link).unwrap();
        self.navigate(&url, Some(&page.url), Vec::new())
    }

    /// Follows the link of a page whose target starts like this.
    ///
    /// # Panics
    /// When there is none.
    pub fn click(&mut self, page: &Page, start: &str) -> Page {
        let links = links(&page.html());
        let link = links.iter().find(|link| link.starts_with(start));
        let link = link.unwrap_or_else(|| panic!("no link {start} in {links:?}"));
        self.follow(page, link)
    }

    /// Sends the page's form with these fields set.
    ///
    /// # Panics
    /// When the page has no form.
    pub fn submit(&mut self, page: &Page, set: &[(&str, &str)]) -> Page {
        let form = find_form(&page.html()).unwrap_or_else(|| panic!("no form in {}", page.html()));
        let mut fields: Vec<(String, String)> =
            form.fields.into_iter().filter(|(name, _)| set.iter().all(|(other, _)| other != name)).collect();
        fields.extend(set.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let mut url = page.url.join(&form.action).unwrap();
        if form.method == "GET" {
            url.query_pairs_mut().clear().extend_pairs(&fields);
            return self.navigate(&url, Some(&page.url), Vec::new());
        }
        let first = self.load(&url, Some(&page.url), &Method::Post(fields));
        self.after(url, first, Some(&page.url), Vec::new())
    }

    /// Posts a form to a URL, from a page of `initiator`.
    pub fn post(&mut self, url: &str, initiator: &str) -> Response {
        self.load(&parse(url), Some(&parse(initiator)), &Method::Post(Vec::new()))
    }

    /// Opens a URL that needs sign-in, signs in at the certified provider's form, and comes back.
    ///
    /// # Panics
    /// When the form does not appear, or a cookie is not accepted on the way.
    pub fn sign_in(&mut self, url: &str, name: &str) -> Page {
        let form = self.open(url);
        let page = self.fill_in(&form, name);
        assert_eq!(self.jar.rejected, Vec::<String>::new(), "cookies that a browser would refuse");
        page
    }

    /// Fills in the certified provider's form.
    pub fn fill_in(&mut self, form: &Page, name: &str) -> Page {
        assert!(form.html().contains("Certified provider: sign in"), "no form: {:?}", form.urls());
        self.submit(form, &[("login", name), ("password", name)])
    }

    /// Sends a request from a script of the same site, with its cookies.
    pub fn fetch(&mut self, url: &str, request: Request) -> Response {
        let url = parse(url);
        let request = request
            .with("Host", &authority(&url))
            .with("Sec-Fetch-Mode", "cors")
            .with("Sec-Fetch-Site", "same-origin");
        self.send(&url, request, false)
    }

    /// A GET of a signed-in page, as a navigation within the site, that is not expected to redirect.
    pub fn get(&mut self, url: &str) -> Response {
        let url = parse(url);
        self.load(&url, Some(&url), &Method::Get)
    }

    fn navigate(&mut self, url: &Url, initiator: Option<&Url>, hops: Vec<(Url, Response)>) -> Page {
        let response = self.load(url, initiator, &Method::Get);
        self.after(url.clone(), response, initiator, hops)
    }

    /// Follows the redirect of an answer, if it is one.
    fn after(
        &mut self,
        url: Url,
        response: Response,
        initiator: Option<&Url>,
        mut hops: Vec<(Url, Response)>,
    ) -> Page {
        hops.push((url.clone(), response.clone()));
        assert!(hops.len() <= MAX_REDIRECTS + 1, "too many redirects: {hops:?}");
        match response.field("location") {
            // 307 and 308 repeat the body; nothing here may ever use them (RFC 9700, 4.12).
            Some(location) if matches!(response.status, 301..=303) => {
                let next = url.join(location).expect("Location is a URL");
                self.navigate(&next, initiator, hops)
            }
            _ => Page { url, response, hops },
        }
    }

    fn load(&mut self, url: &Url, initiator: Option<&Url>, method: &Method) -> Response {
        let request = navigation(url, initiator, method.name());
        match method {
            Method::Get => self.send(url, request, false),
            Method::Post(fields) => {
                self.send(url, request.with_form(fields), site_of(url, initiator) == "cross-site")
            }
        }
    }

    fn send(&mut self, url: &Url, request: Request, cross_site_post: bool) -> Response {
        let request = self.with_cookies(url, request, cross_site_post);
        let response = self.place(url).request(&request);
        self.keep_cookies(url, &response.head);
        response
    }

    fn with_cookies(&self, url: &Url, request: Request, cross_site_post: bool) -> Request {
        match self.jar.field(url, cross_site_post) {
            Some(cookies) => request.with("Cookie", &cookies),
            None => request,
        }
    }

    fn keep_cookies(&mut self, url: &Url, head: &Head) {
        for field in head.all("set-cookie") {
            self.jar.take(url, field);
        }
    }

    fn place(&self, url: &Url) -> Place {
        if let Some(place) = self.places.get(&url.origin().ascii_serialization()) {
            return place.clone();
        }
        assert_eq!(url.scheme(), "http", "nobody told the browser where {url} is");
        let address = (url.host_str().unwrap(), url.port_or_known_default().unwrap());
        let mut addresses = address.to_socket_addrs().expect("the name resolves");
        Place::plain(addresses.find(std::net::SocketAddr::is_ipv4).expect("an IPv4 address"))
    }
}

enum Method {
    Get,
    Post(Vec<(String, String)>),
}

impl Method {
    fn name(&self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post(_) => "POST",
        }
    }
}

fn parse(url: &str) -> Url {
    Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// What a browser sends when it opens a page.
fn navigation(url: &Url, initiator: Option<&Url>, method: &str) -> Request {
    Request::new(method, &url[url::Position::BeforePath..url::Position::AfterQuery])
        .with("Host", &authority(url))
        .with("User-Agent", "integration tests")
        .with("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .with("Sec-Fetch-Site", site_of(url, initiator))
        .with("Sec-Fetch-Mode", "navigate")
        .with("Sec-Fetch-Dest", "document")
}

fn authority(url: &Url) -> String {
    url[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
}

fn site_of(url: &Url, initiator: Option<&Url>) -> &'static str {
    match initiator {
        None => "none",
        Some(initiator) if initiator.origin() == url.origin() => "same-origin",
        Some(_) => "cross-site",
    }
}
