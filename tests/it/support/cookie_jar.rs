//! A browser's cookies, with the rules that a browser holds them to (RFC 6265bis, 5.6 and 5.7).

use url::Url;

/// A cookie that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The host that set it; only that host gets it back.
    pub host: String,
    /// Its path.
    pub path: String,
    /// Sent over https only.
    pub secure: bool,
    /// Hidden from scripts.
    pub http_only: bool,
    /// `Strict`, `Lax`, `None` or, unset, empty.
    pub same_site: String,
}

/// The cookies of one browser.
#[derive(Clone, Debug, Default)]
pub struct CookieJar {
    cookies: Vec<Cookie>,
    /// The browser keeps no cookie whose name starts like this.
    pub blocks: Option<String>,
    /// Every `Set-Cookie` that was not accepted, with the reason.
    pub rejected: Vec<String>,
}

impl CookieJar {
    /// Takes a `Set-Cookie` field of an answer from `url`.
    pub fn take(&mut self, url: &Url, field: &str) {
        if self.blocks.as_ref().is_some_and(|start| field.starts_with(start)) {
            return;
        }
        match parse(url, field) {
            Err(reason) => self.rejected.push(format!("{reason}: {field}")),
            Ok((cookie, expired)) => {
                let same = |other: &Cookie| {
                    (&other.name, &other.host, &other.path) == (&cookie.name, &cookie.host, &cookie.path)
                };
                let place = self.cookies.iter().position(same);
                match (place, expired) {
                    (Some(place), true) => drop(self.cookies.remove(place)),
                    (Some(place), false) => self.cookies[place] = cookie,
                    (None, true) => {}
                    (None, false) => self.cookies.push(cookie),
                }
            }
        }
    }

    /// The `Cookie` field for a request to `url`. `cross_site_post` says that another site caused the
    /// request and that it is no top-level GET.
    pub fn field(&self, url: &Url, cross_site_post: bool) -> Option<String> {
        let mut fitting: Vec<&Cookie> =
            self.cookies.iter().filter(|cookie| cookie.fits(url, cross_site_post)).collect();
        fitting.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<String> =
            fitting.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// The cookie of this name on this host.
    pub fn get(&self, host: &str, name: &str) -> Option<&Cookie> {
        self.cookies.iter().find(|cookie| cookie.host == host && cookie.name == name)
    }

    /// All cookies of this host.
    pub fn of(&self, host: &str) -> Vec<&Cookie> {
        self.cookies.iter().filter(|cookie| cookie.host == host).collect()
    }

    /// Puts a cookie in by hand, as a thief would.
    pub fn put(&mut self, cookie: Cookie) {
        self.cookies.push(cookie);
    }
}

impl Cookie {
    fn fits(&self, url: &Url, cross_site_post: bool) -> bool {
        let path = url.path();
        let below = path == self.path
            || path
                .strip_prefix(&self.path)
                .is_some_and(|rest| self.path.ends_with('/') || rest.starts_with('/'));
        url.host_str() == Some(&self.host)
            && below
            && (!self.secure || url.scheme() == "https")
            && (!cross_site_post || self.same_site == "None")
    }
}

/// Reads a field: the cookie, and whether it is to be deleted; else the reason why a browser refuses it.
fn parse(url: &Url, field: &str) -> Result<(Cookie, bool), &'static str> {
    if field.len() > 4096 {
        return Err("longer than 4096 bytes");
    }
    let mut parts = field.split(';').map(str::trim);
    let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).ok_or("no pair")?;
    let default_path =
        url.path().rsplit_once('/').map_or("/", |(folder, _)| if folder.is_empty() { "/" } else { folder });
    let mut cookie = Cookie {
        name: name.to_owned(),
        value: value.to_owned(),
        host: url.host_str().unwrap_or_default().to_owned(),
        path: default_path.to_owned(),
        secure: false,
        http_only: false,
        same_site: String::new(),
    };
    let (mut expired, mut domain) = (false, false);
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key.to_ascii_lowercase().as_str() {
            "secure" => cookie.secure = true,
            "httponly" => cookie.http_only = true,
            "path" => value.clone_into(&mut cookie.path),
            "samesite" => value.clone_into(&mut cookie.same_site),
            "domain" => domain = true,
            "max-age" => expired = value.parse::<i64>().is_ok_and(|age| age <= 0),
            "expires" => expired |= value.contains(" 1970 ") || value.contains("-1970 "),
            _ => {}
        }
    }
    allowed(url, &cookie, domain)?;
    Ok((cookie, expired))
}

fn allowed(url: &Url, cookie: &Cookie, domain: bool) -> Result<(), &'static str> {
    let name = cookie.name.to_ascii_lowercase();
    if cookie.secure && url.scheme() != "https" {
        return Err("Secure over http");
    }
    if domain {
        return Err("Domain is not known here");
    }
    if (name.starts_with("__host-") || name.starts_with("__secure-")) && !cookie.secure {
        return Err("a prefix without Secure");
    }
    if name.starts_with("__host-") && cookie.path != "/" {
        return Err("__Host- with another path than /");
    }
    if cookie.same_site == "None" && !cookie.secure {
        return Err("SameSite=None without Secure");
    }
    Ok(())
}
