"""Draws surface.png and lesions.png: what is measured of surfaces, and how lesions are counted.

python docs/metrics/pictures.py
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

from brainseg.data import phantom
from brainseg.metrics.functional import dice_score, lesion_detection, surface_metrics
from brainseg.metrics.functional.surface import boundary

FOLDER = Path(__file__).parent
# Okabe and Ito's colours, which differ for every kind of colour vision.
BLUE, ORANGE, VERMILION, GREEN, GRAY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "0.45"
PALE_BLUE, PALE_ORANGE = "#9ecae1", "#fdd49e"
TOLERANCE, PERCENTILE = 2.0, 95.0
SIDE = 44


def disc(row: float, column: float, radius: float, side: int = SIDE) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray(np.hypot(rows - row, columns - column) < radius)


def surface_masks() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A prediction that is a little off all round and has a thin spur, and its target."""
    target = disc(24, 20, 12.5)
    prediction = disc(23, 21.5, 11.5)
    prediction[14:16, 30:38] = True
    return prediction, target


def as_batch(mask: NDArray[np.bool_]) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None]


def edge(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N, 2) rows and columns of the boundary pixels."""
    return np.argwhere(boundary(as_batch(mask))[0, 0].numpy())


def show_slice(axes: Axes) -> None:
    """A part of a phantom, pale, behind the boundaries."""
    image = phantom(3, size=256, lesion=False).image[1, 100 : 100 + SIDE, 90 : 90 + SIDE]
    axes.imshow(0.75 + 0.25 * image / image.max(), cmap="gray", vmin=0, vmax=1)
    axes.set(xlim=(4.5, 40.5), ylim=(42.5, 7.5), xticks=[], yticks=[])


def draw_pixels(axes: Axes, pixels: NDArray[np.int64], color: str, face: str) -> None:
    for row, column in pixels:
        place = (column - 0.42, row - 0.42)
        axes.add_patch(plt.Rectangle(place, 0.84, 0.84, facecolor=face, edgecolor=color, linewidth=1.1))


def draw_distances(
    axes: Axes, predicted: NDArray[np.int64], true: NDArray[np.int64], pairs: NDArray[np.float64]
) -> None:
    show_slice(axes)
    common = {tuple(p) for p in predicted} & {tuple(p) for p in true}
    for pixels, others, distances, color, pale in (
        (true, predicted, pairs.T, BLUE, PALE_BLUE),
        (predicted, true, pairs, VERMILION, PALE_ORANGE),
    ):
        draw_pixels(axes, np.array([p for p in pixels if tuple(p) not in common]), color, pale)
        lines = np.stack([pixels, others[distances.argmin(1)]], 1)[..., ::-1]
        axes.add_collection(LineCollection(list(lines), colors=color, linewidths=1.4, zorder=3))
    draw_pixels(axes, np.array(sorted(common)), "0.25", "0.25")
    handles = [
        Patch(facecolor=PALE_BLUE, edgecolor=BLUE, label="target's boundary"),
        Patch(facecolor=PALE_ORANGE, edgecolor=VERMILION, label="prediction's boundary"),
        Patch(color="0.25", label="both: distance 0"),
    ]
    axes.legend(handles=handles, loc="lower right", fontsize=9, framealpha=0.95)
    axes.set_title("Each boundary pixel and the nearest of the other boundary", fontsize=11)


def draw_histogram(axes: Axes, sides: dict[str, tuple[NDArray[np.float64], str]], scores: tuple[float, float]) -> None:
    bins = np.arange(-0.25, 9.26, 0.5)
    axes.hist(
        [distances for distances, _ in sides.values()],
        bins=bins,
        color=[color for _, color in sides.values()],
        label=[f"{name} ({len(distances)} pixels)" for name, (distances, _) in sides.items()],
    )
    top = axes.get_ylim()[1]
    (true, _), (predicted, color) = sides.values()
    # What counts is the larger side, here the prediction's; the other is marked thinly.
    if not np.allclose(scores, (predicted.max(), np.percentile(predicted, PERCENTILE)), atol=1e-4):
        raise AssertionError("the picture measures other distances than the library")
    for value, name, height, style in ((scores[1], "HD95", 0.42, "--"), (scores[0], "HD", 0.56, "-")):
        axes.plot([value, value], [0, height * top], color=color, linestyle=style, linewidth=2.4)
        text = f"{name} = {value:.2f}"
        axes.text(value, (height + 0.02) * top, text, color=color, ha="center", fontsize=11, weight="bold")
    text = f"target: 95 % at {np.percentile(true, PERCENTILE):.2f}, max {true.max():.2f}"
    axes.text(3.3, 0.7 * top, text, color=BLUE, fontsize=10)
    axes.annotate("", (true.max(), 0), (true.max(), 0.7 * top), arrowprops={"arrowstyle": "-", "color": BLUE})
    axes.set(xlabel="directed distance (pixels)", ylabel="boundary pixels", xlim=(-0.4, 9.6))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=9, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("HD95: the larger of the two 95th percentiles", fontsize=11)


def draw_tolerance(axes: Axes, sides: list[tuple[NDArray[np.int64], NDArray[np.float64]]], score: float) -> None:
    show_slice(axes)
    outside = {tuple(p) for pixels, distances in sides for p in pixels[distances > TOLERANCE]}
    within = {tuple(p) for pixels, distances in sides for p in pixels[distances <= TOLERANCE]}
    draw_pixels(axes, np.array(sorted(within)), GREEN, GREEN)
    draw_pixels(axes, np.array(sorted(outside)), ORANGE, "white")
    for row, column in outside:
        axes.plot(column, row, marker="x", color="black", markersize=4, markeredgewidth=1.1)
    near = sum(int((distances <= TOLERANCE).sum()) for _, distances in sides)
    total = sum(len(distances) for _, distances in sides)
    handles = [
        Patch(color=GREEN, label=f"within {TOLERANCE:g} pixels: {near}"),
        Line2D([], [], marker="x", color="black", linestyle="", label=f"farther: {total - near}"),
    ]
    axes.legend(handles=handles, loc="lower right", fontsize=9, framealpha=0.95)
    axes.set_title(f"NSD: {near} of {total} boundary pixels = {score:.3f}", fontsize=11)


def draw_average(axes: Axes, sides: dict[str, tuple[NDArray[np.float64], str]], scores: tuple[float, ...]) -> None:
    """The same distances in order, which shows what each number is taken from."""
    for name, (distances, color) in sides.items():
        shares = 100 * np.arange(1, len(distances) + 1) / len(distances)
        axes.step(np.sort(distances), shares, where="post", color=color, linewidth=1.8, label=name)
    axes.axhline(PERCENTILE, color=GRAY, linestyle="--", linewidth=1)
    axes.text(9.5, 92, "95 %", color=GRAY, ha="right", va="top", fontsize=9)
    axes.axvline(TOLERANCE, color=GREEN, linewidth=1.6)
    axes.text(TOLERANCE + 0.15, 8, "tolerance of NSD", color=GREEN, fontsize=10)
    axes.axvline(scores[2], color="black", linewidth=1.6, linestyle=":")
    axes.text(TOLERANCE + 0.15, 22, f"ASSD = {scores[2]:.2f}, the mean of all", color="black", fontsize=10)
    axes.set(xlabel="directed distance (pixels)", ylabel="% of the boundary up to it", xlim=(-0.4, 9.6), ylim=(0, 102))
    axes.legend(fontsize=9, loc="center right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("The same distances, counted up", fontsize=11)


def draw_surface() -> None:
    prediction, target = surface_masks()
    predicted, true = edge(prediction), edge(target)
    pairs = cdist(predicted, true)
    far, near = (
        surface_metrics(as_batch(prediction), as_batch(target), percentile=q, tolerance=TOLERANCE)
        for q in (100, PERCENTILE)
    )
    sides = {"from the target": (pairs.min(0), BLUE), "from the prediction": (pairs.min(1), VERMILION)}
    figure, axes = plt.subplots(2, 2, figsize=(10, 9.2), layout="constrained", height_ratios=(10, 8))
    draw_distances(axes[0, 0], predicted, true, pairs)
    draw_tolerance(axes[0, 1], [(true, pairs.min(0)), (predicted, pairs.min(1))], near.surface_dice.item())
    draw_histogram(axes[1, 0], sides, (far.hausdorff.item(), near.hausdorff.item()))
    draw_average(axes[1, 1], sides, (0, 0, near.average_distance.item()))
    dice = dice_score(as_batch(prediction), as_batch(target)).item()
    figure.suptitle(f"One slice, Dice {dice:.3f}: a border that is a little off, and a thin spur", fontsize=13)
    figure.savefig(FOLDER / "surface.png", dpi=100)


def lesion_masks() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    target = disc(11, 11, 6.5) | disc(11, 31, 4.5) | disc(30, 9, 4.5) | disc(32, 25, 4.2) | disc(31.5, 36, 5.1)
    prediction = disc(12, 12, 6) | disc(15, 36, 3.2) | disc(20, 23, 2.7)
    prediction[29:36, 22:40] = True
    return prediction, target


def matches(
    components: NDArray[np.int32], lesions: NDArray[np.int32], iou_threshold: float | None
) -> list[tuple[int, int]]:
    """Pairs of a component and a lesion that count as found; the picture's own, checked against the library."""
    pairs = []
    for component in range(1, components.max() + 1):
        for lesion in range(1, lesions.max() + 1):
            one, other = components == component, lesions == lesion
            pairs.append(((one & other).sum() / (one | other).sum(), component, lesion))
    if iou_threshold is None:
        return [(component, lesion) for iou, component, lesion in pairs if iou > 0]
    taken: list[tuple[int, int]] = []
    for iou, component, lesion in sorted(pairs, reverse=True):
        if iou >= iou_threshold and all(component != c and lesion != t for c, t in taken):
            taken.append((component, lesion))
    return taken


