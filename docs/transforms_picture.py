"""Draws docs/transforms.png: a phantom slice before and after each transform, with the outline of its mask.

python docs/transforms_picture.py
"""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from brainseg import transforms as t
from brainseg.data import phantom

SIDE = 128
# One draw of each, at its strongest end, so that what it does is seen.
SHOWN: dict[str, t.Transform] = {
    "before": t.Rescale((0, 1)),
    "RandomFlip": t.RandomFlip(["horizontal"], p=1),
    "RandomRotate90": t.RandomRotate90(p=1),
    "RandomTranspose": t.RandomTranspose(p=1),
    "RandomAffine": t.RandomAffine((25, 30), (1.1, 1.2), (5, 10), p=1),
    "RandomElastic": t.RandomElastic((0.08, 0.1), p=1),
    "RandomCrop": t.RandomCrop(80),
    "CenterCrop": t.CenterCrop(80),
    "CropToHead": t.CropToHead(96),
    "ForegroundCrop": t.ForegroundCrop(56, p=1),
    "Resize": t.Resize((64, 128)),
    "PadToMultiple": t.PadToMultiple(96),
    "RandomBrightness": t.RandomBrightness((1.4, 1.5), p=1),
    "RandomScaleShift": t.RandomScaleShift((1.3, 1.4), (0.1, 0.15), p=1),
    "RandomContrast": t.RandomContrast((1.6, 1.8), p=1),
    "RandomGamma": t.RandomGamma((0.5, 0.55), p=1),
    "RandomGaussianNoise": t.RandomGaussianNoise((0.1, 0.12), p=1),
    "RandomRicianNoise": t.RandomRicianNoise((0.1, 0.12), p=1),
    "RandomBlur": t.RandomBlur((1.5, 1.6), p=1),
    "RandomLowResolution": t.RandomLowResolution((0.25, 0.3), p=1),
    "RandomBiasField": t.RandomBiasField((-0.9, 0.9), p=1),
    "RandomGhosting": t.RandomGhosting((0.6, 0.7), p=1),
    "RandomMotion": t.RandomMotion((-0.3, 0.3), moves=4, p=1),
    "RandomSpikes": t.RandomSpikes(p=1),
    "RandomChannelDropout": t.RandomChannelDropout(p=1, channels=(1,)),
    "RandomChannelCopy": t.RandomChannelCopy(0, (1,), p=1),
    "MinMaxNormalize": t.MinMaxNormalize(),
    "PercentileNormalize": t.PercentileNormalize(),
    "ForegroundZScore": t.ForegroundZScore(),
    "HeadZScore": t.HeadZScore(),
    "Normalize": t.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "SelectChannels": t.SelectChannels((1, 1, 1)),
    "strong_augmentation()": t.strong_augmentation(),
}
NORMALIZED = ("MinMaxNormalize", "PercentileNormalize", "ForegroundZScore", "HeadZScore", "Normalize")


def draw(axes: Axes, name: str, images: Tensor, masks: Tensor) -> None:
    """FLAIR of a sample, in the range of the image before; of a normalised one in its own, which is written below."""
    image, mask = images[0, 1], masks[0, 0]
    low, high = (image.min().item(), image.max().item()) if name in NORMALIZED else (0.0, 1.0)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high)
    if mask.any():
        axes.contour(mask.float(), levels=[0.5], colors="C1", linewidths=1.2)
    axes.set_title(name, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    if name in NORMALIZED:
        axes.set_xlabel(f"{low:.2g} to {high:.2g}", fontsize=9)


def main() -> None:
    mpl.use("agg")
    slice_ = phantom(6, size=SIDE, lesion=True)
    images, masks = slice_.image[None], slice_.mask[None]
    columns = 6
    rows = -(-len(SHOWN) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(2 * columns, 2.2 * rows), layout="constrained")
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, transform) in zip(grid.flat, SHOWN.items(), strict=False):
        axes.set_axis_on()
        draw(axes, name, *transform(images, masks, generator=torch.Generator().manual_seed(1)))
    figure.savefig(Path(__file__).with_name("transforms.png"), dpi=90)


if __name__ == "__main__":
    main()
