"""Numbers of rounds, and what may be said of them: medians, ratios, intervals.

A machine's seconds say little and vary from minute to minute.  So contenders
take turns, and what counts is the ratio inside one round; of several rounds the
median.  How far that can be trusted is shown by an interval between two of the
rounds, which leaves out the true median in at most one case of twenty, whatever
the distribution: it is a coin's toss on which side of the median a round falls.
Five rounds or fewer can't promise as much; then it is smallest to largest.
"""

import csv
import math
import statistics
from collections import defaultdict
from dataclasses import astuple, dataclass, fields


def interval(values, confidence=0.95):
    """From which to which of the values the median lies, with that confidence."""
    ordered = sorted(values)
    n = len(ordered)
    outside = 0.0           # chance that fewer than `skip` + 1 values lie below the median, or above
    skip = -1
    while skip + 1 < n / 2:
        outside += 2 * math.comb(n, skip + 1) / 2 ** n
        if outside > 1 - confidence:
            break
        skip += 1
    skip = max(skip, 0)
    return ordered[skip], ordered[n - 1 - skip]


@dataclass
class Row:
    """One line of the table."""

    benchmark: str
    case: str
    contender: str
    measure: str
    unit: str
    median: float
    low: float
    high: float
    rounds: int
    against: str = ""
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    bar: str = ""
    holds: str = ""


class Figures:
    """All values of a run, and the rows made of them."""

    def __init__(self, show=print):
        self.values = defaultdict(list)     # (benchmark, case, contender, measure): one a round
        self.rows = []
        self.notes = []
        self._show = show
        self._heading = None

    def add(self, benchmark, case, contender, measures):
        """Takes one round's {measure: value} of a contender."""
        for measure, value in measures.items():
            self.values[benchmark, case, contender, measure].append(float(value))

    def of(self, benchmark, case, contender, measure):
        """The values of all rounds so far."""
        return self.values[benchmark, case, contender, measure]

    def row(self, benchmark, case, contender, measure, unit, *,
            against=None, of_case=None, bar=None):
        """Adds and shows a line of the table.

        against names the contender the ratio is to (in case of_case, if that is
        another), round by round.  bar is what the median ratio should be, such as
        ('>=', 0.9).
        """
        mine = self.of(benchmark, case, contender, measure)
        row = Row(benchmark, case, contender, measure, unit,
                  statistics.median(mine), *interval(mine), len(mine))
        if against is not None:
            other = self.of(benchmark, of_case or case, against, measure)
            ratios = [a / b for a, b in zip(mine, other, strict=True)]
            row.against = against if of_case is None else f"{against}, {of_case}"
            row.ratio = statistics.median(ratios)
            row.ratio_low, row.ratio_high = interval(ratios)
        if bar is not None:
            sign, limit = bar
            measured = row.median if row.ratio is None else row.ratio
            row.bar = f"{sign} {limit:g}"
            row.holds = "yes" if (measured >= limit if sign == ">=" else measured <= limit) else "NO"
        self.rows.append(row)
        self._print(row)
        return row

    def note(self, text):
        """Something a reader of the table should know."""
        self.notes.append(text)
        self._show(f"  note: {text}")

    def _print(self, row):
        if self._heading != row.benchmark:
            self._heading = row.benchmark
            self._show(f"\n{row.benchmark}")
            self._show(table_line(*TABLE_HEADER))
        self._show(table_line(*table_cells(row)))


TABLE_HEADER = ("case", "contender", "measure", "median", "ratio", "95 % of ratio", "to", "bar", "")


def table_cells(row):
    """A row as text, for the terminal and for Markdown."""
    ratio = spread = ""
    if row.ratio is not None:
        ratio = f"{row.ratio:.2f}"
        spread = f"{row.ratio_low:.2f} to {row.ratio_high:.2f}"
    return (row.case, row.contender, row.measure, f"{number(row.median)} {row.unit}".rstrip(),
            ratio, spread, row.against, row.bar, row.holds)


def table_line(case, contender, measure, median, ratio, spread, against, bar, holds):
    """One line for the terminal."""
    return (f"  {case:<18} {contender:<22} {measure:<26} {median:>14} {ratio:>7} {spread:>14}"
            f"  {against:<20} {bar:>7} {holds}").rstrip()


def number(value):
    """Three significant digits, or whole numbers."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def write_csv(figures, path, rounds_path):
    """The table, and every round's value."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(field.name for field in fields(Row))
        for row in figures.rows:
            out.writerow("" if value is None else f"{value:.6g}" if isinstance(value, float)
                         else value for value in astuple(row))
    with open(rounds_path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("benchmark", "case", "contender", "measure", "round", "value"))
        for key, values in figures.values.items():
            for n, value in enumerate(values, 1):
                out.writerow((*key, n, f"{value:.6g}"))


def write_markdown(figures, path, about):
    """The table as Markdown, with what it was measured on."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(about + "\n")
        benchmark = None
        for row in figures.rows:
            if row.benchmark != benchmark:
                benchmark = row.benchmark
                file.write(f"\n**{benchmark}**\n\n| " + " | ".join(TABLE_HEADER) + " |\n")
                file.write("| --- | --- | --- | ---: | ---: | --- | --- | --- | --- |\n")
            file.write("| " + " | ".join(table_cells(row)) + " |\n")
        if figures.notes:
            file.write("\n" + "".join(f"- {note}\n" for note in figures.notes))


def take_turns(figures, benchmark, case, contenders, rounds, show):
    """Runs every contender once a round; who begins moves on from round to round.

    contenders is {name: function that returns {measure: value}}.
    """
    names = list(contenders)
    for n in range(rounds):
        order = names[n % len(names):] + names[:n % len(names)]
        for name in order:
            show(f"{benchmark}, {case}: round {n + 1} of {rounds}, {name}")
            figures.add(benchmark, case, name, contenders[name]())
