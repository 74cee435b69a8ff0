"""Networks: parameters, operations, time and memory of an inference and of a training step."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._harness import Candidate, Case, Run
from brainseg.inference import optimize
from brainseg.models import create_model, list_models

SIZE = 256


def cases() -> list[Case]:
    """What `python -m benchmarks models` measures."""
    names = list_models()
    inference = [
        Candidate("MONAI UNet", partial(infer, monai_unet)),
        *(Candidate(name, partial(infer, partial(ours, name), optimize)) for name in names),
        Candidate("unext, batch norm not folded", partial(infer, partial(ours, "unext")), equal_to="unext"),
    ]
    compiled = [
        Candidate("unext", partial(infer, partial(ours, "unext"), optimize)),
        Candidate("unext, compiled", partial(infer, partial(ours, "unext"), compile_folded), equal_to="unext"),
    ]
    training = [
        Candidate("MONAI UNet", partial(train, monai_unet)),
        *(Candidate(name, partial(train, partial(ours, name))) for name in names),
    ]
    return [
        Case(f"Inference, batch 1, {SIZE}x{SIZE}, batch norm folded", inference),
        Case(f"Inference, batch 1, {SIZE}x{SIZE}, Inductor", compiled, quick=False),
        Case(f"Training step (forward and backward), batch 8, {SIZE}x{SIZE}", training),
    ]


def monai_unet() -> nn.Module:
    from monai.networks.nets import UNet

    channels, strides = (16, 32, 64, 128, 256), (2, 2, 2, 2)
    network: nn.Module = UNet(2, in_channels=3, out_channels=1, channels=channels, strides=strides, num_res_units=2)
    return network


def ours(name: str) -> nn.Module:
    """Always the same weights, with norms as after training, so that folding them has something to fold."""
    torch.manual_seed(0)
    model = create_model(name)
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
    model, image = build().eval(), _images(1)
    prepared = prepare(model)

    def call() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = prepared(image)
        return logits

    return Run(call, _facts(model, image))


def train(build: Callable[[], nn.Module]) -> Run:
    model, images = build().train(), _images(8)

    def call() -> Tensor:
        model.zero_grad()
        loss: Tensor = model(images).square().mean()
        torch.autograd.backward(loss)
        return loss

    return Run(call, _facts(model, images))


def _images(batch: int) -> Tensor:
    return torch.rand(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def _facts(model: nn.Module, images: Tensor) -> dict[str, float]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    macs = counter.get_total_flops() / 2 / len(images)
    return {"parameters": sum(p.numel() for p in model.parameters()), "GMACs": macs / 1e9}
