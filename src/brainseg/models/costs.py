"""What a network costs: parameters, multiply-adds and the memory of a training step, box by box."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from brainseg.checks import check_count, check_counts
from brainseg.models.base import SegmentationModel


@dataclass(frozen=True)
class StageSummary:
    """One box of a network; what data meets between two boxes counts with the later one.

    Attributes:
        name: of the box in the network; an encoder of timm has a row a feature, by its name in `feature_info`, or
            one row where these names repeat.
        shape: (channels, height, width) of its output, before the padding of the image is cropped off; None where
            evaluation does not call the box (the heads of deep supervision) or gets several tensors from it.
        parameters: trainable and frozen ones, those that several boxes share with the first.
        macs: as in `ModelSummary`.
    """

    name: str
    shape: tuple[int, ...] | None
    parameters: int
    macs: int


@dataclass(frozen=True)
class ModelSummary:
    """What `summary` counts; `str` gives a table.

    Attributes:
        parameters: trainable and frozen ones.
        macs: multiply-adds of convolutions, transposed convolutions and matrix products for one image in evaluation;
            biases, norms, activations, pooling and interpolation do not count.
        activation_bytes: what the forward pass of a training step with all parameters trainable keeps for the backward
            pass, for one image in the model's dtype: each memory once, parameters and buffers not at all. It is half of
            what two images need, since one of the smallest size has too few values for batch norms. Attention counts
            with its weights, which the fused kernels of some devices do not keep.
        stages: the boxes in the order in which data meets them, and last those that evaluation does not call. They sum
            to the parameters and macs of the network; boxes that have neither, such as pooling, are left out.
    """

    parameters: int
    macs: int
    activation_bytes: int
    stages: tuple[StageSummary, ...]

    @property
    def flops(self) -> int:
        """Floating-point operations: 2 for each multiply-add."""
        return 2 * self.macs

    def __str__(self) -> str:
        rows = [("name", "output", "parameters", "MMACs")]
        rows += [
            (s.name, "x".join(map(str, s.shape or "-")), f"{s.parameters:,}", f"{s.macs / 1e6:,.2f}")
            for s in self.stages
        ]
        first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [
            "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
            for name, *cells in rows
        ]
        total = (
            f"total: {self.parameters:,} parameters, {self.macs / 1e9:.4f} GMACs, {self.flops / 1e9:.4f} GFLOPs, "
            f"{self.activation_bytes / 2**20:.1f} MiB of activations in training"
        )
        return "\n".join([*lines, total])


def summary(model: nn.Module, size: Sequence[int] = (256, 256), *, in_channels: int | None = None) -> ModelSummary:
    """Counts what one image costs, on a copy of the network that has shapes but no numbers.

    Args:
        model: on any device, in any dtype and mode; stays as it is. One of ours, or any module from images to logits.
        size: height and width of the image in pixels.
        in_channels: channels of the image, for a network that is none of ours.

    Raises:
        ValueError: a size that is no two positive integers, or that the model does not take; a network of others
            without `in_channels`, or one that computes with numbers that shapes do not tell.

    >>> from brainseg.models import create_model
    >>> summary(create_model("unext")).macs
    562003968
    """
    height, width = check_counts("size", size, 2)
    if isinstance(model, SegmentationModel):
        in_channels = model.config["in_channels"]
    elif in_channels is None:
        raise ValueError(f"{type(model).__name__} does not say how many channels it takes; give in_channels=")
    else:
        in_channels = check_count("in_channels", in_channels)
    with torch.inference_mode(False):  # which turns gradients on as well, whatever mode the caller is in
        # The memo tells deepcopy what stands in the copy for each tensor, so that none is copied.
        memo: dict[int, Any] = {id(x): torch.empty_like(x, device="meta") for x in model.buffers()}
        memo |= {id(x): nn.Parameter(torch.empty_like(x, device="meta")) for x in model.parameters()}
        shapes = copy.deepcopy(model, memo)
        dtype = next((x.dtype for x in shapes.parameters()), torch.float32)
        images = torch.empty(2, in_channels, height, width, dtype=dtype, device="meta")
        if isinstance(shapes, SegmentationModel):
            shapes._check(images[:1])  # as one image, which is what an error should show
        try:
            activation_bytes = _saved_bytes(shapes.train(), images) // 2
            macs, stages = _walk(shapes.eval(), images[:1])
        except (RuntimeError, NotImplementedError) as error:
            if isinstance(model, SegmentationModel):
                raise
            raise ValueError(
                f"{type(model).__name__} cannot be counted for images of shape {tuple(images[:1].shape)}: {error}"
            ) from error
    return ModelSummary(sum(x.numel() for x in model.parameters()), macs, activation_bytes, tuple(stages))


def _saved_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, beside those of the model."""
    # By the address of the storage, as all meta data have one address; kept alive, so that no other storage gets it.
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images)
    for tensor in (*model.parameters(), *model.buffers()):
        storages.pop(tensor.untyped_storage()._cdata, None)
    return sum(storage.nbytes() for storage in storages.values())


def _walk(model: nn.Module, image: Tensor) -> tuple[int, list[StageSummary]]:
    """Multiply-adds of the image, and the boxes that it meets; leaves hooks on the model."""
    stride = model.stride if isinstance(model, SegmentationModel) else 1
    height, width = (-(-side // stride) * stride for side in image.shape[2:])
    # An encoder of timm is one box, and its features come from boxes inside it, in layouts of their own.
    infos = getattr(model, "feature_info", ()) if isinstance(model, SegmentationModel) else ()
    features = {
        info["module"]: (info["num_chs"], height // info["reduction"], width // info["reduction"]) for info in infos
    }
    if len(features) < len(infos):  # where timm does not name the boxes the encoder is one row
        features = {}
    boxes = {**{name: model.get_submodule(name) for name in features}, **dict(_boxes(model))}
    stages: list[StageSummary] = []
    met: set[nn.Parameter] = set()
    counter = FlopCounterMode(display=False)

    def enter(module: nn.Module, _: Any) -> None:
        met.update(module.parameters(recurse=False))

    def add(name: str, shape: tuple[int, ...] | None, own: Iterable[nn.Parameter]) -> None:
        met.update(own)  # which a module may use without calling the one that holds them
        parameters = sum(x.numel() for x in met) - sum(s.parameters for s in stages)
        macs = counter.get_total_flops() // 2 - sum(s.macs for s in stages)
        if parameters or macs:
            stages.append(StageSummary(name, shape, parameters, macs))

    def leave(name: str, box: nn.Module, _: Any, output: Any) -> None:
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else None
        add(name, features.get(name, shape), box.parameters())

    for module in model.modules():
        module.register_forward_pre_hook(enter)
    for name, box in boxes.items():
        box.register_forward_hook(partial(leave, name))
    with torch.no_grad(), counter:
        logits = model(image)
    add(type(model).__name__, tuple(logits.shape[1:]) if isinstance(logits, Tensor) else None, ())
    for name, box in boxes.items():
        add(name, None, box.parameters())
    return counter.get_total_flops() // 2, stages


def _boxes(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The direct children, with lists of modules taken apart."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from _boxes(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child
