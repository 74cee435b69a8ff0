"""`brainseg models`."""

from typing import Any

from jsonargparse.typing import PositiveInt

from brainseg.cli.parser import Parser


def parser() -> Parser:
    """Its options."""
    models = Parser(description="List the networks and what an image costs; training MiB: its kept activations.")
    models.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")
    models.add_argument("--size", type=PositiveInt, default=256, help="side of the image in pixels")
    return models


def run(options: Any) -> None:
    """Runs it."""
    import torch
    from rich.table import Table

    from brainseg.models import create_model, list_models, summary
    from brainseg.report.screen import print_table

    names = list_models(options.pattern)
    if not names:
        raise ValueError(f"no network is called {options.pattern}; there are {', '.join(list_models())}")
    table = Table("name", "class", title=f"One image of {options.size}x{options.size}")
    for header in ("parameters", "GMACs", "GFLOPs", "training MiB"):
        table.add_column(header, justify="right")
    for name in names:
        with torch.device("meta"):
            model = create_model(name)
        costs = summary(model, (options.size, options.size))
        counts = (f"{costs.parameters:,}", f"{costs.macs / 1e9:.4f}", f"{costs.flops / 1e9:.4f}")
        table.add_row(name, type(model).__name__, *counts, f"{costs.activation_bytes / 2**20:.1f}")
    print_table(table)
