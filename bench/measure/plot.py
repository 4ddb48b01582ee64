"""Plots as SVG: bars with their intervals, nothing but text written to a file.

One plot for each measure of a benchmark.  Where all contenders have one yardstick
the bars are ratios, and a line at 1 is that yardstick; else they are plain
values.  What has a bar to reach is dark.  No script, no style sheet, no font but the viewer's: it has to look the
same wherever a Markdown file is shown.
"""

from html import escape

from .figures import number

WIDTH = 760
LEFT = 170              # of the bars; labels stand before it
RIGHT = 150             # room for the values behind them
BAR = 16
GAP = 5
GROUP_GAP = 14
TOP = 58
OURS = "#1f6f8b"
OTHERS = "#b8c4cc"
INK = "#22303a"
FAINT = "#8494a0"
FONT = "font-family=\"Helvetica, Arial, sans-serif\""


def plots(rows):
    """{(benchmark, measure): SVG text} of a table's rows."""
    groups = {}
    for row in rows:
        groups.setdefault((row.benchmark, row.measure), []).append(row)
    return {key: bars(*key, some) for key, some in groups.items()}


def bars(benchmark, measure, rows):
    """One plot."""
    as_ratio = _has_one_yardstick(rows)
    shown = [row for row in rows if row.ratio is not None] if as_ratio else rows
    extents = [_extent(row, as_ratio) for row in shown]
    limit = _nice(max([high for _, _, high in extents] + [1.0 if as_ratio else 0.0]))
    scale = (WIDTH - LEFT - RIGHT) / limit

    title = f"{benchmark}: {measure}"
    if as_ratio:
        title += f", as a ratio to {shown[0].against}"
    parts, y, case = [], TOP, None
    for row, extent in zip(shown, extents):
        if row.case != case:
            y += GROUP_GAP if case is not None else 0
            case = row.case
            parts.append(_text(LEFT - 12, y + BAR - 3, case, INK, "end", bold=True))
            y += BAR + GAP
        parts.append(_bar(row, extent, y, scale, as_ratio))
        y += BAR + GAP

    height = y + 34
    parts.append(_axis(limit, scale, height - 30))
    if as_ratio:
        parts.insert(0, _line(LEFT + scale, TOP - 6, LEFT + scale, height - 30, INK, "4 3"))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" {FONT} font-size="12">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
            f'<text x="16" y="26" font-size="15" font-weight="bold" fill="{INK}">{escape(title)}</text>\n'
            f'<text x="16" y="43" fill="{FAINT}">{escape(_subtitle(shown))}</text>\n'
            + "\n".join(parts) + "\n</svg>\n")


def _has_one_yardstick(rows):
    """Is every row either the one that the others are compared with, or compared with it?"""
    against = {row.against for row in rows if row.ratio is not None}
    return len(against) == 1 and all(row.contender in against for row in rows if row.ratio is None)


def _extent(row, as_ratio):
    if as_ratio:
        return row.ratio, row.ratio_low, row.ratio_high
    return row.median, row.low, row.high


def _bar(row, extent, y, scale, as_ratio):
    value, low, high = extent
    colour = OURS if row.bar or row.contender == "stripe_lifecycle" else OTHERS
    middle = y + BAR / 2
    label = f"{row.contender}"
    text = f"{number(row.median)} {row.unit}"
    if as_ratio:
        text = f"{value:.2f}   {text}"
    parts = [
        _text(LEFT - 12, y + BAR - 4, label, INK, "end"),
        f'<rect x="{LEFT}" y="{y}" width="{max(value * scale, 0.5):.1f}" height="{BAR}" fill="{colour}"/>',
        _text(LEFT + max(value, high) * scale + 8, y + BAR - 4, text, INK, "start"),
    ]
    if row.rounds > 1:
        parts.append(_line(LEFT + low * scale, middle, LEFT + high * scale, middle, INK))
        parts += [_line(LEFT + x * scale, middle - 3, LEFT + x * scale, middle + 3, INK)
                  for x in (low, high)]
    return "\n".join(parts)


def _axis(limit, scale, y):
    steps = [limit * n / 4 for n in range(5)]
    parts = [_line(LEFT, y, LEFT + limit * scale, y, FAINT)]
    for step in steps:
        parts.append(_line(LEFT + step * scale, y, LEFT + step * scale, y + 4, FAINT))
        parts.append(_text(LEFT + step * scale, y + 17, f"{step:g}", FAINT, "middle"))
    return "\n".join(parts)


def _subtitle(rows):
    rounds = {row.rounds for row in rows}
    if max(rounds) == 1:
        return "one measurement"
    return f"medians of {max(rounds)} rounds; the thin line is from where to where the median may be"


def _nice(value):
    """The smallest of 1, 1.2, 1.6, 2, 3, 4, 6, 8 times a power of ten that is no less."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * step for step in (1, 1.2, 1.6, 2, 3, 4, 6, 8, 10) if power * step >= value)


def _text(x, y, text, colour, anchor, bold=False):
    weight = ' font-weight="bold"' if bold else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"{weight} '
            f'xml:space="preserve">{escape(text)}</text>')


def _line(x1, y1, x2, y2, colour, dashes=None):
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{colour}"{dash}/>')
