"""What an evaluation reports of objects beside the scores of masks."""

import math
import warnings
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from torch import Tensor

from brainseg.inference.part import resize_of
from brainseg.metrics import MeanAveragePrecision, PanopticQuality
from brainseg.models import ModelSpec
from brainseg.models.mask_dino import Instances
from brainseg.training.config import ObjectsConfig
from brainseg.training.means import over_known
from brainseg.training.objects import foreground_objects, object_targets, warn_of_pixels

MIN_SCORE = 0.5
"""Of the objects that panoptic quality counts: that of `Predictor.instances`."""


class ObjectScores:
    """Average precision of masks, as in `val_map`, and panoptic quality of the objects that a predictor shows.

    Args:
        spec: of the network.
        config: which objects of a mask there are; `min_pixels` counts those that the network saw.
    """

    def __init__(self, spec: ModelSpec, config: ObjectsConfig) -> None:
        self.spec, self.config = spec, config
        self._precisions: dict[str, MeanAveragePrecision] = {
            f"mask AP{percent}": MeanAveragePrecision(
                spec.num_classes, iou_thresholds=iou_thresholds, average="none", sync_on_compute=False
            )
            for percent, iou_thresholds in (("", None), ("50", [0.5]), ("75", [0.75]))
        }
        self._quality = PanopticQuality(spec.num_classes, average="none", sync_on_compute=False)
        self._objects = self._shown = 0

    def update(self, found: Sequence[Instances], batch: Mapping[str, Any], *, stretch: float = 1.0) -> None:
        """Adds the objects of a batch.

        Args:
            found: of each image, all of them, however doubtful, and none of the background.
            batch: of `brainseg.data.Sample`s.
            stretch: height of a pixel over its width, as the network was told.
        """
        warn_of_pixels(batch, "AP and PQ take")
        masks: Tensor = batch["mask"]
        true = foreground_objects(object_targets(masks, self.spec, self._counted_on(masks, stretch)), self.spec)
        shown = [each[each.scores >= MIN_SCORE] for each in found]
        for metric in self._precisions.values():
            metric.update(found, true)
        self._quality.update(shown, true)
        self._objects += sum(len(each["labels"]) for each in true)
        self._shown += sum(map(len, shown))

    def summary(self) -> dict[str, float | int]:
        """The scores by the names of a summary, the mean over the classes and of several each."""
        with warnings.catch_warnings():  # classes without objects are a line without a number, and nothing to warn of
            warnings.filterwarnings("ignore", "no case to average")
            values = {title: metric.compute() for title, metric in self._precisions.items()}
            values[f"PQ, score from {MIN_SCORE:g}"] = self._quality.compute()
        of_classes = {title: value.reshape(-1).tolist() for title, value in values.items()}
        scores: dict[str, float | int] = {
            "objects": self._objects,
            f"objects found, score from {MIN_SCORE:g}": self._shown,
            **{title: over_known(fmean, of_class) for title, of_class in of_classes.items()},
        }
        if len(self.spec.foreground) > 1:
            scores |= {
                f"{title}, {self.spec.class_names[k]}": of_class[k]
                for title, of_class in of_classes.items()
                for k in self.spec.foreground
            }
        return scores

    def _counted_on(self, masks: Tensor, stretch: float) -> ObjectsConfig:
        """With `min_pixels` in pixels of these masks."""
        resize = resize_of(self.spec, stretch)
        if resize is None:
            return self.config
        height, width = masks.shape[-2:]
        pixels = height * width / math.prod(resize.content_size(height, width))
        return ObjectsConfig(self.config.components, max(1, round(self.config.min_pixels * pixels)))
