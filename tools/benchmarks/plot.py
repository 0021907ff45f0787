"""Plots as SVG, drawn by hand, so that nothing has to be installed for them.

outcomes.svg has every aim: how far the measured ratio is from it. Each scenario has a file with its own bars: medians,
and a line from the least to the most.
"""

import math
from xml.sax.saxutils import escape

from .report import short

WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 900, 400, 110, 16, 6, 34
OURS, THEIRS, MET, MISSED, INK = "#2b6cb0", "#a0aec0", "#2f855a", "#c53030", "#1a202c"
SHOWN = WIDTH - LEFT - RIGHT


def text(x, y, words, anchor="start", size=12, fill=INK):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{fill}">{escape(words)}</text>'


def box(x, y, width, height, fill):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" fill="{fill}"/>'


def line(x1, y1, x2, y2, dash=""):
    extra = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{INK}"{extra}/>'


def document(height, parts):
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
            f'viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif">')
    return "\n".join([head, box(0, 0, WIDTH, height, "#ffffff"), *parts, "</svg>", ""])


def bars(y, title, unit, series):
    """One group of bars, {name: Spread}: (parts, where it ends)."""
    parts = [text(10, y + 12, f"{title} [{unit}]" if unit else title, size=13)]
    y += 20
    most = max((spread.most for spread in series.values()), default=0) or 1
    for name, spread in series.items():
        middle = y + BAR / 2
        is_ours = name.startswith(("ours", "passthrough", "fallback", "lifetime"))
        parts += [text(LEFT - 8, middle + 4, name, "end"),
                  box(LEFT, y, spread.median / most * SHOWN, BAR, OURS if is_ours else THEIRS),
                  line(LEFT + spread.least / most * SHOWN, middle, LEFT + spread.most / most * SHOWN, middle),
                  text(LEFT + spread.most / most * SHOWN + 6, middle + 4, short(spread.median))]
        y += BAR + GAP
    return parts, y + 10


def scenario_plot(results):
    """The bars of a scenario: one group for each title and metric, every contender once."""
    groups = {}
    for result in results:
        group = groups.setdefault((result.row.title, result.row.unit), {})
        for name, spread in ((result.row.contender, result.value), (result.row.peer, result.peer_value)):
            if name and spread:
                group.setdefault(name, spread)
    parts, y = [], 10
    for (title, unit), series in groups.items():
        if series:
            more, y = bars(y, title, unit, series)
            parts += more
    return document(y, parts)


def outcomes_plot(results):
    """Every aim: right of the line is missed. The scale is logarithmic, from a tenth to ten times the aim."""
    judged = [result for result in results if result.outcome in ("met", "missed")]
    height = TOP + len(judged) * (BAR + GAP) + 30

    def place(margin):
        return LEFT + (math.log10(min(max(margin, 0.1), 10)) + 1) / 2 * SHOWN

    parts = [text(LEFT, 20, "better than the aim", size=13, fill=MET),
             text(WIDTH - RIGHT, 20, "worse", "end", 13, MISSED), line(place(1), TOP - 6, place(1), height - 24, "4 3")]
    y = TOP
    for result in judged:
        row = result.row
        spread = result.ratio if row.peer else result.value
        middle, margins = y + BAR / 2, [row.aim.margin(value) for value in (spread.median, spread.least, spread.most)]
        title = f"{row.title} : {row.peer}" if row.peer else row.title
        ends = sorted((place(1), place(margins[0])))
        parts += [text(LEFT - 8, middle + 4, title, "end", 11),
                  box(ends[0], y, ends[1] - ends[0], BAR, MET if result.outcome == "met" else MISSED),
                  line(place(min(margins[1:])), middle, place(max(margins[1:])), middle),
                  text(WIDTH - RIGHT + 8, middle + 4, f"{spread.median:.3g} ({row.aim})", size=11)]
        y += BAR + GAP
    for margin, words in ((0.1, "a tenth"), (1, "the aim"), (10, "ten times")):
        parts.append(text(place(margin), height - 8, words, "middle", 11))
    return document(height, parts)


def write_plots(folder, results):
    """outcomes.svg, and one file for each scenario."""
    (folder / "outcomes.svg").write_text(outcomes_plot(results), encoding="utf-8")
    for scenario in dict.fromkeys(result.scenario for result in results):
        own = [result for result in results if result.scenario == scenario]
        (folder / f"{scenario}.svg").write_text(scenario_plot(own), encoding="utf-8")
