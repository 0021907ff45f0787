"""Results as a table and as CSV."""

import csv
from dataclasses import asdict


def short(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def with_spread(spread, form=short):
    """Median, and the least and the most if they differ."""
    if spread is None:
        return "-"
    median, least, most = form(spread.median), form(spread.least), form(spread.most)
    return median if least == most else f"{median} ({least}..{most})"


def ratio_form(value):
    return f"{value:.3f}" if value < 2 else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


HEADERS = ("what", "unit", "ours", "value", "against", "its value", "ratio", "aim", "outcome")


def cells(result):
    row = result.row
    return (row.title, row.unit, row.contender, with_spread(result.value), row.peer or "-",
            with_spread(result.peer_value), with_spread(result.ratio, ratio_form), str(row.aim or "-"), result.outcome)


def table(results):
    """The lines of the table."""
    rows = [HEADERS, *map(cells, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADERS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def outcome_line(results):
    counts = {word: sum(result.outcome == word for result in results) for word in ("met", "missed", "not measured")}
    return "aims: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def write_results(path, results):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("scenario", "what", "unit", "contender", "median", "least", "most", "peer", "peer_median",
                         "peer_least", "peer_most", "ratio", "ratio_least", "ratio_most", "aim", "outcome"))
        for result in results:
            row = result.row
            numbers = [[spread.median, spread.least, spread.most] if spread else ["", "", ""]
                       for spread in (result.value, result.peer_value, result.ratio)]
            writer.writerow((result.scenario, row.title, row.unit, row.contender, *numbers[0], row.peer or "",
                             *numbers[1], *numbers[2], row.aim or "", result.outcome))


def write_values(path, records):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("scenario", "case", "metric", "contender", "run", "value"))
        writer.writeheader()
        writer.writerows(asdict(record) for record in records)
