"""Networks: parameters, operations, time and memory of an inference and of a training step."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._harness import Candidate, Case, Run
from brainseg.inference import optimize
from brainseg.models import create_model, list_models

SIZE = 256
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def cases() -> list[Case]:
    """What `python -m benchmarks models` measures."""
    light = list_models("unext*")
    heavy = [name for name in list_models() if name not in light]
    inference = [
        Candidate("MONAI UNet", partial(infer, monai_unet)),
        Candidate("MONAI UNet with batch norm", partial(infer, monai_batch_norm)),
        Candidate(
            "the same, folded, channels_last",
            partial(infer, monai_batch_norm, fold_monai),
            "MONAI UNet with batch norm",
        ),
        *(Candidate(name, partial(infer, partial(ours, name), optimize)) for name in light),
        Candidate("unext, batch norm not folded", partial(infer, partial(ours, "unext")), equal_to="unext"),
    ]
    heavy_inference = [Candidate("unext", partial(infer, partial(ours, "unext"), optimize))]
    for name in heavy:
        build = partial(ours, name)
        heavy_inference += [
            Candidate(name, partial(infer, build, optimize)),
            Candidate(f"{name}, batch norm not folded", partial(infer, build), equal_to=name),
        ]
    compiled = [
        Candidate("unext", partial(infer, partial(ours, "unext"), optimize)),
        Candidate("unext, compiled", partial(infer, partial(ours, "unext"), compile_folded), equal_to="unext"),
    ]
    training = [
        Candidate("MONAI UNet", partial(train, monai_unet)),
        *(Candidate(name, partial(train, partial(ours, name))) for name in light),
    ]
    heavy_training = [Candidate(name, partial(train, partial(ours, name), batch=2)) for name in ("unext", *heavy)]
    return [
        Case(f"Inference, batch 1, {SIZE}x{SIZE}, ours optimized where not said otherwise", inference),
        Case(f"Inference, batch 1, {SIZE}x{SIZE}, Inductor", compiled, quick=False),
        Case(f"Training step (forward and backward), batch 8, {SIZE}x{SIZE}", training),
        Case(
            f"Inference, batch 1, {SIZE}x{SIZE}, U-Nets beside UNeXt, optimized where not said otherwise",
            heavy_inference,
        ),
        Case(f"Training step (forward and backward), batch 2, {SIZE}x{SIZE}, U-Nets beside UNeXt", heavy_training),
    ]


def monai_unet(**arguments: str) -> nn.Module:
    """As it comes, with instance norm."""
    from monai.networks.nets import UNet

    channels, strides = (16, 32, 64, 128, 256), (2, 2, 2, 2)
    network: nn.Module = UNet(
        2, in_channels=3, out_channels=1, channels=channels, strides=strides, num_res_units=2, **arguments
    )
    return network


def monai_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return with_trained_norms(monai_unet(norm="BATCH"))


def fold_monai(model: nn.Module) -> nn.Module:
    """Prepared as `optimize` prepares ours: what the peer can do at its best."""
    for block in list(model.modules()):
        conv, norm = getattr(block, "conv", None), getattr(getattr(block, "adn", None), "N", None)
        if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            block.conv = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
            block.get_submodule("adn").N = nn.Identity()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def ours(name: str) -> nn.Module:
    torch.manual_seed(0)
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


def compile_folded(model: nn.Module) -> nn.Module:
    compiled: nn.Module = torch.compile(optimize(model))  # type: ignore[assignment]
    return compiled


def infer(build: Callable[[], nn.Module], prepare: Callable[[nn.Module], nn.Module] = nn.Module.eval) -> Run:
    model, image = build().to(DEVICE).eval(), _images(1)
    facts = _facts(model, image)
    prepared = prepare(model)

    def call() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = prepared(image)
        return logits

    return Run(call, facts)


def train(build: Callable[[], nn.Module], *, batch: int = 8) -> Run:
    model, images = build().to(DEVICE).train(), _images(batch)

    def call() -> Tensor:
        loss: Tensor = model(images).square().mean()
        torch.autograd.backward(loss)
        model.zero_grad()
        return loss

    return Run(call, _facts(model, images))


def _images(batch: int) -> Tensor:
    return torch.rand(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def _facts(model: nn.Module, images: Tensor) -> dict[str, float]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    macs = counter.get_total_flops() / 2 / len(images)
    return {"parameters": sum(p.numel() for p in model.parameters()), "GMACs": macs / 1e9}
