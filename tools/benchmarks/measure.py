"""Cases, rounds, medians, outcomes.

A case has contenders; in each round each of them is measured once, in turn, so that what happens to the machine
meanwhile happens to all. Ratios are taken within a round. What is shown are medians, and the least and the most.
"""

import statistics
from dataclasses import dataclass, field
from typing import Callable, Optional


@dataclass(frozen=True)
class Aim:
    """What a ratio (or, without a peer, a value) should be."""

    word: str  # "<", "<=" or ">="
    limit: float
    unit: str = ""

    def __str__(self):
        return f"{self.word} {self.limit:.4g}{self.unit}"

    def is_met(self, value):
        return {"<": value < self.limit, "<=": value <= self.limit, ">=": value >= self.limit}[self.word]

    def margin(self, value):
        """1 at the limit, above 1 when it is missed."""
        if not value:
            return 0.0 if self.word != ">=" else float("inf")
        if not self.limit:
            return float("inf")
        return self.limit / value if self.word == ">=" else value / self.limit


@dataclass(frozen=True)
class Row:
    """A line of the table: a contender's metric, compared with a peer's, or with nothing."""

    title: str
    unit: str
    contender: str
    peer: Optional[str] = None
    aim: Optional[Aim] = None
    metric: str = ""
    peer_metric: Optional[str] = None  # if it is another one
    per: float = 1  # the ratio is divided by this
    beyond: Optional[str] = None  # the value is what the contender has more than this one


@dataclass
class Case:
    """Contenders (functions that measure once: a number, or a dictionary of metrics), and the rows that come of it."""

    title: str
    contenders: dict[str, Callable]
    rows: list[Row]
    runs: Optional[int] = None  # how many rounds, if not as many as all
    warm_up: bool = True
    before_round: Callable = field(default=lambda: None)


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values):
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Result:
    """A row that was measured. Value and ratio are None if nothing was."""

    scenario: str
    row: Row
    value: Optional[Spread]
    peer_value: Optional[Spread]
    ratio: Optional[Spread]

    @property
    def outcome(self):
        if self.row.aim is None:
            return "-"
        judged = self.ratio if self.row.peer else self.value
        if judged is None:
            return "not measured"
        return "met" if self.row.aim.is_met(judged.median) else "missed"


@dataclass(frozen=True)
class Record:
    """A single value."""

    scenario: str
    case: str
    metric: str
    contender: str
    run: int
    value: float


def rounds(scenario, case, runs, progress):
    """Every single value."""
    records = []
    for run in range(-1 if case.warm_up else 0, case.runs or runs):
        case.before_round()
        for contender, function in case.contenders.items():
            progress(f"{scenario}: {case.title}, round {max(run + 1, 0)} of {case.runs or runs}, {contender}")
            values = function()
            if run < 0:
                continue
            for metric, value in (values if isinstance(values, dict) else {"": values}).items():
                records.append(Record(scenario, case.title, metric, contender, run, value))
    return records


def results(scenario, case, records):
    """The rows of a case."""
    series = {}
    for record in records:
        series.setdefault((record.contender, record.metric), []).append(record.value)

    def result(row):
        ours = series.get((row.contender, row.metric))
        if row.beyond and ours:
            ours = [max(0.0, mine - its) for mine, its in zip(ours, series[(row.beyond, row.metric)])]
        metric = row.metric if row.peer_metric is None else row.peer_metric
        theirs = series.get((row.peer, metric))
        ratio = None
        if ours and theirs and min(theirs) > 0:
            ratio = Spread.of([mine / (its * row.per) for mine, its in zip(ours, theirs)])
        return Result(scenario, row, Spread.of(ours) if ours else None, Spread.of(theirs) if theirs else None, ratio)

    return [result(row) for row in case.rows]
