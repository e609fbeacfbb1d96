"""The certified provider of the tests (tests/node/provider.mjs), with one client for each contender."""

import json
import os
import shutil
import subprocess

from .processes import Failed, free_port

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.join(ROOT, "tests", "node", "provider.mjs")
ACCOUNT = "alice"


class Client:
    """A contender's registration. The secret needs no escapes, so that every contender sends it alike."""

    def __init__(self, client_id, callback):
        self.client_id, self.callback = client_id, callback
        self.secret = f"the-secret-of-{client_id}-and-32-bytes-or-more"

    def metadata(self):
        return {"client_id": self.client_id, "client_secret": self.secret, "redirect_uris": [self.callback],
                "token_endpoint_auth_method": "client_secret_basic"}


class Provider:
    """Runs until its input ends. Clients are registered before it starts."""

    def __init__(self):
        self.port = free_port()
        self.issuer = f"http://localhost:{self.port}"
        self.clients = []

    def client(self, client_id, callback):
        client = Client(client_id, callback)
        self.clients.append(client)
        return client

    def start(self, processes):
        node = os.environ.get("PORTCULLIS_TEST_NODE", "node")
        if not shutil.which(node):
            raise Failed("there is no Node.js for the provider: run `./dev setup bench`")
        program = processes.start("provider", [node, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        # A sign-in has to last for the whole run.
        settings = {"issuer": self.issuer, "port": self.port, "access_token_ttl": 86400,
                    "clients": [client.metadata() for client in self.clients]}
        program.process.stdin.write(json.dumps(settings) + "\n")
        program.process.stdin.flush()
        if not program.process.stdout.readline():
            raise Failed(f"the provider did not start: {program.last_words()}")
