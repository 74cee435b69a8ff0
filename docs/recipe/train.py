"""Trains the weights that ship, or a fold of their cross-validation; may be killed at any moment and started again.

    python -m docs.recipe.train --fold 0 --steps 4000 --output runs/fold0     # without the patients of fold 0
    python -m docs.recipe.train --all --steps 12000 --output runs/all         # with all of them
    python -m docs.recipe.train --fold 0 --model monai/UNet --output runs/monai  # any network that `find_network` knows

The folder gets `last.pt` (all that is needed to go on, written whole every 200 steps), `losses.csv` with seconds of the
processor, and at the end `weights/`, the averaged weights as `save_pretrained` writes them (of networks of others the
weights alone). What is drawn in a step depends on the seed and the step's number alone, so that a run that was cut off
ends with the same weights as one that was not.
"""

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from brainseg._whole import written_whole
from brainseg.benchmark import find_network
from brainseg.data import LGGSegmentation, lgg_root
from brainseg.losses import CEDiceLoss, DeepSupervisionLoss
from brainseg.memory import keep_freed_memory
from brainseg.models import MaskDINO, ModelSpec, SegmentationModel
from brainseg.models.mask_dino import targets_from_masks
from brainseg.transforms import (
    Compose,
    CropToHead,
    HeadZScore,
    OneOf,
    RandomAffine,
    RandomBiasField,
    RandomChannelCopy,
    RandomElastic,
    RandomFlip,
    RandomGamma,
    RandomGaussianNoise,
    RandomLowResolution,
    RandomRicianNoise,
    RandomRotate90,
    RandomScaleShift,
    RandomSpikes,
)

PRE, FLAIR, POST = 0, 1, 2
CHECKPOINT_EVERY = 200
ROW_EVERY = 50
CHOICES = (
    *("all", "fold", "seed", "steps", "batch", "model", "faulty"),
    *("rate", "warm_up", "decay", "clip", "average", "copy_pre", "float32", "start", "slices", "teachers"),
)

# Of the scanner: before the values are standardised, whose head and deviations they change as well.
FAULTS = OneOf(
    [
        RandomRicianNoise((0.0, 0.1), p=1.0),
        RandomRicianNoise((0.0, 0.1), p=1.0),
        RandomBiasField((-0.7, 0.7), p=1.0),
        RandomBiasField((-0.7, 0.7), p=1.0),
        RandomSpikes(1, (0.0, 0.3), p=1.0),
        RandomGamma((0.6, 1.7), p=1.0),
        RandomLowResolution((0.3, 0.9), p=1.0),
    ],
    p=1.0,
)
NORMALIZE = HeadZScore()
LOSS = DeepSupervisionLoss(CEDiceLoss(check_target=False))  # of one output as it is
SIDE = 192


# What lies beyond a crop is mostly background, which differs by slice and channel.
SHAPES = Compose(
    [
        RandomRotate90(p=0.75),
        RandomFlip(p=0.5),
        RandomAffine(degrees=(-20, 20), scale=(0.85, 1.2), translation=(-0.06, 0.06), p=0.6, padding="border"),
        RandomElastic(p=0.2, padding="border"),
    ]
)


@cache
def values(*, copy_pre: bool) -> Compose:
    """What is drawn for the values of the images of a batch, all slices of their own.

    Args:
        copy_pre: FLAIR stands in place of pre-contrast alone as well, as often as in place of each of the others.
    """
    replaced = [(PRE, POST), (POST,), *([(PRE,)] if copy_pre else [])]
    return Compose(
        [
            RandomScaleShift(scale=(0.85, 1.15), shift=(-0.15, 0.15), p=1.0),
            OneOf([RandomChannelCopy(FLAIR, channels, p=1.0) for channels in replaced], p=0.075 * len(replaced)),
            RandomGaussianNoise(std=(0.15, 0.15), p=0.15),
        ]
    )


class Patient(NamedTuple):
    """The slices of a patient around the head.

    Attributes:
        raw: (N, 3, 192, 192) uint8, as stored.
        images: (N, 3, 192, 192) float16, standardised.
        masks: (N, 1, 192, 192) uint8.
        tumour: numbers of the slices with tumour.
        empty: numbers of those without.
    """

    raw: Tensor
    images: Tensor
    masks: Tensor
    tumour: Tensor
    empty: Tensor


def load(root: Path, patients: Iterable[str]) -> list[Patient]:
    """All slices of the patients in memory, about 1 GB for 76 of them."""
    crop = CropToHead(SIDE)
    loaded = []
    for patient in sorted(patients):
        data = LGGSegmentation(root, [patient])
        images = torch.stack([data[i]["image"] for i in range(len(data))])
        masks = torch.stack([data[i]["mask"] for i in range(len(data))]).byte()
        place = crop.locate(images.amax(0, keepdim=True))
        has_tumour = masks.flatten(1).any(1)
        loaded.append(
            Patient(
                crop.take((images * 255).round().byte(), place),
                crop.take(NORMALIZE(images), place).half(),
                crop.take(masks, place),
                has_tumour.nonzero().flatten(),
                (~has_tumour).nonzero().flatten(),
            )
        )
    return loaded


