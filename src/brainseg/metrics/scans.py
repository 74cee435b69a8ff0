"""Metrics of scans, whose value does not follow from counts of pixels: of slices by themselves, or of whole volumes."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.metrics.base import CaseMetric, Scores
from brainseg.metrics.cases import NO_GROUP, Rows
from brainseg.metrics.rules import Aggregation


class ScanMetric(CaseMetric):
    """Base class of the metrics of scans. Its subclass measures masks, and makes values of what it measured.

    Of a slice what was measured is kept. Of a volume the masks are, eight pixels a byte, until all slices are there.

    Args:
        num_classes: K.
        measured: how many numbers are measured of an image and class.
        aggregation: "slice": each image is a scan; "patient": the slices of a patient are one volume.
        arguments: of `CaseMetric`.
    """

    payload: list[Tensor]

    def __init__(
        self,
        num_classes: int,
        *,
        measured: int,
        aggregation: Aggregation = "slice",
        **arguments: Any,
    ) -> None:
        if aggregation not in ("slice", "patient"):
            raise ValueError(
                f'aggregation must be "slice" or "patient", got {aggregation!r}: distances and lesions are those of a'
                " scan, and cannot be pooled over several"
            )
        volumes = aggregation == "patient"
        super().__init__(
            num_classes,
            aggregation=aggregation,
            # Sides of a slice, or what was measured; and last how many pixels count.
            row_shape=(3,) if volumes else (measured + 1,),
            row_dtype=torch.int64 if volumes else torch.float64,
            **arguments,
        )
        self._measured = measured
        # What has no fixed length, one slice and class behind the other: masks of volumes, or what was measured.
        self.add_state("payload", [], dist_reduce_fx="cat")

    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        group: Any = None,
        slice_index: Any = None,
        valid: Tensor | None = None,
    ) -> None:
        """Measures the images of a batch, or keeps them until their volume is whole.

        Args:
            prediction: logits (B, K, H, W), masks, or class indices (B, H, W), see `brainseg.metrics.rules.to_masks`.
                Volumes (B, K, D, H, W) are scans too, with ``aggregation="slice"``.
            target: masks (B, K, H, W) or class indices (B, H, W).
            group: the patient of each slice: B names, or an integer tensor (B,).
            slice_index: the place of each slice in its patient, integers (B,).
            valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks;
                each side may be 1. They are background in prediction and target.

        Raises:
            ValueError: shapes or values that are no masks of K classes, or ``aggregation="patient"`` without `group`
                or `slice_index`.
        """
        masks = self._masks(prediction, target, valid)
        if self.aggregation == "slice":
            rows, payload = self._measure(masks.predicted, masks.true)
        else:
            if group is None:
                raise ValueError(NO_GROUP)
            if slice_index is None:
                raise ValueError(
                    'aggregation="patient" puts the slices of a volume in order; give slice_index=, integers (B,)'
                )
            shape = masks.true.shape
            if len(shape) != 4:
                raise ValueError(
                    f'aggregation="patient" takes slices (B, {self.num_classes}, H, W), got {tuple(shape)};'
                    ' for whole volumes use aggregation="slice"'
                )
            rows = torch.tensor(shape[2:], device=masks.true.device).expand(*shape[:2], 2)
            payload = _packed(torch.stack([masks.predicted, masks.true], 2).flatten(3)).flatten()
        self._append(torch.cat([rows, masks.sizes()[..., None].to(rows)], -1), group, slice_index)
        self.payload.append(payload.to(self.device))

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Updates with a batch, and gives the value of the batch alone.

        Raises:
            ValueError: ``aggregation="patient"``, since a batch is no volume.
        """
        if self.aggregation == "patient":
            raise ValueError('with aggregation="patient" a batch has no value of its own; use update() and compute()')
        return super().forward(*arguments, **options)

    def _measure(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers (B, K, measured) float64 of masks (B, K, ...), and those without a fixed length, image by image."""
        raise NotImplementedError

    def _values(self, rows: Tensor, payload: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (N, K), whether anything is predicted, and whether the target holds anything.

        Args:
            rows: (N, K, measured).
            payload: what has no fixed length.
            sizes: (N, K), how many pixels count.
        """
        raise NotImplementedError

    def _blanks(self) -> dict[str, Tensor]:
        dtype = torch.uint8 if self.aggregation == "patient" else torch.float32
        return {**super()._blanks(), "payload": torch.zeros(0, dtype=dtype, device=self.device)}

    def _scores(self) -> Scores:
        scans, payload = self._slices()[0], self._joined("payload")
        if self.aggregation == "patient":
            scans, payload = self._measured_volumes(scans, payload)
        first = 0 if self.include_background else 1
        measured, sizes = scans.data[..., :-1], scans.data[..., -1]
        values, predicted, true = (x[:, first:] for x in self._values(measured, payload, sizes))
        order = scans.order()
        return Scores(scans.taken(order), values[order], predicted[order], true[order])

    def _measured_volumes(self, slices: Rows, packed: Tensor) -> tuple[Rows, Tensor]:
        """What is measured of the volume of each patient."""
        lengths = 2 * ((slices.data[..., :2].prod(-1) + 7) // 8).sum(1)
        masks = torch.split(packed, lengths.tolist())
        patients: list[str | None] = []
        rows = [torch.zeros(0, self.num_classes, self._measured + 1, dtype=torch.float64)]
        payloads = [torch.zeros(0)]
        for patient, members in groupby(slices.order(), key=lambda i: slices.patients[i]):
            own = list(members)
            height, width = _sides(patient, [slices.slices[i] for i in own], slices.data[own, 0, :2])
            volume = [_unpacked(masks[i], (self.num_classes, 2, height, width)) for i in own]
            predicted, true = torch.stack(volume, 2)[None].to(self.device).unbind(2)
            measured, payload = self._measure(predicted, true)
            patients.append(patient)
            sizes = slices.data[own, :, 2].sum(0)[None, :, None]
            rows.append(torch.cat([measured.cpu(), sizes.double()], -1))
            payloads.append(payload.cpu())
        ones = torch.ones(len(patients), dtype=torch.int64)
        return Rows(patients, [None] * len(patients), torch.cat(rows), ones), torch.cat(payloads)


def _sides(patient: str | None, indices: Sequence[int | None], sides: Tensor) -> tuple[int, int]:
    """Height and width of the slices of a volume.

    Raises:
        ValueError: a slice came twice or not at all, or they differ in size.
    """
    places = [index for index in indices if index is not None]
    twice = sorted(index for index, count in Counter(places).items() if count > 1)
    if twice:
        raise ValueError(f"patient {patient} has slices that came twice: {twice}; update with each slice once")
    gap = next((place for place, following in pairwise(places) if following != place + 1), None)
    if gap is not None:
        raise ValueError(
            f"patient {patient} has slices from {places[0]} to {places[-1]}, but none of number {gap + 1}; a volume"
            " needs all of them: update with these too, empty ones included"
        )
    different = sorted({*map(tuple, sides.tolist())})
    if len(different) > 1:
        raise ValueError(f"patient {patient} has slices of different sizes: {different}; a volume needs one size")
    height, width = different[0]
    return height, width


def _packed(masks: Tensor) -> Tensor:
    """Bool (..., N) as uint8 (..., ceil(N / 8))."""
    bytes_needed = (masks.shape[-1] + 7) // 8
    bits = F.pad(masks.to(torch.uint8), (0, 8 * bytes_needed - masks.shape[-1])).view(
        *masks.shape[:-1], bytes_needed, 8
    )
    return bits.mul_(_weights(bits)).sum(-1, dtype=torch.uint8)


def _unpacked(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The masks of this shape, (K, 2, H, W), that were packed."""
    bits = packed.view(*shape[:2], -1, 1).bitwise_and(_weights(packed)).bool()
    return bits.flatten(2)[..., : math.prod(shape[2:])].view(shape)


def _weights(like: Tensor) -> Tensor:
    """(8,) of the bits of a byte."""
    return 2 ** torch.arange(8, dtype=torch.uint8, device=like.device)
