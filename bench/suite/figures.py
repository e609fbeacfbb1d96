"""Medians, and ratios with their spread."""

import dataclasses
import statistics

from .scenarios import BASELINES, PROMISES


@dataclasses.dataclass(frozen=True)
class Ratio:
    """The median of the ratios of each round, with the least and the greatest."""

    median: float
    least: float
    greatest: float

    def shown(self, digits=2):
        median, least, greatest = (f"{value:.{digits}f}" for value in (self.median, self.least, self.greatest))
        return f"{median} ({least} to {greatest})"


def median(entry, figure):
    return statistics.median(round[figure] for round in entry.rounds)


def ratio(measured, figure, key, baseline):
    """Of two scenarios, round by round; nothing where one of them was not measured."""
    if key not in measured or baseline not in measured:
        return None
    pairs = zip(measured[key].rounds, measured[baseline].rounds)
    ratios = [one[figure] / other[figure] for one, other in pairs]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def against_baseline(measured, entry, figure):
    """The ratio to the first of its group, for all others of it."""
    baseline = BASELINES[entry.scenario.group]
    return None if entry.scenario.key == baseline else ratio(measured, figure, entry.scenario.key, baseline)


def promises(measured):
    """Each promise with its ratio, or with nothing where it could not be measured."""
    return [(promise, ratio(measured, promise.figure, promise.scenario, promise.baseline)) for promise in PROMISES]
