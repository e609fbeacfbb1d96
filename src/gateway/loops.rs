//! The breaker of sign-in loops (AR-14): a browser that signs in again and again, and is known no better
//! for it, gets a page that says why instead of one more redirect.
//!
//! What counts is the round trip: a callback that sent the browser on to the application. A sealed cookie
//! says when the last ones ended, so nothing is remembered here of people whom nobody knows, and who
//! throws it away loops on alone. Tabs that are opened together begin before the first of them is back,
//! and its session serves the rest: only a sign-in that begins *after* so many trips is stopped. A browser
//! that keeps no cookies never completes one; its callback ends on a page.

use std::time::Duration;

use http::Method;

use super::refusal::Loop;
use super::{Gateway, Refusal, SetCookies};
use crate::clock::UnixTime;
use crate::policy::Why;
use crate::route::Site;
use crate::session::Purpose;
use crate::session::seal::{open_cookie, seal_cookie};
use crate::web::Request;
use crate::web::cookie::{self, Found};

/// So many round trips within [`WINDOW`] are a loop. Browsers give up after 20 redirects, a trip has three
/// to five, and the page has to come before that.
const MAX_TRIPS: usize = 4;

/// Long enough for trips of fifteen seconds, which nobody makes by hand four times.
const WINDOW: Duration = Duration::from_mins(1);

impl Gateway {
    /// Notes that a callback sends the browser on to the application.
    pub fn note_trip(&self, request: &Request<'_>, site: &Site, cookies: &mut SetCookies) {
        let mut trips = self.trips(request, site);
        trips.push(self.shared.clock.now());
        let newest = trips.iter().rev().take(MAX_TRIPS);
        let plain: Vec<u8> = newest.rev().flat_map(|trip| trip.as_millis().to_be_bytes()).collect();
        let (name, keys) = (site.cookies.trips(), &self.shared.keys);
        // Without entropy there would be no session either.
        if let Ok(value) = seal_cookie(keys, Purpose::TripsCookie, name, &site.name, &plain) {
            // The next callback is a POST of another site too, and has to show it.
            cookies.0.push(if *request.method == Method::POST {
                cookie::set_for_posts(name, &value, WINDOW)
            } else {
                cookie::set(name, &value, site.cookies.secure(), Some(WINDOW))
            });
        }
    }

    /// Stops the browser that came round too often. The page ends the run, so the counting begins anew:
    /// what comes after it is the person's own act.
    ///
    /// # Errors
    /// [`Refusal::LoginLoop`] with what the browser shows of the reason, and
    /// [`Refusal::StoreUnavailable`].
    pub(super) async fn stop_loop(
        &self,
        request: &Request<'_>,
        site: &Site,
        cookies: &mut SetCookies,
    ) -> Result<(), Refusal> {
        if self.trips(request, site).len() < MAX_TRIPS {
            return Ok(());
        }
        let session = self.session(site, request).await?;
        cookies.delete(site.cookies.trips(), site);
        Err(Refusal::LoginLoop(match session {
            Ok(_) => Loop::SignedIn,
            Err(Why::NoCredential | Why::NotAsked) => Loop::CookieLost,
            Err(Why::BadCredential) => Loop::CookieUnreadable,
            Err(Why::NoSession) => Loop::SessionLost,
            Err(Why::Expired | Why::PastRoute) => Loop::SessionEnded,
        }))
    }

