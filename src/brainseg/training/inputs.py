"""How images reach the network: `data.input` of a run by name."""

from copy import deepcopy

from brainseg._names import no_such
from brainseg.transforms import Compose, ForegroundZScore, Normalize, SelectChannels, Transform

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INPUTS: dict[str, Transform | None] = {
    "foreground_z_score": ForegroundZScore(),
    "none": None,
    # As the published experiments read it: blue, green, red, and divided by 255 a second time after normalisation.
    "course": Compose([SelectChannels((2, 1, 0)), Normalize(IMAGENET_MEAN, [255 * std for std in IMAGENET_STD])]),
    "course_fixed": Normalize(IMAGENET_MEAN, IMAGENET_STD),
}


def create_input(name: str) -> Transform | None:
    """The transform from images in [0, 1], channels as stored, to what the network sees.

    Raises:
        ValueError: an unknown name.
    """
    if name not in INPUTS:
        raise ValueError(no_such("input", name, INPUTS, most=1))
    return deepcopy(INPUTS[name])  # a module, which each network puts into its own mode
