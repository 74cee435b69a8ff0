"""Noised objects as further queries, which the decoder learns to put right."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brainseg.checks import check_between, check_count
from brainseg.models.mask_dino.objects import Objects
from brainseg.models.mask_dino.positions import at_least_float32, inverse_sigmoid
from brainseg.models.mask_dino.processes import largest_of_processes
from brainseg.models.mask_dino.query_selection import Queries
from brainseg.models.mask_dino.randomness import Rand


@dataclass(frozen=True)
class NoisedQueries:
    """Denoising queries of a batch, which stand before the matching ones.

    Attributes:
        queries: content (B, pad, C) and anchors (B, pad, 4), pad = groups times the most objects of an image.
        groups: number of groups; each holds every object once, object j of group k in slot k * pad / groups + j.
    """

    queries: Queries
    groups: int

    @property
    def pad_size(self) -> int:
        return self.queries.content.shape[1]

    def blocked(self, num_queries: int) -> Tensor:
        """(pad + Q, pad + Q) bool, True where a query (row) may not see another.

        Matching queries see no denoising one; these see their own group and all matching queries.
        """
        device, pad = self.queries.content.device, self.pad_size
        group = torch.arange(pad + num_queries, device=device) * self.groups // pad
        group = group.clamp(max=self.groups)  # matching queries are the last group
        return (group[:, None] != group) & (group < self.groups)


class Denoising(nn.Module):
    """Unified denoising of labels, boxes and masks (paper, section 3.4; Li et al. 2022, arXiv:2203.01305).

    Slots that an image with fewer objects leaves unused stay, with content 0 and a box in the middle: the other slots
    of their group see them, and the class loss counts them as no object. Trained weights expect it.

    Args:
        num_classes: number of classes K.
        channels: width C of the queries.
        number: number of denoising queries for the image with the most objects. With more objects than that there is
            no denoising in the step.
        noise: how far the sides of a box move, as a fraction of it; half of it is the rate of random labels.
    """

    def __init__(self, num_classes: int, channels: int, *, number: int = 100, noise: float = 0.4) -> None:
        super().__init__()
        self.number = check_count("number", number)
        self.noise = check_between("noise", noise, 0, 1)
        self.label_enc = nn.Embedding(check_count("num_classes", num_classes), channels)
        self._warned = False

    @property
    def num_classes(self) -> int:
        return self.label_enc.num_embeddings

    def forward(self, objects: Objects, rand: Rand) -> NoisedQueries | None:
        """The noised queries of the objects; None without objects, or with more than `number` in an image.

        Processes that train together have equally many groups and slots, those of the image with the most objects of
        all, so that their gradients are those of one process with all images.
        """
        weight = self.label_enc.weight
        most = largest_of_processes(max(objects.counts, default=0), weight.device)
        groups = self.number // most if most else 0
        if groups == 0:
            if most and not self._warned:
                self._warned = True
                warnings.warn(
                    f"an image has {most} objects, more than the {self.number} denoising queries: there is no "
                    "denoising in such steps, for no image of the batch; build the model with a larger dn_number",
                    stacklevel=2,
                )
            return None
        rows = len(objects.labels) * groups
        labels = objects.labels.repeat(groups)
        # A draw just below 1 would become 1 in half types.
        boxes = objects.boxes.to(at_least_float32(weight.dtype)).repeat(groups, 1)
        if self.noise > 0:
            flip, label = (rand(f"dn/{name}", (rows,)).to(boxes) for name in ("flip", "label"))
            labels = torch.where(flip < self.noise / 2, (label * self.num_classes).long(), labels)
            reach = torch.cat([boxes[:, 2:] / 2, boxes[:, 2:]], dim=1) * self.noise
            boxes = (boxes + (2 * rand("dn/box", (rows, 4)).to(boxes) - 1) * reach).clamp(0, 1)

        counts = objects.counts
        image = [index for index, count in enumerate(counts) for _ in range(count)] * groups
        slot = [group * most + place for group in range(groups) for count in counts for place in range(count)]
        where = (torch.tensor(image, device=weight.device).long(), torch.tensor(slot, device=weight.device).long())
        content = weight.new_zeros(len(counts), most * groups, weight.shape[1])
        anchors = boxes.new_zeros(len(counts), most * groups, 4)
        content = content.index_put(where, self.label_enc(labels))
        return NoisedQueries(Queries(content, anchors.index_put(where, inverse_sigmoid(boxes))), groups)
