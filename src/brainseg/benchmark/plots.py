"""The pictures of a report, made from its JSON values."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg.benchmark.growth import find_growth, parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Networks in settings: images a second against batch, latency against parameters, growth; else bars of ratios.

    Args:
        report: of `create_report`.
        path: of an SVG file.

    Raises:
        ImportError: no matplotlib.
    """
    figure = _of_networks(report["tables"]) if _has_networks(report["tables"]) else _bars(report["tables"])
    figure.savefig(path, format="svg", metadata={"Date": None})


def create_figure(**arguments: Any) -> "Figure":
    """An empty figure of matplotlib.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'the plots of a benchmark need matplotlib: pip install "brainseg-torch[train]"', name="matplotlib"
        ) from error
    return Figure(layout="constrained", **arguments)


def _has_networks(tables: Sequence[Mapping[str, Any]]) -> bool:
    return any({"batch", "size"} <= table["labels"].keys() for table in tables)


def _of_networks(tables: Sequence[Mapping[str, Any]]) -> "Figure":
    """A row of panels for each device, mode and size, and one for each growth."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for table in tables:
        labels = table["labels"]
        groups[f"{labels['mode']} on {labels['device']}, {labels['size']}x{labels['size']}"].append(table)
    growths = parts(find_growth(tables))
    rows = len(groups) + -(-len(growths) // 2)
    figure = create_figure(figsize=(11, 4 * rows))
    panels = figure.subplots(rows, 2, squeeze=False)
    for (throughput, latency), (title, group) in zip(panels, groups.items(), strict=False):
        _throughput(throughput, group, title)
        _latency(latency, group, title)
    free = list(panels[len(groups) :].flat)
    for ax, (title, growth) in zip(free, growths.items(), strict=False):
        for one in growth:
            ax.loglog(one.counts, one.milliseconds, marker="o", label=f"{one.name}: {one.slope:.3f}")
        _finish(ax, title, growth[0].against, "ms")
    for ax in free[len(growths) :]:
        ax.set_axis_off()
    return figure


def _throughput(ax: "Axes", tables: Sequence[Mapping[str, Any]], title: str) -> None:
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for table in tables:
        for row in table["rows"]:
            if row["images_per_second"] is not None:
                lines[row["name"]].append((table["labels"]["batch"], row["images_per_second"]))
    for name, points in lines.items():
        ax.loglog(*zip(*sorted(points), strict=True), marker="o", label=name)
    _finish(ax, title, "images a batch", "images a second")
    ticks = sorted({table["labels"]["batch"] for table in tables})
    ax.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    ax.minorticks_off()


def _latency(ax: "Axes", tables: Sequence[Mapping[str, Any]], title: str) -> None:
    smallest = min(tables, key=lambda table: int(table["labels"]["batch"]))
    for row in smallest["rows"]:
        if row["median_ms"] is not None and "parameters" in row["facts"]:
            x = row["facts"]["parameters"]
            ax.errorbar(x, row["median_ms"], [[0], [row["p95_ms"] - row["median_ms"]]], marker="o", label=row["name"])
    ax.set_xscale("log")
    ax.set_yscale("log")
    _finish(ax, f"{title}, batch {smallest['labels']['batch']}", "parameters", "ms, p50 to p95")


def _finish(ax: "Axes", title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(x, fontsize=8)
    ax.set_ylabel(y, fontsize=8)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=7)
    else:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center")


def _bars(tables: Sequence[Mapping[str, Any]]) -> "Figure":
    """A bar for each ratio, with its quartiles."""
    figure = create_figure(figsize=(8, 0.6 + 0.4 * sum(len(table["rows"]) + 2 for table in tables)))
    axes = figure.subplots(len(tables), 1, squeeze=False)[:, 0]
    for ax, table in zip(axes, tables, strict=True):
        rows = [row for row in table["rows"] if row["ratio"] is not None][::-1]
        ratios = [row["ratio"] for row in rows]
        # The ratio of medians may lie outside the quartiles of the rounds' ratios.
        spread = [
            [max(0.0, row["ratio"] - row["ratio_quartiles"][0]) for row in rows],
            [max(0.0, row["ratio_quartiles"][1] - row["ratio"]) for row in rows],
        ]
        ax.barh([row["name"] for row in rows], ratios, xerr=spread)
        ax.axvline(1, color="black", linewidth=0.8)
        ax.set_title(table["title"], fontsize=9)
        ax.set_xlabel(f"time over that of {table['rows'][0]['name']}", fontsize=8)
    return figure
