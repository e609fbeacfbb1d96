"""What is measured: the gateway in its ways of running, and a Pingora proxy that does nothing else."""

import json
import os
import shutil
import subprocess

from .processes import MEASURED, Failed, free_port
from .sign_in import sign_in
from .stage import HOST, built

MANY_ROUTES = 10_000
MANY_SESSIONS, MANY_IN_USE = 1_000_000, 10_000
FEW_SESSIONS, FEW_IN_USE = 20_000, 1_000
# What the application is told of everybody: claims of the provider's account, and the headers made of them.
SHARED_CLAIMS = {"email": "alice@example.test", "groups": ["staff", "wiki-admins"]}
SHARED_FIELDS = ("X-Forwarded-Email: alice@example.test", "X-Forwarded-Groups: staff,wiki-admins")
# One of the application's own.
OTHER_COOKIE = "theme=dark"


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
        # A file with the cookies of many who have signed in, a line each.
        self.cookie_file = None

    @property
    def origin(self):
        return f"{self.scheme}://{HOST}:{self.port}"

    def register(self):
        return self.stage.provider.client(self.name, f"{self.origin}/oauth2/callback")

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

    own_fields = ("X-Forwarded-User: alice",)

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
        folder = stage.make_data_folder(self.name)
        path = stage.configure(
            "portcullis.toml", f"{self.name}.toml", folder=folder, port=self.port, admin_port=free_port(), host=HOST,
            tls=self.tls(), origin=self.origin, issuer=stage.provider.issuer, client_id=self.client.client_id,
            secret_file=stage.write(f"{self.name}.secret", self.client.secret), store=self.session_store,
            key_file=self.new_key(), redis=self.redis(folder), routes=self.route_entries(),
            access_log="true" if self.access_log else "false")
        self.fill_store(path)
        self.run([built("portcullis"), "run", "--config", path], silent=self.access_log)

    def fill_store(self, config):
        """Nobody has a session before the gateway starts."""

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
        return [part for field in (*self.own_fields, *SHARED_FIELDS) for part in ("--require", field)]


class ManySessions(Portcullis):
    """The gateway with a store on disk that is full of sessions, many of which are in use."""

    own_fields = ()

    def __init__(self, stage, name):
        super().__init__(stage, name, store="disk")

    def fill_store(self, config):
        """Puts sessions there as sign-ins would have, before the gateway starts."""
        quick = self.stage.args.quick
        sessions, in_use = (FEW_SESSIONS, FEW_IN_USE) if quick else (MANY_SESSIONS, MANY_IN_USE)
        self.cookie_file = os.path.join(self.stage.folder, f"{self.name}.cookies")
        command = [built("session-stores"), "fill", config, str(sessions), str(in_use), self.cookie_file]
        subprocess.run([*command, json.dumps(SHARED_CLAIMS)], check=True, stdout=subprocess.DEVNULL)
        self.add_other_cookie()

    def add_other_cookie(self):
        with open(self.cookie_file, encoding="ascii") as file:
            lines = file.read().splitlines()
        with open(self.cookie_file, "w", encoding="ascii") as file:
            file.writelines(f"{line}; {OTHER_COOKIE}\n" for line in lines)
        self.cookies = lines[0]

    def sign_in(self):
        """All have."""


def route_path(number):
    return f"/app-{number:05}"
