"""Draws docs/example.png: the slice that comes with the package, and what `unext/lgg` outlines in it.

python docs/example_picture.py
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from brainseg.data import read_image, to_unit_range
from brainseg.inference import Predictor
from brainseg.models.shipped import EXAMPLE
from brainseg.visualization import brightened, draw_outlines

SEQUENCES = ("pre-contrast", "FLAIR", "post-contrast")


def main() -> None:
    mpl.use("agg")
    image = to_unit_range(read_image(EXAMPLE))
    mask = Predictor.from_weights("unext", "lgg", device="cpu")(image)
    figure, axes = plt.subplots(1, 4, figsize=(10, 2.75), layout="constrained", facecolor="black")
    for channel, (panel, name) in enumerate(zip(axes, SEQUENCES, strict=False)):
        draw_outlines(panel, brightened(image, channel))
        panel.set_title(name, color="white", fontsize=10)
    draw_outlines(axes[3], brightened(image, 1), prediction=mask)
    axes[3].set_title("outlined by unext/lgg", color="white", fontsize=10)
    for panel in axes:
        panel.set_xlim(28, 228)
        panel.set_ylim(244, 12)
    figure.savefig(Path(__file__).with_name("example.png"), dpi=100)


if __name__ == "__main__":
    main()
