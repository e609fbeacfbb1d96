//! `portcullis doctor`: the whole chain of a sign-in walked link by link, and for each what holds or what
//! to change.
//!
//! It asks what a running gateway would ask: names, TLS, the provider's documents, its token endpoint
//! (with a code that nobody issued), the store, the applications. Nothing of it changes a session or is
//! kept; it may run beside the gateway.

mod hosts;
mod provider;
mod store;
mod upstreams;

use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::clock::Clock;
use crate::config::{self, ConfigError, Settings};

/// How bad a finding is; the order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It holds.
    Ok,
    /// Something to know or to do elsewhere, which can't be checked from here.
    Note,
    /// It works, but not as well as it should, or not for everybody.
    Warning,
    /// Signing in does not work like this.
    Failure,
    /// The configuration can't be used at all.
    Unusable,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about, for example `provider main`.
    pub subject: String,
    /// How bad it is.
    pub level: Level,
    /// What was found. No secret is ever in it.
    pub text: String,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "WARN",
            Level::Failure | Level::Unusable => "FAIL",
        };
        write!(f, "{mark:<4}  {}: {}", self.subject, self.text)?;
        match &self.advice {
            Some(advice) => write!(f, "\n      -> {advice}"),
            None => Ok(()),
        }
    }
}

/// Findings as they come.
struct Report<'a> {
    subject: String,
    tell: &'a mut dyn FnMut(&Finding),
    worst: Level,
}

impl Report<'_> {
    /// From here on everything is about this.
    fn about(&mut self, subject: impl Into<String>) {
        self.subject = subject.into();
    }

    fn ok(&mut self, text: impl Into<String>) {
        self.add(Level::Ok, text, None);
    }

    fn note(&mut self, text: impl Into<String>) {
        self.add(Level::Note, text, None);
    }

    fn warn(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Warning, text, Some(advice.into()));
    }

    fn fail(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Failure, text, Some(advice.into()));
    }

    fn add(&mut self, level: Level, text: impl Into<String>, advice: Option<String>) {
        let finding = Finding { subject: self.subject.clone(), level, text: text.into(), advice };
        self.worst = self.worst.max(level);
        (self.tell)(&finding);
    }
}

/// Examines a configuration and all it names; each finding is told as soon as it is known. Gives the worst
/// level.
///
/// # Errors
/// Where the system gives no runtime to ask with.
pub fn examine(path: &Path, clock: &Clock, tell: &mut dyn FnMut(&Finding)) -> io::Result<Level> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut report = Report { subject: path.display().to_string(), tell, worst: Level::Ok };
    match config::load(path) {
        Ok(settings) => chain(&settings, clock, &runtime, &mut report),
        Err(error) => unusable(&error, &mut report),
    }
    Ok(report.worst)
}

fn unusable(error: &ConfigError, report: &mut Report<'_>) {
    for problem in &error.problems {
        let place = if problem.path.is_empty() { String::new() } else { format!("{} ", problem.path) };
        report.add(Level::Unusable, format!("{place}{}", problem.message), None);
    }
}

fn chain(settings: &Settings, clock: &Clock, runtime: &Runtime, report: &mut Report<'_>) {
    report.ok("can be read; so can every secret, key and certificate that it names");
    for warning in &settings.warnings {
        report.warn(warning.clone(), "see docs/configuration.md");
    }
    runtime.block_on(async {
        hosts::examine(settings, report).await;
        for provider in &settings.providers {
            provider::examine(provider, settings, clock, report).await;
        }
        store::examine(settings, clock, report).await;
        upstreams::examine(&settings.gateway.routes.upstreams, report).await;
    });
}
