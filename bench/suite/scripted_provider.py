"""An OpenID provider that signs everybody in as alice, and the way of a browser through one sign-in.

For measurements of which the provider is no part: nothing is to be installed, and it starts at once.
"""

import base64
import hashlib
import http.client
import http.server
import json
import re
import secrets
import sys
import threading
import time
import urllib.parse

HOST = "bench.localhost"
# What a browser sends with a request.
HEADERS = {
    "Host": HOST,
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
}


class Provider:
    """Just enough of a provider for one sign-in after another."""

    client_id = "bench"

    def __init__(self):
        self.client_secret = secrets.token_urlsafe(24)
        self.key = Key()
        self.nonce = None
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(provider.document(self.path))

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.reply(provider.tokens())

            def reply(self, document):
                body = json.dumps(document).encode()
                self.send_response(200 if document else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def document(self, path):
        return {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "jwks_uri": f"{self.issuer}/jwks",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            },
            "/jwks": {"keys": [self.key.jwk()]},
            "/userinfo": {"sub": "alice", "email": "alice@bench.localhost", "email_verified": True,
                          "preferred_username": "alice", "groups": ["staff", "wiki-admins"]},
        }.get(path)

    def tokens(self):
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": "alice", "aud": self.client_id, "exp": now + 600, "iat": now,
                  "nonce": self.nonce}
        return {"access_token": secrets.token_urlsafe(24), "token_type": "Bearer", "expires_in": 600,
                "id_token": self.key.sign(claims)}


def sign_in(port, provider):
    """Goes the way of a browser; gives the session's cookie."""
    public = f"http://{HOST}:{port}"
    headers = {**HEADERS, "Host": f"{HOST}:{port}"}
    fields = await_redirect(port, headers)
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(fields["location"][0]).query)
    provider.nonce = query["nonce"][0]
    answer = urllib.parse.urlencode({"code": "bench", "state": query["state"][0]})
    callback = urllib.parse.urlsplit(query["redirect_uri"][0])
    if f"{callback.scheme}://{callback.netloc}" != public:
        sys.exit(f"bench: the redirect URI is {callback.geturl()}")
    headers["Cookie"] = "; ".join(cookie.split(";")[0] for cookie in fields["set-cookie"])
    status, fields = get(port, f"{callback.path}?{answer}", headers)
    cookies = [cookie.split(";")[0] for cookie in fields.get("set-cookie", [])]
    session = [cookie for cookie in cookies if re.match(r"(__Host-)?portcullis=.", cookie)]
    if not session:
        sys.exit(f"bench: the callback answered {status} without a session")
    return session[0]


def await_redirect(port, headers):
    """Asks until the gateway knows its provider; gives the headers of the redirect to it."""
    deadline = time.monotonic() + 60
    while True:
        status, fields = get(port, "/", headers)
        if status in (302, 303):
            return fields
        if time.monotonic() > deadline:
            sys.exit(f"bench: no redirect to the provider, but {status}")
        time.sleep(0.2)


def get(port, path, headers):
    """One request on a connection of its own: its status, and its headers as lists by lower-case name."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    response.read()
    fields = {}
    for name, value in response.getheaders():
        fields.setdefault(name.lower(), []).append(value)
    connection.close()
    return response.status, fields


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


class Key:
    """An RSA key of 2048 bits, made at start; signs RS256 (RFC 8017 8.2.1)."""

    SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")

    def __init__(self):
        self.e = 65537
        while True:
            p, q = prime(1024), prime(1024)
            if p != q and (p - 1) % self.e and (q - 1) % self.e:
                break
        self.n = p * q
        self.d = pow(self.e, -1, (p - 1) * (q - 1))

    def jwk(self):
        return {"kty": "RSA", "kid": "bench", "use": "sig", "alg": "RS256",
                "n": base64url(self.n.to_bytes(256, "big")), "e": base64url(self.e.to_bytes(3, "big"))}

    def sign(self, claims):
        header = {"typ": "JWT", "alg": "RS256", "kid": "bench"}
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
        digest = self.SHA256 + hashlib.sha256(signed.encode()).digest()
        padded = b"\x00\x01" + b"\xff" * (256 - 3 - len(digest)) + b"\x00" + digest
        signature = pow(int.from_bytes(padded, "big"), self.d, self.n).to_bytes(256, "big")
        return f"{signed}.{base64url(signature)}"


def prime(bits):
    while True:
        candidate = secrets.randbits(bits) | (3 << (bits - 2)) | 1
        if all(candidate % small for small in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)) and is_prime(candidate):
            return candidate


def is_prime(number):
    """Miller and Rabin, 20 rounds."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(20):
        power = pow(secrets.randbelow(number - 3) + 2, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = pow(power, 2, number)
            if power == number - 1:
                break
        else:
            return False
    return True
