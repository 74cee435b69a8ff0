"""The contract of all networks, for one's own."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from brainseg._names import no_such
from brainseg.models import SegmentationModel, create_model
from brainseg.testing import features, files, learning, outputs
from brainseg.testing.rules import Step, step_of_outputs

CHECKS: dict[str, Callable[..., None]] = {
    "shapes": outputs.check_shapes,
    "padding": outputs.check_padding,
    "refusals": outputs.check_refusals,
    "determinism": outputs.check_determinism,
    "layout": outputs.check_layout,
    "half_precision": outputs.check_half_precision,
    "features": features.check_features,
    "features_only": features.check_features_only,
    "layers": features.check_layers,
    "classifier": features.check_classifier,
    "config": files.check_config,
    "files": files.check_files,
    "adaptation": files.check_adaptation,
    "copies": files.check_copies,
    "gradients": learning.check_gradients,
    "checkpointing": learning.check_checkpointing,
    "compile": learning.check_compile,
    "export": learning.check_export,
}
OF_A_STEP = ("gradients", "checkpointing")


def check_model(
    model: str | Callable[..., SegmentationModel],
    *,
    skip: Collection[str] = (),
    step: Step = step_of_outputs,
    **arguments: Any,
) -> None:
    """Holds a network against the contract that every network of brainseg keeps.

    Logits of the image's size whatever it is, channels and classes at will, refused images, features under timm's
    names, heads that can be taken off, files, copies, half precision, channels_last, gradients, checkpointing, one
    graph for compilers and for export. A small network takes some seconds, most of them for the last two.

    Args:
        model: a registered name, a subclass of `SegmentationModel`, or a function that builds one from `in_channels`,
            `num_classes` and `arguments`.
        skip: names of checks to leave out, such as "export": those of the contract that the network does not keep.
        step: the forward and backward pass of a training step, (network, images) -> None, for a network with a
            criterion of its own; the mean square of its outputs if not given.
        arguments: of the constructor, such as narrow widths that make the checks quick.

    Raises:
        AssertionError: what the network does not keep, with the name of the check.
        ValueError: an unknown name of a network or a check.

    Example:
        >>> check_model("unext_tiny", channels=(4, 4, 5, 5, 10), skip=["compile", "export"])
    """
    if unknown := [name for name in skip if name not in CHECKS]:
        raise ValueError(no_such("check", unknown[0], CHECKS))
    build: Callable[..., Any] = partial(create_model, model) if isinstance(model, str) else model
    for name, check in CHECKS.items():
        if name in skip:
            continue
        try:
            check(partial(build, **arguments), **({"step": step} if name in OF_A_STEP else {}))
        except Exception as error:
            what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"{what}\nThis is the check {name!r}: {check.__doc__}") from error
