"""Draws docs/losses.png: every loss along a prediction that grows from nothing to the whole image.

python docs/losses_picture.py
"""

import inspect
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor, nn

from brainseg import losses

SIDE, RADIUS = 96, 20
# Pixels of the prediction's radius; at the ends nothing and everything is predicted.
RADII = torch.linspace(-16, 76, 185, dtype=torch.float64)
# More erosions than the default, which finds no centre line in a disc of this radius.
ARGUMENTS = {"SoftClDiceLoss": {"iterations": 24}}
WRAPPERS = ("DeepSupervisionLoss", "WeightedSum")


def distances() -> Tensor:
    """(SIDE, SIDE) distance of every pixel to the image's centre."""
    places = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    return torch.hypot(places[:, None], places)


def predict(radius: Tensor) -> Tensor:
    """(1, 1, SIDE, SIDE) logits of a disc with a soft border, within -12 and 12."""
    return (12 * torch.tanh((radius - distances()) / 12))[None, None]


def along(loss: nn.Module, target: Tensor) -> tuple[list[float], list[float]]:
    """The loss at each radius, and its derivative by the radius."""
    values, slopes = [], []
    for r in RADII:
        radius = r.clone().requires_grad_()
        value = loss(predict(radius), target)
        (slope,) = torch.autograd.grad(value, radius)
        values.append(value.item())
        slopes.append(slope.item())
    return values, slopes


def draw(name: str, loss: nn.Module, value_axes: Axes, slope_axes: Axes) -> None:
    disc = (distances() < RADIUS)[None, None]
    for target, colour, label in ((disc, "C0", "disc"), (torch.zeros_like(disc), "C3", "empty")):
        values, slopes = along(loss, target)
        value_axes.plot(RADII, values, color=colour, label=label)
        slope_axes.plot(RADII, slopes, color=colour, linewidth=1)
    arguments = ", ".join(f"{key}={value}" for key, value in ARGUMENTS.get(name, {}).items())
    value_axes.set_title(f"{name}({arguments})" if arguments else name, fontsize=10)
    value_axes.tick_params(labelbottom=False)
    for axes in (value_axes, slope_axes):
        axes.axvline(RADIUS, color="0.75", linewidth=0.8, zorder=0)
        axes.axhline(0, color="0.75", linewidth=0.8, zorder=0)
        axes.tick_params(labelsize=7)
        axes.set_xlim(RADII[0], RADII[-1])


def main() -> None:
    mpl.use("agg")
    names = [name for name in losses.__all__ if inspect.isclass(getattr(losses, name)) and name not in WRAPPERS]
    rows = -(-(len(names) + 1) // 4)
    figure = plt.figure(figsize=(13, 2.9 * rows), layout="constrained")
    cells = figure.subfigures(rows, 4).flatten()
    for cell, name in zip(cells, names, strict=False):
        upper, lower = cell.subplots(2, 1, height_ratios=(3, 2))
        draw(name, getattr(losses, name)(**ARGUMENTS.get(name, {})), upper, lower)
        upper.set_ylabel("loss", fontsize=8)
        lower.set_ylabel("slope", fontsize=8)
        lower.set_xlabel("radius of the prediction (pixels)", fontsize=8)
    cells[0].axes[0].legend(title="target", fontsize=7, title_fontsize=7)
    picture = cells[len(names)].subplots()
    picture.imshow(predict(RADII[96])[0, 0].sigmoid(), cmap="gray", vmin=0, vmax=1)
    picture.contour(distances() < RADIUS, levels=[0.5], colors="C0")
    picture.set_title(f"prediction of radius {RADII[96]:.0f}, target of radius {RADIUS} (blue)", fontsize=9)
    picture.axis("off")
    figure.savefig(Path(__file__).with_name("losses.png"), dpi=90)


if __name__ == "__main__":
    main()
