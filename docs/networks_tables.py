"""Writes the tables of docs/networks.md and draws docs/networks.png, from what docs/networks keeps.

    python docs/networks_tables.py

`python -m docs.networks.score` makes patients.csv and trained.csv, `python -m docs.networks.gradients` gradients.csv,
`brainseg benchmark` benchmark.json; docs/networks/README.md has the commands.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from docs import recipe_tables
from docs.blocks import with_blocks

from brainseg.metrics import compare, confidence_interval
from brainseg.models import list_models
from brainseg.report import read_rows

HERE = Path(__file__).parent
TABLES = HERE / "networks"
PAGE = HERE / "networks.md"
PICTURE = HERE / "networks.png"
REFERENCE = "unext"
# What a name takes in the picture: below this difference of Dice and this ratio of rates two of them would overlap.
LINE, WORD = 0.04, 1.25
NOT_RUN, NOT_MEASURED = "not run", "not measured"


class Network(NamedTuple):
    """A row of the tables.

    Attributes:
        name: how it is called.
        model: how `find_network` finds it.
    """

    name: str
    model: str

    @property
    def is_peer(self) -> bool:
        return self.name.partition(" ")[0] in ("MONAI", "smp")

    @property
    def shown(self) -> str:
        return self.name if self.is_peer else f"`{self.name}`"


def networks() -> list[Network]:
    """Those of runs.csv, and the registered ones beyond them."""
    compared = [Network(row["network"], row["model"]) for row in read_rows(TABLES / "runs.csv")]
    return compared + [Network(name, name) for name in list_models() if name not in {x.name for x in compared}]


def patients() -> list[dict[str, str]]:
    return read_rows(TABLES / "patients.csv")


def dice(network: str, column: str = "whole", among: set[str] | None = None) -> dict[str, float]:
    """Of each patient, or of some; nothing for a network that was not run."""
    return {
        row["patient"]: float(row[column])
        for row in patients()
        if row["network"] == network and (among is None or row["patient"] in among)
    }


def mean(scores: dict[str, float]) -> str:
    return recipe_tables.mean(scores) if scores else NOT_RUN


def difference(scores: dict[str, float], reference: dict[str, float]) -> str:
    if not scores or not reference:
        return NOT_RUN
    if scores == reference:
        return ""
    found = compare(scores, reference)
    return f"{found.difference:+.3f} ({found.lower:+.3f} to {found.upper:+.3f})"


def measured(network: Network) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Its rows of the benchmark: as it is, and optimized."""
    path = TABLES / "benchmark.json"
    if not path.exists():
        return None, None
    (table,) = json.loads(path.read_text())["tables"]
    rows = {row["name"]: row for row in table["rows"] if row["status"] == "measured"}
    return rows.get(network.model), rows.get(f"{network.model}, optimized")


def scores() -> str:
    lines = ["| network | GMACs | Dice (95 % interval) | difference to `unext` | median | part around the head |"]
    lines.append("|---|---:|---|---|---:|---|")
    for network in networks():
        found, (plain, _) = dice(network.name), measured(network)
        operations = NOT_MEASURED if plain is None else f"{plain['facts']['GMACs']:.4f}"
        middle = f"{median(found.values()):.3f}" if found else NOT_RUN
        cells = [network.shown, operations, mean(found), difference(found, dice(REFERENCE)), middle]
        lines.append(f"| {' | '.join([*cells, mean(dice(network.name, 'part'))])} |")
    return "\n".join(lines)


def institutions() -> dict[str, set[str]]:
    """Their patients."""
    members: dict[str, set[str]] = {}
    for row in patients():
        members.setdefault(row["institution"], set()).add(row["patient"])
    return dict(sorted(members.items()))


def sizes() -> dict[str, set[str]]:
    """The half of the patients with the smaller tumours, and the other."""
    pixels = {row["patient"]: int(row["tumour"]) for row in patients()}
    ordered = sorted(pixels, key=lambda patient: pixels[patient])
    half = len(ordered) // 2
    small, large = ordered[:half], ordered[half:]
    return {
        f"up to {pixels[small[-1]]:,} pixels": set(small),
        f"{pixels[large[0]]:,} pixels and more": set(large),
    }