    /// When the browser's round trips within the window ended, the oldest first. A cookie that is doubled
    /// or does not open counts for none.
    fn trips(&self, request: &Request<'_>, site: &Site) -> Vec<UnixTime> {
        let name = site.cookies.trips();
        let Found::One(value) = cookie::find(request.headers, name) else { return Vec::new() };
        let opened = open_cookie(&self.shared.keys, Purpose::TripsCookie, name, &site.name, value);
        let Ok(opened) = opened else { return Vec::new() };
        let (times, _) = opened.plain.as_chunks::<8>();
        let times = times.iter().map(|time| UnixTime::from_millis(u64::from_be_bytes(*time)));
        let now = self.shared.clock.now();
        times.filter(|time| now.since(*time) <= WINDOW).collect()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::rig::{Owned, Rig};
    use super::*;

    /// What a browser has of a `Set-Cookie` field.
    fn kept(field: &HeaderValue) -> String {
        field.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    /// A browser with these cookies, after one more round trip.
    fn after_a_trip(rig: &Rig, browser: &Owned) -> String {
        let (request, mut cookies) = (browser.request(), SetCookies::default());
        let site = rig.gateway.site(&request).unwrap();
        rig.gateway.note_trip(&request, &site, &mut cookies);
        kept(&cookies.0[0])
    }

    /// A browser's cookie after so many trips, a second apart.
    fn trips(rig: &Rig, count: usize) -> String {
        let mut browser = Owned::get("app.test", "/x");
        let mut cookie = String::new();
        for _ in 0..count {
            rig.clock.advance(Duration::from_secs(1));
            cookie = after_a_trip(rig, &browser);
            browser = Owned::get("app.test", "/x").with_cookie(&cookie);
        }
        cookie
    }

    async fn verdict(rig: &Rig, browser: &Owned) -> (Result<(), Refusal>, usize) {
        let (request, mut cookies) = (browser.request(), SetCookies::default());
        let site = rig.gateway.site(&request).unwrap();
        let verdict = rig.gateway.stop_loop(&request, &site, &mut cookies).await;
        (verdict, cookies.0.len())
    }

    #[tokio::test]
    async fn ar_14_the_fifth_sign_in_of_a_minute_is_stopped_and_the_next_one_is_not() {
        let rig = Rig::new();
        for (count, wanted) in [(0, Ok(())), (3, Ok(())), (4, Err(Refusal::LoginLoop(Loop::CookieLost)))] {
            let browser = Owned::get("app.test", "/x").with_cookie(&trips(&rig, count));
            assert_eq!(verdict(&rig, &browser).await.0, wanted, "{count} trips");
        }
        let browser = Owned::get("app.test", "/x").with_cookie(&trips(&rig, 9));
        assert_eq!(verdict(&rig, &browser).await.1, 1, "the page takes the cookie away");
    }

    #[tokio::test]
    async fn trips_that_are_a_minute_old_count_no_more() {
        let rig = Rig::new();
        let browser = Owned::get("app.test", "/x").with_cookie(&trips(&rig, 4));
        // The first of the four ended three seconds ago.
        rig.clock.advance(Duration::from_secs(57));
        assert!(verdict(&rig, &browser).await.0.is_err());
        rig.clock.advance(Duration::from_millis(1));
        assert_eq!(verdict(&rig, &browser).await, (Ok(()), 0));
    }

    #[tokio::test]
    async fn what_the_browser_shows_tells_the_reason() {
        let rig = Rig::new();
        let (live, ended) = (rig.sign_in(&[]).await, rig.sign_in(&[]).await);
        let request = Owned::get("app.test", "/x").with_cookie(&ended);
        let site = rig.gateway.site(&request.request()).unwrap();
        let id = rig.gateway.session_id(&site, &request.request()).unwrap();
        rig.gateway.shared().sessions.end(crate::store::StoreKey(id.store_key())).await.unwrap();
        let cases = [
            ("no session cookie", String::new(), Loop::CookieLost),
            ("one that does not open", "__Host-portcullis=junk".to_owned(), Loop::CookieUnreadable),
            ("two of them", format!("{live}; {live}"), Loop::CookieUnreadable),
            ("a session that is gone", ended, Loop::SessionLost),
            ("a session that lives", live, Loop::SignedIn),
        ];
        let trips = trips(&rig, 4);
        for (name, session, wanted) in cases {
            let browser = Owned::get("app.test", "/x").with_cookie(&format!("{trips}; {session}"));
            assert_eq!(verdict(&rig, &browser).await.0, Err(Refusal::LoginLoop(wanted)), "{name}");
        }
    }

    #[tokio::test]
    async fn nobody_can_make_up_move_or_double_the_count() {
        let rig = Rig::new();
        let good = trips(&rig, 4);
        let session = good.replace("__Host-portcullis-trips=", "__Host-portcullis=");
        let value = session.strip_prefix("__Host-portcullis=").unwrap();
        let cases = [
            ("junk", "__Host-portcullis-trips=junk".to_owned()),
            ("twice", format!("{good}; {good}")),
            ("without the prefix", format!("portcullis-trips={value}")),
        ];
        for (name, cookies) in cases {
            let browser = Owned::get("app.test", "/x").with_cookie(&cookies);
            assert_eq!(verdict(&rig, &browser).await.0, Ok(()), "{name}");
        }
        let thief = Owned::get("app.test", "/x").with_cookie(&session);
        let site = rig.gateway.site(&thief.request()).unwrap();
        assert_eq!(
            rig.gateway.session_id(&site, &thief.request()),
            Err(Why::BadCredential),
            "it is no session"
        );
    }
}
