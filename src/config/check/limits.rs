//! `[limits]`, and `rate_limit` of a route -> [`Rate`]s.

use std::time::Duration;

use super::Check;
use super::rules::{between, one_of};
use crate::clock::bucket::Rate;
use crate::config::file;
use crate::config::problem::Told;
use crate::config::read::Field;
use crate::gateway::limits::{LONGEST_SPAN, LimitSettings};
use crate::policy::Access;
use crate::route::{CountedBy, RouteRate};

const COUNTED_BY: &[(&str, CountedBy)] = &[("address", CountedBy::Address), ("user", CountedBy::User)];

const NO_RATE: &str = "is not a number in a span such as \"100/1m\", or \"off\"";

impl Check<'_> {
    pub(super) fn rate_limits(&mut self, field: Field<file::Limits>) -> Result<LimitSettings, Told> {
        let file::Limits { sign_in_starts, failed_sign_ins, failed_logouts } = field.or_empty()?;
        let default = LimitSettings::default();
        let sign_in_starts = self.rate(sign_in_starts, default.sign_in_starts);
        let failed_sign_ins = self.rate(failed_sign_ins, default.failed_sign_ins);
        let failed_logouts = self.rate(failed_logouts, default.failed_logouts);
        Ok(LimitSettings {
            sign_in_starts: sign_in_starts?,
            failed_sign_ins: failed_sign_ins?,
            failed_logouts: failed_logouts?,
        })
    }

    pub(super) fn route_rate(
        &mut self,
        rate: Field<String>,
        by: Field<String>,
        access: Result<Access, Told>,
    ) -> Result<Option<RouteRate>, Told> {
        let is_written = rate.is_written();
        let is_public = access == Ok(Access::Public);
        let rule = |by| match by {
            CountedBy::User if !is_written => Err("has no effect without rate_limit"),
            CountedBy::User if is_public => Err("needs users: a public route has none"),
            CountedBy::User | CountedBy::Address => Ok(by),
        };
        let by = by.parse(&mut self.problems, one_of(COUNTED_BY)).check(&mut self.problems, rule);
        let (by, rate) = (by.or(CountedBy::default()), self.rate(rate, None));
        let by = by?;
        Ok(rate?.map(|rate| RouteRate { rate, by }))
    }

    fn rate(&mut self, field: Field<String>, default: Option<Rate>) -> Result<Option<Rate>, Told> {
        field.parse(&mut self.problems, rate_or_off).or(default)
    }
}

/// `100/1m`, or `off`.
fn rate_or_off(text: &str) -> Result<Option<Rate>, String> {
    if text == "off" {
        return Ok(None);
    }
    let (count, per) = text.split_once('/').ok_or(NO_RATE)?;
    let count = count.trim().parse().map_err(|_error| NO_RATE)?;
    let per = humantime::parse_duration(per.trim()).map_err(|_error| NO_RATE)?;
    let rate = Rate { count, per };
    between(Duration::from_secs(1), LONGEST_SPAN)(per)
        .map_err(|error| format!("counts in a span that {error}"))?;
    let most = usize::try_from(per.as_millis()).unwrap_or(usize::MAX);
    between(1, most)(usize::try_from(count).unwrap_or(usize::MAX))
        .map_err(|error| format!("counts to a number that {error}, one each millisecond"))?;
    Ok(Some(rate))
}
