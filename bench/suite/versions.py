"""What was measured, on what: versions of the programs and the machine."""

import os
import platform
import re
import shutil
import subprocess

from .peers import find_apache_module, find_envoy, find_oauth2_proxy, find_program
from .processes import is_pinned
from .stage import ROOT

NOT_INSTALLED = "not installed"


def versions():
    """Name and version of each program."""
    return {
        "Portcullis": commit(),
        "Pingora": locked("pingora"),
        "Rust": said(["rustc", "--version"], r"rustc (\S+)"),
        "nginx": said([find_program("nginx"), "-v"], r"nginx/(\S+)"),
        "Envoy": said([find_envoy(), "--version"], r"version: \w+/([\d.]+)/"),
        "Apache": said([find_program("apache2"), "-v"], r"Apache/(\S+)"),
        "mod_auth_openidc": package("libapache2-mod-auth-openidc") if find_apache_module() else NOT_INSTALLED,
        "oauth2-proxy": said([find_oauth2_proxy(), "--version"], r"oauth2-proxy v?(\S+)"),
        "Redis": said([shutil.which("redis-server") or shutil.which("valkey-server"), "--version"], r"v=(\S+)"),
    }


def machine():
    """The machine, and how it was shared out."""
    return {
        "kernel": platform.release(),
        "system": system(),
        "CPU": cpu_model(),
        "cores": os.cpu_count(),
        "pinned": is_pinned(),
    }


def said(command, pattern):
    """What a program says of its version; some say it on standard error."""
    if not command[0]:
        return NOT_INSTALLED
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    found = re.search(pattern, answer.stdout + answer.stderr)
    return found.group(1) if found else "unknown"


def commit():
    answer = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], check=False, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"


def locked(name):
    with open(os.path.join(ROOT, "Cargo.lock"), encoding="utf-8") as file:
        return re.search(rf'name = "{name}"\nversion = "([^"]+)"', file.read()).group(1)


def package(name):
    """A Debian package's version."""
    answer = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], check=False, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"


def system():
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()
