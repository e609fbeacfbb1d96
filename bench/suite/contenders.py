"""What is measured: the gateway in its ways of running, and a Pingora proxy that does nothing else."""

import os
import shutil
import subprocess

from .processes import MEASURED, Failed, free_port
from .sign_in import sign_in
from .stage import HOST, built

MANY_ROUTES = 10_000


class NotInstalled(Exception):
    """A contender that this machine doesn't have; the text says what."""


class Contender:
    """A proxy under test. Its client is registered when it is made, so that the provider can start before it does."""

    scheme = "http"
    # Whether it lets nobody through who has not signed in.
    is_protected = True
    # A path that it has an application for.
    prefix = "/wiki"

    def __init__(self, stage, name):
        self.stage, self.name = stage, name
        self.port = free_port()
        self.program = None
        # A server beside it whose time is told on its own.
        self.store = None
        self.cookies = ""

    @property
    def origin(self):
        return f"{self.scheme}://{HOST}:{self.port}"

    def register(self, auth="client_secret_basic"):
        return self.stage.provider.client(self.name, f"{self.origin}/oauth2/callback", auth)

    def run(self, command, **options):
        self.program = self.stage.processes.start(self.name, command, self.port, core=MEASURED, **options)

    def sign_in(self):
        self.cookies = sign_in(f"{self.origin}{self.prefix}/bytes/16", self.stage.certificate.authority)


class Bare(Contender):
    """The least that a proxy on Pingora can cost."""

    is_protected = False

    def __init__(self, stage, name, *options, tls=False):
        super().__init__(stage, name)
        self.scheme = "https" if tls else "http"
        certificate = stage.certificate
        self.options = [*(["--tls", certificate.chain, certificate.key] if tls else []), *options]

    def start(self):
        upstream = f"127.0.0.1:{self.stage.upstream()}"
        self.run([built("bare-proxy"), "proxy", f"127.0.0.1:{self.port}", upstream, "1", *self.options])


class Portcullis(Contender):
    """The gateway with its defaults, but for what a scenario is about."""

    def __init__(self, stage, name, store="memory", tls=False, access_log=False, routes=1, public=False):
        super().__init__(stage, name)
        self.session_store, self.access_log, self.routes = store, access_log, routes
        self.scheme = "https" if tls else "http"
        self.is_protected = not public
        # The route in the middle, where there are many.
        self.prefix = "/wiki" if routes == 1 else route_path(routes // 2)
        self.client = self.register()

    def start(self):
        stage = self.stage
        folder = stage.make_folder(self.name)
        key_file = self.new_key()
        path = stage.configure(
            "portcullis.toml", f"{self.name}.toml", folder=folder, port=self.port, admin_port=free_port(), host=HOST,
            tls=self.tls(), origin=self.origin, issuer=stage.provider.issuer, client_id=self.client.client_id,
            secret_file=stage.write(f"{self.name}.secret", self.client.secret), store=self.session_store,
            key_file=key_file, redis=self.redis(folder), routes=self.route_entries(),
            access_log="true" if self.access_log else "false")
        self.prepare(folder, key_file)
        self.run([built("portcullis"), "run", "--config", path], silent=self.access_log)

    def prepare(self, folder, key_file):
        """What a scenario does before the gateway starts."""

    def new_key(self):
        key = subprocess.run([built("portcullis"), "keygen"], check=True, capture_output=True, text=True).stdout
        return self.stage.write(f"{self.name}.key", key)

    def tls(self):
        certificate = self.stage.certificate
        if self.scheme == "http":
            return ""
        return f'tls = {{ certificate = "{certificate.chain}", key = "{certificate.key}" }}'

    def redis(self, folder):
        if self.session_store != "redis":
            return ""
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if not program:
            raise NotInstalled("redis-server")
        port = free_port()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes"]
        self.store = self.stage.processes.start(f"{self.name}-redis", command, port)
        return f'addresses = ["127.0.0.1:{port}"]'

    def route_entries(self):
        paths = ["/"] if self.routes == 1 else [f"{route_path(number)}/" for number in range(self.routes)]
        access = "signed-in" if self.is_protected else "public"
        upstream = self.stage.upstream(*self.demands())
        return "\n".join(f'[[route]]\nhost = "{HOST}"\npath = "{path}"\nupstream = "http://127.0.0.1:{upstream}"\n'
                         f'access = "{access}"\n' for path in paths)

    def demands(self):
        """What the application wants to be told, or not to be."""
        if not self.is_protected:
            return ["--forbid", "X-Forwarded-User"]
        demands = {"X-Forwarded-User": "alice", "X-Forwarded-Email": "alice@example.test",
                   "X-Forwarded-Groups": "staff,wiki-admins"}
        return [part for name, value in demands.items() for part in ("--require", f"{name}: {value}")]


def route_path(number):
    return f"/app-{number:05}"
