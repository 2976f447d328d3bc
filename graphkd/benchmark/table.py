"""Tables on the terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], width: int = 120) -> None:
    """Print rows of cells; the first column is text, the others are numbers.

    Args:
        title: What stands above.
        columns: What heads each column.
        rows: A cell per column.
        width: In characters, where the output is no terminal that has its own.
    """
    table = Table(title=title)
    for column in columns:
        first = column == columns[0]
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else width).print(table)
