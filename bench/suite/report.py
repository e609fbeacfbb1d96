"""What a run gave: Markdown for people, JSON for programs."""

import dataclasses
import json

from .contenders import FEW_IN_USE, FEW_SESSIONS
from .figures import against_baseline, median, promises
from .versions import NOT_INSTALLED

HEAD = ("", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU ms for 1,000", "CPU ÷ bare Pingora",
        "requests/s ÷ bare Pingora", "memory MiB")

ELSEWHERE = ("Measured on their own: what a sign-in costs (`./dev bench sign-in`); memory at start and for one more live session "
             "(`./dev bench feel`).")


def markdown(measured, facts):
    parts = [introduction(facts), targets(measured), *groups(measured), notes(measured), about(facts)]
    return "\n\n".join(part for part in parts if part) + "\n"


def introduction(facts):
    options = facts["options"]
    pinned = ("the proxy on one core with one worker, the load and the application on another one"
              if facts["machine"]["pinned"] else "**one core for everything: nothing was pinned**")
    quick = (f" **A quick run, to see that everything works: with {FEW_SESSIONS:,} sessions, {FEW_IN_USE:,} of them in use.**"
             if options["quick"] else "")
    return (f"{facts['date']}; medians of {options['rounds']} rounds of {options['seconds']} s, "
            f"{options['connections']} requests at once, {pinned}. Ratios are of figures of the same round; their median, and in "
            f"brackets the least and the greatest.{quick}")


def targets(measured):
    rows = []
    for promise, ratio in promises(measured):
        verdict = "not measured" if not ratio else "held" if promise.holds(ratio.median) else "**missed**"
        rows.append((promise.title, promise.limit(), ratio.shown(3) if ratio else "–", verdict))
    return f"## Targets\n\n{table(('', 'target', 'measured', ''), rows)}\n\n{ELSEWHERE}"


def groups(measured):
    found = {}
    for entry in measured.values():
        found.setdefault(entry.scenario.group, []).append(row(measured, entry))
    return [f"## {group}\n\n{table(HEAD, rows)}" for group, rows in found.items()]


def row(measured, entry):
    if entry.missing or not entry.rounds:
        return (entry.scenario.title, f"not installed ({entry.missing})" if entry.missing else "**failed**") + ("–",) * 7
    times = [f"{median(entry, name) / 1000:.2f}" for name in ("p50_us", "p99_us", "p999_us")]
    ratios = [ratio.shown() if ratio else "–" for ratio in
              (against_baseline(measured, entry, figure) for figure in ("cpu_ms", "rps"))]
    return (entry.scenario.title, f"{median(entry, 'rps'):,.0f}", *times, cpu(entry), *ratios,
            f"{median(entry, 'peak_bytes') / 1024 / 1024:.0f}")


def cpu(entry):
    """Its own time, and its store's where that is another process."""
    own = f"{median(entry, 'cpu_ms'):.1f}"
    return f"{own} (Redis: {median(entry, 'store_cpu_ms'):.1f})" if "store_cpu_ms" in entry.rounds[0] else own


def notes(measured):
    failed = [f"- {entry.scenario.title} ({entry.scenario.group}): {entry.failed}" for entry in measured.values() if entry.failed]
    return "## Failed\n\n" + "\n".join(failed) if failed else ""


def about(facts):
    versions = [f"{name} {version}" for name, version in facts["versions"].items() if version != NOT_INSTALLED]
    machine = facts["machine"]
    return (f"## Versions\n\n{', '.join(versions)}; {machine['system']}, kernel {machine['kernel']}, "
            f"{machine['CPU']}, {machine['cores']} cores.")


def table(head, rows):
    align = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, align, *rows))


def document(measured, facts):
    """Everything, round by round."""
    return json.dumps({**facts, "targets": target_entries(measured), "scenarios": scenario_entries(measured)}, indent=2) + "\n"


def target_entries(measured):
    return [{"title": promise.title, "figure": promise.figure, "scenario": promise.scenario, "baseline": promise.baseline,
             "limit": promise.limit(), "ratio": ratio and dataclasses.asdict(ratio),
             "held": ratio and promise.holds(ratio.median)} for promise, ratio in promises(measured)]


def scenario_entries(measured):
    return {key: {"title": entry.scenario.title, "group": entry.scenario.group, "not_installed": entry.missing,
                  "failed": entry.failed, "rounds": entry.rounds} for key, entry in measured.items()}
