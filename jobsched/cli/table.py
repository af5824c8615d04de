"""Tables: coloured and cut to fit at a terminal, plain aligned text elsewhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from jobsched.cli.output import clean, console, is_terminal, say

__all__ = ["print_table"]


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    elastic: Sequence[str] = (),
    wrapped: Sequence[str] = (),
    styles: Mapping[str, str] | None = None,
) -> None:
    """Print rows under their columns.

    `right` are the columns of numbers. At a terminal the `elastic` ones are cut where the line is
    too long, the `wrapped` ones go on in the next line, and cells with a text of `styles` are
    coloured; elsewhere nothing is cut or coloured.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    if is_terminal():
        _print_rich(columns, cells, right=right, elastic=elastic, wrapped=wrapped, styles=styles or {})
    else:
        for line in _aligned([list(columns), *cells], [name in right for name in columns]):
            say(line)


def _aligned(rows: list[list[str]], right: list[bool]) -> Iterable[str]:
    """Yield rows as lines, their columns as wide as the widest cell."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [
            " " * (width - _width(cell)) + cell if to_right else cell + " " * (width - _width(cell))
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        yield "  ".join(padded).rstrip()


def _width(text: str) -> int:
    """Return how many columns a text takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def _print_rich(
    columns: Sequence[str],
    rows: list[list[str]],
    *,
    right: Sequence[str],
    elastic: Sequence[str],
    wrapped: Sequence[str],
    styles: Mapping[str, str],
) -> None:
    from rich.table import Table  # noqa: PLC0415 (slow to import)
    from rich.text import Text  # noqa: PLC0415

    screen = console()
    widths = [max(map(_width, column)) for column in zip(columns, *rows, strict=True)]
    gap = 2 if sum(widths) + 2 * len(widths) <= screen.width else 1
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for name, width in zip(columns, widths, strict=True):
        table.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="ellipsis",
            no_wrap=name not in (*elastic, *wrapped),  # rich takes room only from those that may wrap
            min_width=None if name in (*elastic, *wrapped) else width,
        )
    for row in rows:
        cells = zip(columns, row, strict=True)
        table.add_row(
            *(
                Text(cell, styles.get(cell, ""), no_wrap=name not in wrapped, overflow="ellipsis")
                for name, cell in cells
            )
        )
    screen.print(table)