def by_institution() -> str:
    groups = institutions()
    titles = [f"{name} ({len(members)})" for name, members in groups.items()]
    lines = [f"| network | {' | '.join(titles)} |", f"|---|{'---:|' * len(groups)}"]
    for network in networks():
        found = [dice(network.name, among=members) for members in groups.values()]
        cells = [f"{fmean(values.values()):.3f}" if values else NOT_RUN for values in found]
        lines.append(f"| {network.shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_size() -> str:
    groups = sizes()
    titles = [title for name in groups for title in (name, "difference to `unext`")]
    lines = [f"| network | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    for network in networks():
        cells = []
        for members in groups.values():
            found = dice(network.name, among=members)
            cells += [mean(found), difference(found, dice(REFERENCE, among=members))]
        lines.append(f"| {network.shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def costs() -> str:
    titles = ["parameters", "GMACs", "ms an image", "images a second", "peak MiB"]
    titles += ["`optimize`: ms an image", "images a second", "peak MiB", "processor seconds a training step"]
    lines = [f"| network | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    trained = {row["network"]: float(row["seconds"]) / int(row["step"]) for row in read_rows(TABLES / "trained.csv")}
    for network in networks():
        plain, fast = measured(network)
        facts = [NOT_MEASURED] * 2
        if plain is not None:
            facts = [f"{plain['facts']['parameters']:,}", f"{plain['facts']['GMACs']:.4f}"]
        step = f"{trained[network.name]:.2f}" if network.name in trained else NOT_RUN
        cells = [*facts, *_speed(plain), *_speed(fast), step]
        lines.append(f"| {network.shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _speed(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return [NOT_MEASURED] * 3
    peak = NOT_MEASURED if row["peak_mib"] is None else f"{row['peak_mib']:.1f}"
    return [f"{row['median_ms']:.1f}", f"{row['images_per_second']:.1f}", peak]


def gradients() -> str:
    rows = read_rows(TABLES / "gradients.csv")
    shown = {network.name: network.shown for network in networks()}
    cosines = [f"{float(row['cosine']):.3f}" for row in rows]
    lines = [f"| {' | '.join(shown[row['network']] for row in rows)} |", f"|{'---:|' * len(rows)}"]
    return "\n".join([*lines, f"| {' | '.join(cosines)} |"])


DRAWN: dict[str, Callable[[], str]] = {
    function.__name__: function for function in (scores, by_institution, by_size, costs, gradients)
}


def with_tables(page: str) -> str:
    """The page with every table as it comes out now."""
    return with_blocks(page, lambda name, _: DRAWN[name]())


class Point(NamedTuple):
    """A network in the picture.

    Attributes:
        network: which.
        rate: images a second as it is.
        optimized: likewise, optimized; None where that was not measured.
        dice: mean over the patients.
        lower: of its interval.
        upper: likewise.
    """

    network: Network
    rate: float
    optimized: float | None
    dice: float
    lower: float
    upper: float


def points() -> list[Point]:
    """The networks that were trained and timed."""
    found = []
    for network in networks():
        values, (plain, fast) = dice(network.name), measured(network)
        if values and plain is not None:
            interval = confidence_interval(values)
            rate = None if fast is None else fast["images_per_second"]
            where = (plain["images_per_second"], rate, fmean(values.values()), interval.lower, interval.upper)
            found.append(Point(network, *where))
    return found


def draw(path: Path) -> None:
    """Dice against images a second, of each network as it is and as `optimize` makes it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    figure = Figure(figsize=(8, 5), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    drawn = points()
    for point in drawn:
        colour, marker = ("#c2571a", "s") if point.network.is_peer else ("#1f5fa8", "o")
        error = [[point.dice - point.lower], [point.upper - point.dice]]
        axes.errorbar(point.rate, point.dice, error, fmt=marker, color=colour, elinewidth=0.8, capsize=2)
        below = any(
            other.dice > point.dice > other.dice - LINE and 1 / WORD < other.rate / point.rate < WORD for other in drawn
        )
        place, where = (point.rate, point.dice), (5, -11 if below else 5)
        axes.annotate(point.network.name, place, where, textcoords="offset points", color=colour, fontsize=8)
        if point.optimized is not None:
            axes.plot([point.rate, point.optimized], [point.dice] * 2, ":", color=colour, linewidth=0.8)
            axes.plot(point.optimized, point.dice, marker, color=colour, fillstyle="none")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([10, 15, 20, 30, 50, 75, 100, 150, 200]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("images a second, 256x256, batch 1, 2 CPU threads (hollow: optimize(model))")
    axes.set_ylabel("mean Dice of 16 unseen patients, 95 % interval")
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    figure.savefig(path)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
    draw(PICTURE)
