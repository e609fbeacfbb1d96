"""Signs in the way a browser does: follows redirects, keeps cookies, fills in the provider's form."""

import http.client
import re
import ssl
import time
import urllib.parse

from . import scripted_provider
from .processes import Failed
from .provider import ACCOUNT

# What a browser sends with a request for a page, whoever is asked.
HEADERS = {name: value for name, value in scripted_provider.HEADERS.items() if name != "Host"}
REDIRECTS = (301, 302, 303, 307)
START_SECONDS = 30


class Answer:
    """Status, headers (lower case, a list of values each) and body."""

    def __init__(self, url, response):
        self.url, self.status, self.body = url, response.status, response.read()
        self.fields = {}
        for name, value in response.getheaders():
            self.fields.setdefault(name.lower(), []).append(value)

    def location(self):
        return urllib.parse.urljoin(self.url, self.fields.get("location", [""])[0])


class Browser:
    """One person's: a jar of cookies for each host. Every name means this machine."""

    def __init__(self, authority=None):
        self.authority = authority
        self.jar = {}

    def open(self, url, form=None):
        """Opens a page and follows redirects to the last one."""
        for _ in range(20):
            answer = self.request(url, form)
            if answer.status not in REDIRECTS:
                return answer
            url, form = answer.location(), None
        raise Failed(f"redirects without an end, at {url}")

    def request(self, url, form=None):
        parts = urllib.parse.urlsplit(url)
        headers = {**HEADERS, "Host": parts.netloc}
        cookies = self.cookies(parts.hostname)
        if cookies:
            headers["Cookie"] = cookies
        answer = send(parts, headers, form, self.authority)
        self.keep(parts.hostname, answer.fields.get("set-cookie", []))
        return answer

    def keep(self, host, set_cookies):
        jar = self.jar.setdefault(host, {})
        for line in set_cookies:
            name, _, value = line.split(";")[0].strip().partition("=")
            gone = re.search(r";\s*max-age=0\b|;\s*expires=[^;]*\b1970\b", line, re.I)
            if gone or not value:
                jar.pop(name, None)
            else:
                jar[name] = value

    def cookies(self, host):
        return "; ".join(f"{name}={value}" for name, value in self.jar.get(host, {}).items())


def send(parts, headers, form, authority):
    """One request on a connection of its own, to this machine, whatever the name."""
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    body = urllib.parse.urlencode(form).encode() if form else None
    connection = connect(parts, authority)
    try:
        connection.putrequest("POST" if form else "GET", target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if form:
            connection.putheader("Content-Type", "application/x-www-form-urlencoded")
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return Answer(urllib.parse.urlunsplit(parts), connection.getresponse())
    finally:
        connection.close()


def connect(parts, authority):
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=15)
    connection.connect()
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=authority)
        connection.sock = context.wrap_socket(connection.sock, server_hostname=parts.hostname)
    return connection


def sign_in(url, authority=None):
    """Opens a page, signs in at the provider, comes back to the page; gives the cookies of its host."""
    browser = Browser(authority)
    form = provider_form(browser, url)
    action = re.search(rb'<form method="post" action="([^"]+)"', form.body)
    if not action:
        raise Failed(f"no form to sign in with, but {form.status} at {form.url}")
    action = urllib.parse.urljoin(form.url, action.group(1).decode())
    page = browser.open(action, {"login": ACCOUNT, "password": ACCOUNT})
    host = urllib.parse.urlsplit(url).hostname
    if page.status != 200 or urllib.parse.urlsplit(page.url).hostname != host:
        raise Failed(f"sign-in ended with {page.status} at {page.url}")
    return browser.cookies(host)


def provider_form(browser, url):
    """The form, once the contender has read the provider's metadata."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        form = browser.open(url)
        if form.status < 500 or time.monotonic() > deadline:
            return form
        time.sleep(0.2)
