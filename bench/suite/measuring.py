"""Drives the contenders in rounds, each scenario once a round, and notes what each time gave."""

import dataclasses
import json
import subprocess
import sys

from .contenders import OTHER_COOKIE, NotInstalled
from .processes import OTHERS, Failed, on_core
from .scenarios import CONTENDERS
from .sign_in import HEADERS, Browser
from .stage import HOST, built

# Requests at once on a connection of HTTP/2.
STREAMS = 4
# Before the first round, and at the start of each time, before latencies count.
FIRST_SECONDS, WARM_UP_SECONDS = 1, 0.25
# What a request of somebody who has not signed in looks like to those that let everybody through.
STRANGER = "portcullis=" + "x" * 96


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


@dataclasses.dataclass
class Measured:
    """A scenario with its rounds, or with the reason why there are none."""

    scenario: object
    contender: object = None
    rounds: list = dataclasses.field(default_factory=list)
    missing: str = None
    failed: str = None

    def fail(self, reason):
        self.failed, self.rounds = reason, []
        say(f"{self.scenario.key} FAILED: {reason}")


def prepare(stage, scenarios):
    """Starts all that the scenarios need, signs in, and checks each once."""
    names = list(dict.fromkeys(scenario.contender for scenario in scenarios))
    contenders = {name: CONTENDERS[name](stage, name) for name in names}
    stage.provider.start(stage.processes)
    measured = {scenario.key: Measured(scenario, contenders[scenario.contender]) for scenario in scenarios}
    for name, contender in contenders.items():
        mine = [entry for entry in measured.values() if entry.scenario.contender == name]
        try:
            start(contender)
        except NotInstalled as reason:
            say(f"{name}: {reason} is not installed")
            for entry in mine:
                entry.missing = str(reason)
        except (Failed, OSError, subprocess.CalledProcessError) as reason:
            for entry in mine:
                entry.fail(f"did not start: {reason}")
    return measured


def start(contender):
    say(f"starting {contender.name}")
    contender.start()
    check(contender, "", not contender.is_protected)
    if contender.is_protected:
        contender.sign_in()
        check(contender, contender.cookies, True)
        check(contender, forged(contender.cookies), False)


def check(contender, cookies, is_welcome):
    """Whether somebody with these cookies gets through, or not."""
    browser = Browser(contender.stage.certificate.authority)
    browser.keep(HOST, cookies.split("; "))
    answer = browser.request(f"{contender.origin}{contender.prefix}/bytes/16")
    if (answer.status == 200) != is_welcome:
        who = "somebody who has signed in" if is_welcome else "somebody who has not signed in"
        raise Failed(f"answers {answer.status} to {who}")


def forged(cookies):
    """The cookies with other values."""
    changed = str.maketrans("aAbBcC012", "bBaAdD123")
    pairs = (cookie.partition("=") for cookie in cookies.split("; "))
    return "; ".join(f"{name}={value.translate(changed)}" for name, _, value in pairs)


def measure(measured, args):
    """All rounds; a scenario that fails once is not driven again."""
    for entry in driveable(measured):
        attempt(entry, args, FIRST_SECONDS, keep=False)
    for number in range(args.rounds):
        say(f"round {number + 1} of {args.rounds}")
        for entry in in_order(driveable(measured), number):
            attempt(entry, args, args.seconds)


def driveable(measured):
    return [entry for entry in measured.values() if not entry.missing and not entry.failed]


def in_order(entries, number):
    """Groups stay together, so that little time passes between what is compared; who is first changes."""
    groups = {}
    for entry in entries:
        groups.setdefault(entry.scenario.group, []).append(entry)
    return [entry for group in rotated(list(groups.values()), number) for entry in rotated(group, number)]


def rotated(items, number):
    """From another one on each time, and backwards every second time."""
    start = number // 2 * 3 + number
    turned = [items[(start + place) % len(items)] for place in range(len(items))]
    return turned[::-1] if number % 2 else turned


def attempt(entry, args, seconds, keep=True):
    try:
        figures = drive(entry, args, seconds)
    except (Failed, subprocess.CalledProcessError, ValueError) as reason:
        entry.fail(str(reason))
        return
    if keep:
        entry.rounds.append(figures)
        say(f"  {entry.scenario.key:14} {figures['rps']:8.0f} requests/s {figures['cpu_ms']:8.2f} ms CPU for 1,000")


def drive(entry, args, seconds):
    """One run of the load; the time of all processes of the contender, for 1,000 requests, and its store's."""
    program, store = entry.contender.program, entry.contender.store
    program.forget_peak()
    before, store_before = program.cpu_seconds(), store.cpu_seconds() if store else 0
    answer = load(entry, args, seconds)
    thousands = answer["answers"] / 1000
    figures = {name: answer[name] for name in ("requests", "rps", "p50_us", "p99_us", "p999_us", "max_us")}
    figures["cpu_ms"] = (program.cpu_seconds() - before) * 1000 / thousands
    if store:
        figures["store_cpu_ms"] = (store.cpu_seconds() - store_before) * 1000 / thousands
    figures["peak_bytes"] = program.peak_bytes()
    return figures


def load(entry, args, seconds):
    """Runs the load tool, which checks each answer's status and body; fails if any was wrong."""
    output = subprocess.run(on_core(OTHERS, load_command(entry, args, seconds)), check=False, capture_output=True, text=True)
    if output.returncode != 0:
        raise Failed(f"the load ended with {output.returncode}: {output.stderr.strip()[-300:]}")
    answer = json.loads(output.stdout)
    if not answer["errors"] and not answer["requests"]:
        raise Failed(f"nothing was answered within {seconds} s: the machine is busy with something else")
    if answer["errors"]:
        first = " ".join(str(answer["first_error"]).split())[:200]
        raise Failed(f"{answer['requests']} answers were right, {answer['errors']} not: {first}")
    return answer


def load_command(entry, args, seconds):
    scenario, contender = entry.scenario, entry.contender
    connections = max(1, args.connections // STREAMS) if scenario.is_http2 else args.connections
    command = [built("bench-tools"), "load", "--connect", f"127.0.0.1:{contender.port}", "--host", f"{HOST}:{contender.port}",
               "--path", f"{contender.prefix}/bytes/{scenario.bytes}", "--body", str(scenario.bytes),
               "--connections", str(connections), "--seconds", str(seconds), "--warm-up", str(WARM_UP_SECONDS),
               *scenario.options]
    if scenario.is_http2:
        command += ["--streams", str(STREAMS)]
    if contender.scheme == "https":
        command += ["--tls", contender.stage.certificate.authority]
    headers = dict(HEADERS)
    if contender.cookie_file:
        command += ["--cookies", contender.cookie_file]
    else:
        headers["Cookie"] = f"{contender.cookies or STRANGER}; {OTHER_COOKIE}"
    return command + [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
