"""Plots as SVG, drawn by hand: bars of the scenarios with small bodies, with the spread of their rounds."""

from xml.sax.saxutils import escape

from .contenders import Portcullis
from .figures import median
from .scenarios import SMALL

WIDTH, LABELS, VALUES, ROW, BAR, TOP, BOTTOM, MARGIN = 940, 385, 110, 34, 20, 116, 28, 28
PLOT = WIDTH - LABELS - VALUES - 2 * MARGIN
OURS, CHECKS_NOTHING, PEERS = "#3457d5", "#a3adbb", "#e08e45"
INK, FAINT, GRID, PAPER = "#1c2430", "#667085", "#e6e9ef", "#ffffff"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
SPREAD = "lines: the rounds' least and most"
LEGEND = (("Portcullis", OURS), ("checks nothing", CHECKS_NOTHING), ("others that authenticate", PEERS))


class Bar:
    """A scenario's median and spread of one figure, in the unit that is shown."""

    def __init__(self, entry, figure, unit):
        rounds = [round[figure] / unit for round in entry.rounds]
        self.title = entry.scenario.title.replace("`", "")
        self.value, self.least, self.greatest = median(entry, figure) / unit, min(rounds), max(rounds)
        self.colour = colour(entry.contender)


def colour(contender):
    if isinstance(contender, Portcullis):
        return OURS
    return PEERS if contender.is_protected else CHECKS_NOTHING


def draw(measured):
    """The files: name and content."""
    entries = [entry for entry in measured.values() if entry.rounds and entry.scenario.group == SMALL]
    if not entries:
        return {}
    rates, times = bars(entries, "rps"), bars(entries, "cpu_ms")
    return {
        "throughput.svg": chart("Requests a second, one core", f"more is better; {SPREAD}", rates[::-1], "{:,.0f}"),
        "cpu.svg": chart("CPU for 1,000 requests, in milliseconds", f"less is better; {SPREAD}", times, "{:.1f}"),
        "latency.svg": latency(entries),
    }


def bars(entries, figure, unit=1):
    """The least first."""
    return sorted((Bar(entry, figure, unit) for entry in entries), key=lambda bar: bar.value)


def latency(entries):
    """p99 as a pale bar, p50 as a full one in front of it."""
    pairs = sorted(((Bar(entry, "p99_us", 1000), Bar(entry, "p50_us", 1000)) for entry in entries),
                   key=lambda pair: pair[0].value)
    scale = PLOT / max(bar.greatest for bar, _ in pairs)
    rows = []
    for number, (bar, half) in enumerate(pairs):
        y = TOP + number * ROW
        rows += [label(bar, y), rectangle(bar, y, scale, 0.35), whisker(bar, y, scale), rectangle(half, y, scale, 1),
                 value(bar, y, scale, f"{half.value:.2f} / {bar.value:.2f}")]
    return picture("Latency at full load, in milliseconds", f"p50 (dark) and p99 (pale); less is better; {SPREAD}",
                   grid(len(pairs), scale), rows, len(pairs))


def chart(title, subtitle, bars, form):
    scale = PLOT / max(bar.greatest for bar in bars)
    rows = []
    for number, bar in enumerate(bars):
        y = TOP + number * ROW
        rows += [label(bar, y), rectangle(bar, y, scale, 1), whisker(bar, y, scale), value(bar, y, scale, form.format(bar.value))]
    return picture(title, subtitle, grid(len(bars), scale), rows, len(bars))


def label(bar, y):
    weight = 600 if bar.colour == OURS else 400
    return text(MARGIN + LABELS - 12, y + BAR * 0.75, bar.title, 13, INK, anchor="end", weight=weight)


def rectangle(bar, y, scale, opacity):
    return (f'<rect x="{MARGIN + LABELS}" y="{y}" width="{bar.value * scale:.1f}" height="{BAR}" rx="3" '
            f'fill="{bar.colour}" fill-opacity="{opacity}"/>')


def whisker(bar, y, scale):
    """From the least to the greatest."""
    x = MARGIN + LABELS
    least, greatest, middle = x + bar.least * scale, x + bar.greatest * scale, y + BAR / 2
    return (f'<path d="M{least:.1f} {middle}H{greatest:.1f}M{least:.1f} {middle - 4}v8M{greatest:.1f} {middle - 4}v8" '
            f'stroke="{INK}" stroke-opacity="0.55" fill="none"/>')


def value(bar, y, scale, shown):
    return text(MARGIN + LABELS + bar.greatest * scale + 10, y + BAR * 0.75, shown, 13, INK, weight=600)


def grid(rows, scale):
    """Vertical lines at round values, with their numbers below."""
    step = round_step(PLOT / scale)
    bottom = TOP + rows * ROW - (ROW - BAR) / 2
    lines = []
    for number in range(int(PLOT / scale / step + 1e-9) + 1):
        x = MARGIN + LABELS + number * step * scale
        lines.append(f'<path d="M{x:.1f} {TOP - 8}V{bottom:.1f}" stroke="{GRID}"/>')
        lines.append(text(x, bottom + 16, f"{number * step:,g}", 11, FAINT, anchor="middle"))
    return lines


def round_step(span):
    """1, 2 or 5 times a power of ten, so that there are at most six lines."""
    power = 1e-6
    while True:
        for factor in (1, 2, 5):
            if span / (factor * power) <= 6:
                return factor * power
        power *= 10


def legend():
    parts, x = [], MARGIN
    for name, colour in LEGEND:
        parts.append(f'<rect x="{x}" y="76" width="12" height="12" rx="3" fill="{colour}"/>')
        parts.append(text(x + 18, 86, name, 12, FAINT))
        x += 44 + 7 * len(name)
    return parts


def picture(title, subtitle, behind, rows, count):
    height = TOP + count * ROW + BOTTOM
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
             f'font-family="{FONT}" role="img" aria-label="{escape(title)}">',
             f'<rect width="{WIDTH}" height="{height}" rx="10" fill="{PAPER}"/>',
             text(MARGIN, 38, title, 19, INK, weight=700), text(MARGIN, 60, subtitle, 13, FAINT),
             *legend(), *behind, *rows, "</svg>"]
    return "\n".join(parts) + "\n"


def text(x, y, content, size, colour, anchor="start", weight=400):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(content)}</text>')