def draw_lesion_panel(axes: Axes, iou_threshold: float | None, title: str) -> None:
    prediction, target = lesion_masks()
    all_neighbours = np.ones((3, 3))
    components, lesions = (ndimage.label(mask, all_neighbours)[0] for mask in (prediction, target))
    found = matches(components, lesions, iou_threshold)
    scores = lesion_detection(as_batch(prediction), as_batch(target), iou_threshold=iou_threshold)
    true_components, found_lesions = {c for c, _ in found}, {t for _, t in found}
    if (len(true_components), len(found_lesions)) != (scores.true_components.item(), scores.found.item()):
        raise AssertionError("the picture counts other lesions than the library")

    for component in range(1, components.max() + 1):
        color = PALE_BLUE if component in true_components else PALE_ORANGE
        axes.imshow(np.where(components == component, 1.0, np.nan), cmap=ListedColormap([color]))
        if component not in true_components:
            label(axes, components == component, "false", VERMILION, below=True)
    for lesion in range(1, lesions.max() + 1):
        ok = lesion in found_lesions
        axes.contour(
            lesions == lesion,
            levels=[0.5],
            colors=BLUE if ok else VERMILION,
            linewidths=2.2,
            linestyles="-" if ok else "--",
        )
        label(axes, lesions == lesion, "found" if ok else "missed", BLUE if ok else VERMILION)
    axes.set(xticks=[], yticks=[], xlim=(0.5, 43.5), ylim=(41.5, 0.5))
    found_text = f"{scores.found.item()} of {scores.lesions.item()}"
    true_text = f"{scores.true_components.item()} of {scores.components.item()}"
    axes.set_title(title, fontsize=12)
    axes.set_xlabel(
        f"sensitivity {found_text} = {scores.sensitivity.item():.2f},  precision {true_text} = "
        f"{scores.precision.item():.2f}\nF1 {scores.f1.item():.2f},  false positives "
        f"{scores.false_positives.item():.0f},  lesion Dice {scores.lesion_dice.item():.2f}",
        fontsize=11,
    )


def label(axes: Axes, mask: NDArray[np.bool_], text: str, color: str, *, below: bool = False) -> None:
    rows, columns = np.nonzero(mask)
    row = rows.max() + 1.9 if below else rows.min() - 1.3
    axes.text(columns.mean(), row, text, color=color, ha="center", va="center", fontsize=11, weight="bold")


def draw_lesions() -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.9), layout="constrained")
    draw_lesion_panel(axes[0], None, "iou_threshold=None: one common pixel")
    draw_lesion_panel(axes[1], 0.3, "iou_threshold=0.3: one to one")
    handles = [
        Line2D([], [], color=BLUE, linewidth=2.2, label="lesion, found"),
        Line2D([], [], color=VERMILION, linewidth=2.2, linestyle="--", label="lesion, missed"),
        Patch(color=PALE_BLUE, label="predicted component, true"),
        Patch(color=PALE_ORANGE, label="predicted component, false positive"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=10, frameon=False)
    figure.savefig(FOLDER / "lesions.png", dpi=100)


if __name__ == "__main__":
    mpl.use("agg")
    draw_surface()
    draw_lesions()
