"""The model card that goes beside weights on the Hub."""

from brainseg.models.spec import ModelSpec

CARD = """\
---
library_name: brainseg
pipeline_tag: image-segmentation
tags: [medical, mri]
---

# {repository}

A {network} of brainseg (`pip install "brainseg-torch[data]"`) for segmentation. Not a medical device.

- task: {task}, of the classes {classes}
- input: {channels}, {size}, normalization {normalization}

```python
from brainseg.inference import Predictor

predictor = Predictor.from_pretrained("{repository}")
mask = predictor("slice.png")
```

Data, training, scores, limits and licence: to be written by who trained it.
"""


def model_card(network: str, repository: str, spec: ModelSpec) -> str:
    """What the spec says of the weights, and room for what it cannot know."""
    return CARD.format(
        network=network,
        repository=repository,
        task=spec.task,
        classes=", ".join(spec.class_names),
        channels="channels " + ", ".join(spec.channel_names) if spec.channel_names else "channels without names",
        size=_size(spec),
        normalization="none" if spec.normalization is None else spec.normalization["name"],
    )


def _size(spec: ModelSpec) -> str:
    if spec.image_size is None:
        return "any size"
    resized = "resized to {}x{}".format(*spec.image_size)
    if spec.keep_aspect_ratio:
        resized += ", other shapes filled up"
    return resized if spec.crop is None else "{}, of which {}x{} around the head".format(resized, *spec.crop)
