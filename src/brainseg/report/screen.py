"""Tables on the screen."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def print_table(table: Table) -> None:
    """Prints a table as wide as it needs, however narrow the terminal: a name that is cut is none."""
    console = Console(markup=False)
    width = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    # A console prints nothing wider than itself.
    Console(markup=False, width=max(width, console.width)).print(table, no_wrap=True, crop=False)
