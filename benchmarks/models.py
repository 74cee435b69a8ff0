"""Networks: parameters, operations, time and memory of an inference and of a training step."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from brainseg.benchmark import Candidate, Case, Run, Setting, create_run, find_network
from brainseg.benchmark.costs import count_costs
from brainseg.models import create_model, list_models

SIZE = 256
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def cases() -> list[Case]:
    """What `python -m benchmarks models` measures."""
    light = list_models("unext*")
    heavy = [name for name in list_models() if name not in light]
    plain, optimized = Setting(DEVICE), Setting(DEVICE, optimize=True)
    inference = [
        Candidate("MONAI UNet", partial(run, monai_unet, plain)),
        Candidate("MONAI UNet with batch norm", partial(run, monai_batch_norm, plain)),
        Candidate(
            "the same, folded, channels_last",
            partial(run, monai_folded, Setting(DEVICE, layout="channels_last")),
            "MONAI UNet with batch norm",
        ),
        *(Candidate(name, partial(run, partial(ours, name), optimized)) for name in light),
        Candidate("unext, batch norm not folded", partial(run, partial(ours, "unext"), plain), equal_to="unext"),
    ]
    heavy_inference = [Candidate("unext", partial(run, partial(ours, "unext"), optimized))]
    for name in heavy:
        build = partial(ours, name)
        heavy_inference += [
            Candidate(name, partial(run, build, optimized)),
            Candidate(f"{name}, batch norm not folded", partial(run, build, plain), equal_to=name),
        ]
    compiled = [
        Candidate("unext", partial(run, partial(ours, "unext"), optimized)),
        Candidate(
            "unext, compiled",
            partial(run, partial(ours, "unext"), Setting(DEVICE, optimize=True, compile=True)),
            equal_to="unext",
        ),
    ]
    step = Setting(DEVICE, batch=8, mode="training")
    small_step = Setting(DEVICE, batch=2, mode="training")
    training = [
        Candidate("MONAI UNet", partial(run, monai_unet, step)),
        *(Candidate(name, partial(run, partial(ours, name), step)) for name in light),
    ]
    heavy_training = [Candidate(name, partial(run, partial(ours, name), small_step)) for name in ("unext", *heavy)]
    case = partial(Case, device=DEVICE)
    return [
        case(f"Inference, batch 1, {SIZE}x{SIZE}, ours optimized where not said otherwise", inference, images=1),
        case(f"Inference, batch 1, {SIZE}x{SIZE}, Inductor", compiled, quick=False, images=1),
        case(f"Training step (forward, backward, AdamW), batch 8, {SIZE}x{SIZE}", training, images=8),
        case(
            f"Inference, batch 1, {SIZE}x{SIZE}, U-Nets beside UNeXt, optimized where not said otherwise",
            heavy_inference,
            images=1,
        ),
        case(
            f"Training step (forward, backward, AdamW), batch 2, {SIZE}x{SIZE}, U-Nets beside UNeXt",
            heavy_training,
            images=2,
        ),
    ]


def run(build: Callable[[], nn.Module], setting: Setting) -> Run:
    counted = monai_batch_norm if build is monai_folded else build
    return create_run(build, setting, count_costs(counted(), 3, SIZE))


def monai_unet() -> nn.Module:
    """As it comes, with instance norm."""
    return find_network("monai/UNet")(3, SIZE)


def monai_batch_norm() -> nn.Module:
    from monai.networks.nets import UNet

    network: nn.Module = UNet(
        2, 3, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2, norm="BATCH"
    )
    return with_trained_norms(network)


def monai_folded() -> nn.Module:
    """Prepared as `optimize` prepares ours: what the peer can do at its best."""
    model = monai_batch_norm().eval()
    for block in list(model.modules()):
        conv, norm = getattr(block, "conv", None), getattr(getattr(block, "adn", None), "N", None)
        if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            block.conv = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
            block.get_submodule("adn").N = nn.Identity()
    return model


def ours(name: str) -> nn.Module:
    return with_trained_norms(create_model(name))


def with_trained_norms(model: nn.Module) -> nn.Module:
    """Batch norms as after training, so that folding them has something to fold."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            for key, buffer in module.named_buffers():
                if key.startswith("running_"):
                    nn.init.uniform_(buffer, 0.5, 1.5)
    return model
