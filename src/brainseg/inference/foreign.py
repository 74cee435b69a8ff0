"""Networks of others: what has to be said of them, and what they have to answer."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from brainseg.models import ModelSpec, QueryPredictions, SegmentationModel
from brainseg.models.mask_dino.predictions import describe_not_finite

Module = TypeVar("Module", bound=nn.Module)


def find_spec(model: nn.Module, spec: ModelSpec | None) -> ModelSpec | None:
    """The spec that is given, else the network's own; None for a network of others without one.

    Raises:
        ValueError: a spec of another number of classes than the network has.
    """
    if spec is None:
        own = getattr(model, "spec", None)
        return own if isinstance(own, ModelSpec) else None
    if isinstance(model, SegmentationModel) and spec.num_classes != model.config["num_classes"]:
        raise ValueError(
            f"a spec of {spec.num_classes} class(es) does not fit a network of num_classes="
            f"{model.config['num_classes']}; name each class once"
        )
    return spec


def check_logits(logits: Any, images: Tensor, model: nn.Module) -> Tensor:
    """What a network answered to images, if it is one tensor with four axes, and of their size.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(logits, Tensor) or logits.dim() != 4:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"{type(model).__name__} answered with {got}, expected logits (B, K, H, W); put a module around it that "
            "returns these"
        )
    if logits.shape[2:] != images.shape[2:]:
        raise ValueError(
            f"{type(model).__name__} answered with logits of {tuple(logits.shape[2:])} pixels to images of "
            f"{tuple(images.shape[2:])}; put a module around it that resizes them"
        )
    return logits


def check_finite(logits: Tensor, model: nn.Module) -> None:
    """ValueError for logits that hold NaN or infinity: no comparison with NaN is true, and nothing would be found."""
    if unsound := describe_not_finite(logits):
        raise ValueError(
            f"{type(model).__name__}'s logits of {unsound}; look for such weights, or predict in float32 or bfloat16 "
            "in place of float16"
        )


def copy_of(model: Module) -> Module:
    """A deep copy; of modules too that compute weights in each call, as torch.nn.utils.weight_norm makes them.

    PyTorch refuses to copy what was computed.
    """
    own = (value for module in model.modules() for value in vars(module).values())
    computed = [value for value in own if isinstance(value, Tensor) and not value.is_leaf]
    return deepcopy(model, {id(value): value.detach().clone() for value in computed})


def frozen_copy(model: Module) -> Module:
    """A copy in eval mode without gradients, in which what old norms compute in each call are weights like others."""
    frozen = copy_of(model).eval().requires_grad_(False)
    for module in frozen.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, WeightNorm | SpectralNorm):
                hook.remove(module)
                del module._forward_pre_hooks[key]
    return frozen.requires_grad_(False)


def find_queries(model: nn.Module) -> Callable[[Tensor], QueryPredictions]:
    """What a network answers for objects, of images (B, C, H, W).

    Raises:
        ValueError: it answers for pixels alone.
    """
    queries: Callable[[Tensor], QueryPredictions] | None = getattr(model, "forward_queries", None)
    if queries is None:
        raise ValueError(
            f"{type(model).__name__} answers for pixels and not for objects; instances are those of a network with "
            "queries, such as mask_dino_small"
        )
    return queries
