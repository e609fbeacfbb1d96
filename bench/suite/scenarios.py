"""What is measured with which contender, and which ratios are promised."""

import dataclasses

from .contenders import MANY_ROUTES, Bare, ManySessions, Portcullis
from .peers import Apache, Envoy, Nginx, OAuth2Proxy

KIB, MIB = 1024, 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One contender, driven in one way. Those of a group differ in nothing but the contender."""

    key: str
    title: str
    group: str
    contender: str
    bytes: int = KIB
    options: tuple = ()

    @property
    def is_http2(self):
        return "--http2" in self.options


@dataclasses.dataclass(frozen=True)
class Promise:
    """A ratio of two scenarios' figures, measured in the same round, and what it is promised to be."""

    title: str
    figure: str
    scenario: str
    baseline: str
    at_most: float = None
    at_least: float = None

    def holds(self, ratio):
        return ratio <= self.at_most if self.at_most else ratio >= self.at_least

    def limit(self):
        return f"≤ {self.at_most:.2f}" if self.at_most else f"≥ {self.at_least:.2f}"


# How each contender is made; each is started once, whatever it is measured in.
CONTENDERS = {
    "bare": Bare,
    "bare-tls": lambda stage, name: Bare(stage, name, tls=True),
    "bare-http2": lambda stage, name: Bare(stage, name, "--http2", tls=True),
    "nginx": Nginx,
    "memory": Portcullis,
    "disk": lambda stage, name: Portcullis(stage, name, store="disk"),
    "redis": lambda stage, name: Portcullis(stage, name, store="redis"),
    "access-log": lambda stage, name: Portcullis(stage, name, access_log=True),
    "public": lambda stage, name: Portcullis(stage, name, public=True),
    "tls": lambda stage, name: Portcullis(stage, name, tls=True),
    "routes": lambda stage, name: Portcullis(stage, name, routes=MANY_ROUTES),
    "sessions": ManySessions,
    "envoy": Envoy,
    "apache": Apache,
    "oauth2-proxy": OAuth2Proxy,
}

SMALL = "1 KiB, HTTP/1.1, connections kept"
LARGE = "1 MiB, HTTP/1.1, connections kept"
FRESH = "1 KiB, HTTP/1.1, a new connection for each request"
TLS = "1 KiB, HTTP/1.1 over TLS, connections kept"
HTTP2 = "1 KiB, HTTP/2 over TLS, connections kept, four requests at once on each"

SCENARIOS = (
    Scenario("bare", "bare Pingora (checks nothing)", SMALL, "bare"),
    Scenario("nginx", "nginx `proxy_pass` (checks nothing)", SMALL, "nginx"),
    Scenario("memory", "Portcullis, sessions in memory", SMALL, "memory"),
    Scenario("disk", "Portcullis, sessions on disk", SMALL, "disk"),
    Scenario("redis", "Portcullis, sessions in Redis", SMALL, "redis"),
    Scenario("access-log", "Portcullis, sessions in memory, access log on", SMALL, "access-log"),
    Scenario("public", "Portcullis, public route", SMALL, "public"),
    Scenario("routes", "Portcullis, sessions in memory, 10,000 routes", SMALL, "routes"),
    Scenario("sessions", "Portcullis, 1,000,000 sessions on disk, 10,000 in use", SMALL, "sessions"),
    Scenario("envoy", "Envoy, oauth2 filter", SMALL, "envoy"),
    Scenario("apache", "Apache, mod_auth_openidc", SMALL, "apache"),
    Scenario("oauth2-proxy", "oauth2-proxy", SMALL, "oauth2-proxy"),
    Scenario("bare-1m", "bare Pingora (checks nothing)", LARGE, "bare", MIB),
    Scenario("nginx-1m", "nginx `proxy_pass` (checks nothing)", LARGE, "nginx", MIB),
    Scenario("memory-1m", "Portcullis, sessions in memory", LARGE, "memory", MIB),
    Scenario("bare-new", "bare Pingora (checks nothing)", FRESH, "bare", options=("--close",)),
    Scenario("nginx-new", "nginx `proxy_pass` (checks nothing)", FRESH, "nginx", options=("--close",)),
    Scenario("memory-new", "Portcullis, sessions in memory", FRESH, "memory", options=("--close",)),
    Scenario("bare-tls", "bare Pingora (checks nothing)", TLS, "bare-tls"),
    Scenario("memory-tls", "Portcullis, sessions in memory", TLS, "tls"),
    Scenario("bare-http2", "bare Pingora (checks nothing)", HTTP2, "bare-http2", options=("--http2",)),
    Scenario("memory-http2", "Portcullis, sessions in memory", HTTP2, "tls", options=("--http2",)),
)

# What the scenarios of a group are compared with: its first one.
BASELINES = {}
for scenario in SCENARIOS:
    BASELINES.setdefault(scenario.group, scenario.key)

PROMISES = (
    Promise("CPU ÷ bare Pingora, sessions in memory", "cpu_ms", "memory", "bare", at_most=1.10),
    Promise("CPU ÷ bare Pingora, sessions on disk", "cpu_ms", "disk", "bare", at_most=1.10),
    Promise("CPU ÷ bare Pingora, sessions in Redis", "cpu_ms", "redis", "bare", at_most=1.10),
    Promise("CPU ÷ bare Pingora, access log on", "cpu_ms", "access-log", "bare", at_most=1.18),
    Promise("requests/s ÷ Envoy with oauth2", "rps", "memory", "envoy", at_least=1.9),
    Promise("requests/s ÷ Apache with mod_auth_openidc", "rps", "memory", "apache", at_least=5),
    Promise("requests/s ÷ nginx without authentication", "rps", "memory", "nginx", at_least=0.58),
    Promise("p99 ÷ bare Pingora", "p99_us", "memory", "bare", at_most=1.15),
    Promise("CPU, 10,000 routes ÷ 1 route", "cpu_ms", "routes", "memory", at_most=1.03),
    Promise("CPU, 1,000,000 sessions (10,000 in use) ÷ 1 session", "cpu_ms", "sessions", "disk", at_most=1.10),
    Promise("CPU over TLS ÷ bare Pingora with the same", "cpu_ms", "memory-tls", "bare-tls", at_most=1.10),
    Promise("CPU over HTTP/2 and TLS ÷ bare Pingora with the same", "cpu_ms", "memory-http2", "bare-http2", at_most=1.10),
)
