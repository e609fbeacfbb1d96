"""The configuration of a gateway with one host, one provider, one application; the rest has its default."""

import os

from suite.scripted_provider import HOST

# Of the routes: what is below it, nobody has to be signed in for.
PUBLIC = "/public"


def write_configuration(folder, provider, port, admin_port, upstream, store="memory", access_log=False,
                        algorithm="RS256"):
    """Writes it, and what it names, into `folder`; gives its path."""
    secret = os.path.join(folder, "client_secret")
    with open(secret, "w", encoding="ascii") as file:
        file.write(provider.client_secret)
    path = os.path.join(folder, "portcullis.toml")
    with open(path, "w", encoding="ascii") as file:
        file.write(f"""
data_dir = "{folder}"

[[listener]]
address = "127.0.0.1:{port}"

[admin]
address = "127.0.0.1:{admin_port}"

[[host]]
name = "{HOST}"
public_url = "http://{HOST}:{port}"

[[provider]]
id = "bench"
issuer = "{provider.issuer}"
client_id = "{provider.client_id}"
client_secret = {{ file = "{secret}" }}
id_token_algorithms = ["{algorithm}"]

[session]
store = "{store}"

[[route]]
host = "{HOST}"
upstream = "http://127.0.0.1:{upstream}"

[[route]]
host = "{HOST}"
path = "{PUBLIC}"
access = "public"
upstream = "http://127.0.0.1:{upstream}"

# Whoever measures signs in more often than anybody: counted as always, never stopped.
[limits]
sign_in_starts = "3600000/1h"

[server]
threads = 1

[log]
access = {"true" if access_log else "false"}
""")
    return path