def neighbours(numbers: Tensor, slices: int, of: int) -> Tensor:
    """The numbers (N, slices) of each slice (N,) of `of` and those around it; at the ends the last one again."""
    return (numbers[:, None] + torch.arange(slices) - slices // 2).clamp(0, of - 1)


def draw_batch(
    patients: list[Patient], count: int, faulty: float, generator: torch.Generator, slices: int = 1
) -> tuple[Tensor, Tensor]:
    """Slices of patients who are equally likely, half of them with tumour: images float32, masks float32.

    Args:
        patients: all there are.
        count: of slices.
        faulty: share of the slices that get a fault of the scanner.
        generator: what is drawn comes from it.
        slices: with those around each as channels before and after its own, as many in all.
    """
    images, masks = [], []
    for _ in range(count):
        patient = patients[int(torch.randint(len(patients), (), generator=generator))]
        of_kind = patient.tumour if torch.rand((), generator=generator) < 0.5 else patient.empty
        number = of_kind[torch.randint(len(of_kind), (), generator=generator)]
        is_faulty = faulty and torch.rand((), generator=generator) < faulty
        if is_faulty or slices > 1:
            raw = patient.raw[neighbours(number[None], slices, len(patient.raw))].flatten(1, 2) / 255
            images.append(NORMALIZE(FAULTS(raw, generator=generator) if is_faulty else raw)[0].half())
        else:
            images.append(patient.images[number])
        masks.append(patient.masks[number])
    return torch.stack(images).float(), torch.stack(masks).float()


def draw_step(arguments: argparse.Namespace, patients: list[Patient], step: int) -> tuple[Tensor, Tensor]:
    """Images and masks of a step, which depend on the seed and the step alone; PyTorch's own draws do from here on."""
    of_step = arguments.seed * 10_000_000 + step
    torch.manual_seed(of_step)  # for networks that draw in training
    generator = torch.Generator().manual_seed(of_step)
    batch = draw_batch(patients, arguments.batch, arguments.faulty, generator, arguments.slices)
    images, masks = SHAPES(*batch, generator=generator)
    each = values(copy_pre=arguments.copy_pre)(images.unflatten(1, (-1, 3)).flatten(0, 1), generator=generator)
    return each.reshape(images.shape), masks


def softened(teachers: list[nn.Module], images: Tensor, masks: Tensor) -> Tensor:
    """Half the masks, half the mean of what the teachers find."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = torch.stack([teacher(images).float().sigmoid() for teacher in teachers])
    return (masks + found.mean(0)) / 2


def rate_at(step: int, steps: int, *, warm_up: int, peak: float) -> float:
    """A warm-up in a line, then half a cosine to 0."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def loss_of(
    model: nn.Module, images: Tensor, masks: Tensor, *, float32: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch and its parts: of the pixels, or by the criterion of a network that answers with objects."""
    images = images.contiguous(memory_format=torch.channels_last)
    # A step takes 0.6 of its time where the processor multiplies bfloat16; the loss is computed in float32.
    bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=not float32)
    if isinstance(model, MaskDINO):
        targets = targets_from_masks(masks)
        with bfloat16:
            predictions = model.forward_queries(images, targets)
        loss, parts = model.criterion(predictions, targets)
        return loss, {"ce": parts["loss_mask"], "dice": parts["loss_dice"]}
    with bfloat16:
        logits = model(images)
    return LOSS.parts(logits, masks)


def build(name: str, slices: int = 1) -> nn.Module:
    """A network of a name of `find_network`, with random weights; of ours with what its weights will mean."""
    model = find_network(name)(3 * slices, SIDE)
    if isinstance(model, SegmentationModel):
        model.spec = ModelSpec(class_names=("tumour",), normalization=NORMALIZE.config, shown_channel=FLAIR)
    return model


def chosen_of(run: Path) -> dict[str, Any]:
    """The options of a run, by the names of `CHOICES`; runs from before an option was there lack it."""
    chosen: dict[str, Any] = torch.load(run / "last.pt", weights_only=True)["chosen"]
    return chosen


def read_averaged(run: Path) -> nn.Module:
    """The network of a run with its averaged weights, to evaluate."""
    state = torch.load(run / "last.pt", weights_only=True)
    model = build(state["chosen"]["model"], state["chosen"].get("slices", 1))
    averaged = state["averaged"]
    model.load_state_dict({key.removeprefix("module."): x for key, x in averaged.items() if key != "n_averaged"})
    return model.eval()


def seen(arguments: argparse.Namespace) -> list[str]:
    """The patients that a run is trained on."""
    folds = json.loads(arguments.folds.read_text())["folds"]
    left_out = set() if arguments.all else set(folds[arguments.fold])
    return [patient for fold in folds for patient in fold if patient not in left_out]


def read_teachers(arguments: argparse.Namespace) -> list[nn.Module]:
    """Networks that have not seen the fold that is left out either."""
    for run in arguments.teachers:
        chosen = chosen_of(Path(run))
        if (chosen["all"], chosen["fold"]) != (arguments.all, arguments.fold):
            sys.exit(f"{run} was trained on other patients than this run is; give teachers of the same fold")
    return [read_averaged(Path(run)) for run in arguments.teachers]


def train(arguments: argparse.Namespace, patients: list[Patient] | None = None) -> None:
    """A run to its end, with those of `seen` unless they are loaded already."""
    chosen = {name: getattr(arguments, name) for name in CHOICES}

    torch.manual_seed(arguments.seed)
    model = build(arguments.model, arguments.slices)
    teachers = read_teachers(arguments)
    if arguments.start is not None:
        model.load_state_dict(load_file(arguments.start))
    model = model.to(memory_format=torch.channels_last).train()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(arguments.average), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, weight_decay=arguments.decay, fused=True)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "rows": [], "chosen": chosen}

    arguments.output.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.output / "last.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["chosen"] != chosen:
            sys.exit(f"{checkpoint} is of a run with {state['chosen']}, not {chosen}; give another folder")
        model.load_state_dict(state.pop("model"))
        averaged.load_state_dict(state.pop("averaged"))
        optimizer.load_state_dict(state.pop("optimizer"))

    if patients is None:
        patients = load(arguments.root, seen(arguments))
    print(f"{len(patients)} patients, from step {state['step']} to {arguments.steps}", flush=True)

    total, began = torch.zeros(3), time.process_time()
    for step in range(state["step"], arguments.steps):
        images, masks = draw_step(arguments, patients, step)
        if teachers:
            masks = softened(teachers, images, masks)
        rate = rate_at(step, arguments.steps, warm_up=arguments.warm_up, peak=arguments.rate)
        optimizer.param_groups[0]["lr"] = rate
        loss, parts = loss_of(model, images, masks, float32=arguments.float32)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if arguments.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), arguments.clip)
        optimizer.step()
        averaged.update_parameters(model)

        total += torch.stack([loss.detach(), parts["ce"], parts["dice"]])
        if (step + 1) % ROW_EVERY == 0:
            now = time.process_time()
            state["seconds"], began = state["seconds"] + now - began, now
            means = [round(value, 5) for value in (total / ROW_EVERY).tolist()]
            state["rows"].append([step + 1, round(state["seconds"], 1), rate, *means])
            total.zero_()
            print(*state["rows"][-1], flush=True)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == arguments.steps:
            state["step"] = step + 1
            trained = {
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            with written_whole(checkpoint) as path:
                torch.save(state | trained, path)
            write_rows(arguments.output / "losses.csv", state["rows"])
    write_weights(averaged.module.eval(), arguments.output / "weights")


def write_weights(model: nn.Module, folder: Path) -> None:
    if isinstance(model, SegmentationModel):
        model.save_pretrained(folder)
        return
    folder.mkdir(exist_ok=True)
    with written_whole(folder / "model.safetensors") as partial:
        save_file({key: x.contiguous() for key, x in model.state_dict().items()}, partial)


def write_rows(path: Path, rows: list[list[float]]) -> None:
    with written_whole(path) as partial, partial.open("w", newline="") as file:
        csv.writer(file).writerows([["step", "seconds", "rate", "loss", "ce", "dice"], *rows])


def create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    part = parser.add_mutually_exclusive_group(required=True)
    part.add_argument("--fold", type=int, choices=range(5), help="number of the fold that is left out")
    part.add_argument("--all", action="store_true", help="leave nobody out")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run; one that holds a run goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=8, help="slices in a step")
    parser.add_argument("--faulty", type=float, default=0.3, help="share of slices that get a fault of the scanner")
    parser.add_argument(
        "--model", default="unext", help="as find_network takes it: unext_small, monai/UNet, module:callable"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="the highest learning rate")
    parser.add_argument("--warm-up", type=int, default=300, help="steps to it")
    parser.add_argument("--decay", type=float, default=0.01, help="weight decay")
    parser.add_argument("--clip", type=float, help="norm of the gradient that is not exceeded; without it any")
    parser.add_argument("--average", type=float, default=0.999, help="share of the averaged weights that a step keeps")
    parser.add_argument("--copy-pre", action="store_true", help="FLAIR replaces pre-contrast alone as well")
    parser.add_argument("--float32", action="store_true", help="no bfloat16")
    parser.add_argument("--start", help="file of weights to start from, in place of random ones")
    parser.add_argument("--slices", type=int, default=1, help="that the network sees: with 3 those before and after")
    parser.add_argument(
        "--teachers", nargs="+", default=[], help="runs that have not seen the fold either, half of the target"
    )
    parser.add_argument("--root", type=Path, default=lgg_root(), help="folder of the patients' folders")
    parser.add_argument("--folds", type=Path, default=Path(__file__).with_name("folds.json"))
    return parser


def main() -> None:
    arguments = create_parser().parse_args()
    keep_freed_memory()  # a step takes three quarters of its time
    train(arguments)


if __name__ == "__main__":
    main()
