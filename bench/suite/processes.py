"""Programs that run beside each other on loopback: started, pinned to cores, looked at in /proc, ended by their pids."""

import os
import socket
import subprocess
import time

# What is measured has the first core to itself; the load, the upstreams and the provider share the second.
MEASURED, OTHERS = 0, 1
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60


class Failed(Exception):
    """Something that had to work did not; the text is for the table."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_pinned():
    """Whether there is a core for what is measured and another one for the rest."""
    return len(os.sched_getaffinity(0)) > 1


def on_core(core, command):
    """Pins a command to a core, where there is more than one."""
    if not is_pinned():
        return command
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core]), *command]


class Program:
    """One that runs, with all processes that it started."""

    def __init__(self, name, process, log):
        self.name, self.process, self.log = name, process, log

    def cpu_seconds(self):
        """User and system time of it and its children, those that ended included (proc(5), fields 14 to 17)."""
        fields = (stat(pid) for pid in family(self.process.pid))
        return sum(sum(map(int, of_one[11:15])) for of_one in fields if of_one) / TICKS_PER_SECOND

    def forget_peak(self):
        """Lets the peak of memory begin anew, where the kernel can do that."""
        for pid in family(self.process.pid):
            try:
                with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
                    file.write("5")
            except OSError:
                return

    def peak_bytes(self):
        """The most memory that was resident (VmHWM) since the peak was forgotten, all processes together."""
        return sum(memory_bytes(pid, "VmHWM") for pid in family(self.process.pid))

    def resident_bytes(self):
        """The memory that is resident now (VmRSS), of all processes together."""
        return sum(memory_bytes(pid, "VmRSS") for pid in family(self.process.pid))

    def last_words(self):
        """The end of its log, on one line."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return " | ".join(file.read().strip().splitlines()[-3:])[-400:]


def family(pid):
    """A process and all that descend from it."""
    parents = {}
    for entry in os.listdir("/proc"):
        fields = stat(entry) if entry.isdigit() else None
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found = [pid]
    for member in found:
        found += parents.get(member, [])
    return found


def stat(pid):
    """The fields of /proc/PID/stat that follow the name, or nothing if the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None


def memory_bytes(pid, field):
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


class Processes:
    """All programs of a run; they end with it, the last one first."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in reversed(self.running):
            program.process.terminate()
        for program in self.running:
            try:
                program.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                program.process.kill()
                program.process.wait()

    def start(self, name, command, port=None, core=OTHERS, silent=False, env=None, **pipes):
        """Starts a program and waits until it listens. Its output goes into a log, or to /dev/null."""
        log = os.path.join(self.folder, f"{name}.log")
        with open(log, "wb") as errors, open(os.devnull if silent else log, "ab") as output:
            process = subprocess.Popen(on_core(core, command), stdin=pipes.get("stdin", subprocess.DEVNULL),
                                       stdout=pipes.get("stdout", output), stderr=errors, text=True,
                                       env={**os.environ, **(env or {})}, cwd=self.folder)
        program = Program(name, process, log)
        self.running.append(program)
        if port:
            wait_until_it_listens(program, port)
        return program


def wait_until_it_listens(program, port):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if program.process.poll() is not None:
            raise Failed(f"ended with status {program.process.returncode}: {program.last_words()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Failed(f"does not listen: {program.last_words()}")
