"""What a network finds in a data set: masks of each slice by itself, or of all slices of a patient together."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from brainseg.data import SliceDataset
from brainseg.inference import Predictor, postprocess
from brainseg.models import ModelSpec
from brainseg.training.object_scores import ObjectScores
from brainseg.training.targets import check_exclusive


class Found(NamedTuple):
    """A batch and what was found in it.

    Attributes:
        batch: of `brainseg.data.Sample`s.
        likely: probabilities (B, K, H, W), on the CPU.
        masks: bool (B, K, H, W), likewise.
        stretches: of each slice the height of a pixel over its width.
    """

    batch: Mapping[str, Any]
    likely: Tensor
    masks: Tensor
    stretches: list[float]


def find_masks(
    predictor: Predictor,
    dataset: SliceDataset,
    *,
    batch_size: int,
    together: bool = False,
    objects: ObjectScores | None = None,
) -> Iterator[Found]:
    """The batches of a data set and what is found in them, at the size of the files.

    Args:
        predictor: what finds.
        dataset: the slices; of `together` all of each patient.
        batch_size: of slices, of one shape and one form of pixels.
        together: the spec's postprocessing is done to all slices of a patient, in the order of their numbers.
        objects: are updated with the instances of each batch, if given.

    Raises:
        ValueError: classes that overlap where those of the network do not, slices of a patient that have several sizes,
            or what `Predictor.logits` and `postprocess` raise.
    """
    found = _of_slices(predictor, dataset, batch_size, objects)
    return _of_patients(found, predictor.spec, dataset) if together else found


def _of_slices(
    predictor: Predictor, dataset: SliceDataset, batch_size: int, objects: ObjectScores | None
) -> Iterator[Found]:
    spec, stretches = predictor.spec, iter(dataset.stretches)
    for batch in track(DataLoader(dataset, batch_size), "Evaluating", transient=True):
        if spec.task == "multiclass" and batch["mask"].dim() == 4:
            check_exclusive(batch["mask"])
        of_batch = [next(stretches) for _ in batch["patient"]]  # of one value, or the batch is of one slice
        if objects is None:
            logits = predictor.logits(batch["image"], stretch=of_batch[0])
        else:
            logits, instances = predictor.logits_and_instances(batch["image"], stretch=of_batch[0])
            objects.update(instances, batch, stretch=of_batch[0])
        likely = spec.probabilities(logits.cpu())
        yield Found(batch, likely, spec.masks_of_probabilities(likely), of_batch)


def _of_patients(every: Iterable[Found], spec: ModelSpec, dataset: SliceDataset) -> Iterator[Found]:
    """A batch comes once all slices of its patients were seen."""
    count = Counter(files.patient for files in dataset.files)
    spacings = {files.patient: spacing for files, spacing in zip(dataset.files, dataset.spacings, strict=True)}
    likely: dict[str, dict[int, Tensor]] = defaultdict(dict)
    masks: dict[tuple[str, int], Tensor] = {}
    waiting: deque[tuple[list[tuple[str, int]], Found]] = deque()
    for found in every:
        places = list(zip(found.batch["patient"], found.batch["slice"].tolist(), strict=True))
        waiting.append((places, found))
        for (patient, number), each in zip(places, found.likely, strict=True):
            likely[patient][number] = each
            if len(likely[patient]) == count[patient]:
                slices = sorted(likely.pop(patient).items())
                together = postprocess(_stacked(patient, slices), spec, spacing=spacings[patient])
                masks.update(((patient, number), mask) for (number, _), mask in zip(slices, together, strict=True))
        while waiting and masks.keys() >= {*waiting[0][0]}:
            places, ready = waiting.popleft()
            yield ready._replace(masks=torch.stack([masks.pop(place) for place in places]))


def _stacked(patient: str, slices: list[tuple[int, Tensor]]) -> Tensor:
    shapes = sorted({(each.shape[-2], each.shape[-1]) for _, each in slices})
    if len(shapes) > 1:
        sizes = ", ".join(f"{height}x{width}" for height, width in shapes)
        raise ValueError(
            f"slices of {patient} have several sizes, {sizes}, and cannot be taken together; score each by itself"
        )
    return torch.stack([each for _, each in slices])
