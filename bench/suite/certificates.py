"""An authority of one run, and its certificate for the benchmark's host."""

import os
import subprocess


class Certificate:
    """PEM files: `authority` vouches for `chain`, whose key is `key`."""

    def __init__(self, folder, host):
        self.authority, authority_key = os.path.join(folder, "authority.pem"), os.path.join(folder, "authority.key")
        self.chain, self.key = os.path.join(folder, "certificate.pem"), os.path.join(folder, "certificate.key")
        new_certificate(authority_key, self.authority, "Benchmark authority", "basicConstraints=critical,CA:TRUE")
        new_certificate(self.key, self.chain, host, f"subjectAltName=DNS:{host}",
                        "-addext", "basicConstraints=critical,CA:FALSE", "-CA", self.authority, "-CAkey", authority_key)


def new_certificate(key, certificate, name, extension, *more):
    # P-256: what public authorities give by default today.
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "30", "-subj", f"/CN={name}", "-addext", extension, "-keyout", key, "-out", certificate,
                    *more], check=True, capture_output=True)
