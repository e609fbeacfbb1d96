"""What all contenders of a run share: folders, the provider, the applications, the certificate."""

import os
import string
import subprocess

from .certificates import Certificate
from .processes import free_port
from .provider import Provider
from .scripted_provider import HOST

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TARGET = os.path.join(ROOT, "target")
TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates")


def built(name):
    """The path of a program that was built here."""
    return os.path.join(TARGET, "release", name)


def build(*manifests):
    """Builds the gateway and the packages of these folders below bench/, as they are released."""
    packages = [[]] + [["--manifest-path", os.path.join(ROOT, "bench", name, "Cargo.toml")] for name in manifests]
    for package in packages:
        command = ["cargo", "build", "--release", "--locked", "--target-dir", TARGET, *package]
        subprocess.run(command, check=True, cwd=ROOT)


class Stage:
    """Folders that go away, a small one and one for data, and what stands around the contenders."""

    def __init__(self, folder, data_folder, processes, args):
        self.folder, self.data_folder, self.processes, self.args = folder, data_folder, processes, args
        self.certificate = Certificate(folder, HOST)
        self.provider = Provider()
        self.upstreams = {}

    def upstream(self, *options):
        """The port of an application that wants its requests so (`--require`, `--forbid`); one for each kind."""
        if options not in self.upstreams:
            port = free_port()
            command = [built("bench-tools"), "upstream", "--listen", f"127.0.0.1:{port}", *options]
            self.processes.start(f"upstream-{len(self.upstreams)}", command, port)
            self.upstreams[options] = port
        return self.upstreams[options]

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def configure(self, template, name, **values):
        """Writes a contender's configuration, made of a template."""
        with open(os.path.join(TEMPLATES, template), encoding="utf-8") as file:
            return self.write(name, string.Template(file.read()).substitute(values))

    def make_data_folder(self, name):
        path = os.path.join(self.data_folder, name)
        os.mkdir(path)
        return path
