"""Printing for people: tables that cut nothing off, and text of others made harmless."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Wider than any table: what reads a pipe folds by itself.
_PIPE_WIDTH = 2_000


def table(*columns: str) -> Table:
    """A table with these headings; cells too long for the terminal are folded, never cut."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def row(made: Table, *cells: object) -> None:
    """Add a row; the cells are plain text, whatever they hold."""
    made.add_row(*(Text(printable(str(cell))) for cell in cells))


def show(made: Table) -> None:
    """Print to stdout."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(file=sys.stdout, width=width).print(made)


def printable(text: str) -> str:
    """`text` on one line, without control characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def figure(value: object) -> str:
    """A number for people, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
