"""Instructions of a program, counted by callgrind while something is done to it."""

import glob
import os
import re
import socket
import subprocess
import sys
import time

# A line of callgrind_annotate: cost, share, file, function, object.
LINE = re.compile(r"^\s*([\d,]+) \(\s*[\d.]+%\)\s+([*<>]?)\s*(?:\?\?\?|\S+?\.\w+):(.*?)(?: \[[^\]]*\])?$")
# How long a program may take to listen under callgrind, which makes it some fifty times slower.
PATIENCE = 60


class Callgrind:
    """A program under callgrind, which counts nothing until it is told to; ends with the `with` block."""

    def __init__(self, name, command, port, folder):
        self.name, self.folder = name, folder
        self.log = os.path.join(folder, f"{name}.log")
        # One thread after another, in turns: else a busy thread can keep others from the one core there is.
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--fair-sched=yes",
                    f"--callgrind-out-file={folder}/{name}.out"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([*valgrind, *command], stdout=log, stderr=subprocess.STDOUT,
                                            stdin=subprocess.DEVNULL)
        self.await_port(port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def await_port(self, port):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.1)
        self.process.kill()
        with open(self.log, encoding="utf-8", errors="replace") as log:
            sys.exit(f"bench: the {self.name} does not listen:\n{log.read()}")

    def count(self, work):
        """Counts while `work` is done; gives the profile."""
        before = set(glob.glob(f"{self.folder}/{self.name}.out.*"))
        self.control("-i", "on")
        work()
        self.control("-i", "off")
        self.control("-d")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for path in set(glob.glob(f"{self.folder}/{self.name}.out.*")) - before:
                if (total := total_of(path)) is not None:
                    return Profile(path, total)
            time.sleep(0.05)
        sys.exit(f"bench: callgrind does not write the profile of the {self.name}")

    def control(self, *what):
        command = ["callgrind_control", *what, str(self.process.pid)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or "Error" in done.stdout:
            sys.exit(f"bench: {' '.join(command)}: {done.stdout}{done.stderr}")


def total_of(path):
    """The last line of a whole profile."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("totals:"):
                return int(line.split()[1])
    return None


class Profile:
    """What was counted, in all and by function."""

    def __init__(self, path, total):
        self.path, self.total = path, total

    def by_function(self, inclusive=False):
        """Instructions of each function, of it alone or with all that it calls."""
        costs = {}
        for cost, _, function in self.lines(f"--inclusive={'yes' if inclusive else 'no'}"):
            # A function with code of several files has a line for each.
            costs[function] = max(cost, costs.get(function, 0)) if inclusive else cost + costs.get(function, 0)
        return costs

    def callers(self, name):
        """Of each function with `name` in its name: what it cost, and (cost, caller) for each caller."""
        found, callers = [], []
        for cost, mark, function in self.lines("--inclusive=yes", "--tree=caller"):
            if mark == "<":
                callers.append((cost, function))
                continue
            if name in function:
                found.append((function, cost, sorted(callers, reverse=True)))
            callers = []
        return found

    def lines(self, *options):
        command = ["callgrind_annotate", "--threshold=100", "--auto=no", *options, self.path]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for line in output.splitlines():
            if (match := LINE.match(line)):
                yield int(match[1].replace(",", "")), match[2], match[3]
