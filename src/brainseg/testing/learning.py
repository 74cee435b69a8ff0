"""Gradients, checkpointing, and the compilers."""

import copy

import torch
from torch import Tensor

from brainseg.testing.rules import (
    Build,
    Step,
    expect,
    expect_close,
    expect_equal,
    images,
    seeded,
    step_of_outputs,
    trained,
)


def check_gradients(build: Build, step: Step = step_of_outputs) -> None:
    """Every parameter receives a finite gradient, and every weight one that is not zero."""
    model = trained(build, num_classes=2).train()
    step(model, images(3, 3, 97, 129))
    for key, parameter in model.named_parameters():
        expect(parameter.grad is not None, f"{key} receives no gradient: DistributedDataParallel would stop")
        assert parameter.grad is not None
        expect(bool(parameter.grad.isfinite().all()), f"the gradient of {key} is not finite")
        expect(parameter.dim() < 2 or bool(parameter.grad.any()), f"the gradient of {key} is zero")


def check_checkpointing(build: Build, step: Step = step_of_outputs) -> None:
    """`set_grad_checkpointing` changes neither gradients nor the statistics of norms."""
    plain = seeded(build).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.set_grad_checkpointing()
    x = images(3)
    for model in (plain, checkpointed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            step(model, x)
    for (key, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        expect((a.grad is None) == (b.grad is None), f"{key} has a gradient with or without checkpointing alone")
        if a.grad is not None and b.grad is not None:
            close = torch.allclose(b.grad, a.grad, rtol=1e-5, atol=1e-8)
            expect(close, f"the gradient of {key} is another one with checkpointing")
    expect_equal(dict(checkpointed.named_buffers()), dict(plain.named_buffers()), "statistics with checkpointing")


def check_compile(build: Build) -> None:
    """`torch.compile(fullgraph=True)` makes one graph of the network, with the same logits."""
    model = trained(build)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        expect_close(compiled(images()), model(images()), "compiled logits")
    torch.compiler.reset()


def check_export(build: Build) -> None:
    """`torch.export` with free batch, height and width gives one program for all sizes."""
    model = trained(build)
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: free, 2: free, 3: free},)).module()
    with torch.no_grad():
        for batch, *sides in ((1, 64, 64), (3, 97, 129), (2, 33, 47)):
            height, width = (max(side, model.minimum_side + 1) for side in sides)
            x: Tensor = images(batch, 3, height, width)
            expect_close(program(x), model(x), f"exported logits of images {height}x{width}")
