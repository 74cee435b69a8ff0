"""Mask DINO beside a plain rendering of its formulas: criterion, deformable attention, class logits, a whole step."""

import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import mask_dino_plain as plain
from brainseg.benchmark import Candidate, Case, Run
from brainseg.data import phantom
from brainseg.models import MaskDINO, QueryPredictions, create_model
from brainseg.models.mask_dino import (
    DeformableAttention,
    SetCriterion,
    Target,
    deformable_attention,
    semantic_logits,
    targets_from_masks,
)
from brainseg.models.mask_dino.randomness import Rand

SIDE, CLASSES = 256, 20
Attention = Callable[..., Tensor]
Total = Callable[[SetCriterion, QueryPredictions, list[Target], Rand | None], Tensor]


def cases() -> list[Case]:
    """What `python -m benchmarks mask_dino` measures; the first row of a case is the plain one."""
    small = partial(model, plain.attend, plain.criterion), partial(model, DeformableAttention.forward, total)
    return [
        beside(
            f"Criterion with its gradient, mask_dino_resnet50, batch 2, {SIDE}x{SIDE}",
            partial(criterion, plain.criterion),
            partial(criterion, total),
        ),
        beside(
            "Deformable attention of an encoder's layer, mask_dino_small, batch 4",
            partial(attention, plain.deformable_attention),
            partial(attention, deformable_attention),
        ),
        beside(
            "The same with its gradient",
            partial(attention, plain.deformable_attention, training=True),
            partial(attention, deformable_attention, training=True),
        ),
        beside(
            f"Class logits of {CLASSES} classes, 100 queries, {SIDE}x{SIDE}",
            partial(classes, plain.semantic_logits),
            partial(classes, semantic_logits),
        ),
        beside(
            f"Inference of mask_dino_small, batch 4, {SIDE}x{SIDE}", *(partial(each, training=False) for each in small)
        ),
        beside(
            f"Training step of mask_dino_small, batch 4, {SIDE}x{SIDE}",
            *(partial(each, training=True) for each in small),
        ),
    ]


def beside(title: str, formulas: Callable[[], Run], ours: Callable[[], Run]) -> Case:
    return Case(title, [Candidate("plain", formulas), Candidate("brainseg", ours, "plain", 1e-3)])


def total(settings: SetCriterion, predictions: QueryPredictions, targets: list[Target], rand: Rand | None) -> Tensor:
    loss: Tensor = settings(predictions, targets, rand=rand)[0]
    return loss


def criterion(compute: Total) -> Run:
    """The total of predictions of all ten layers, the encoder and denoising, and its gradient."""
    generator = torch.Generator().manual_seed(0)
    leaves: list[Tensor] = []

    def layer(queries: int, **others: Any) -> QueryPredictions:
        shapes = ((2, queries, 1), (2, queries, SIDE // 4, SIDE // 4), (2, queries, 4))
        logits, masks, boxes = (torch.randn(shape, generator=generator) for shape in shapes)
        own = [logits.requires_grad_(), masks.requires_grad_(), boxes.sigmoid().requires_grad_()]
        leaves.extend(own)
        return QueryPredictions(own[0], own[1], own[2], **others)

    dn = layer(100, aux=[layer(100) for _ in range(9)])
    predictions = layer(300, aux=[layer(300) for _ in range(9)], interm=layer(300), dn=dn, groups=100)
    settings, targets = SetCriterion(1), objects(2)

    def call(rand: Rand | None = None) -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        loss = compute(settings, predictions, targets, rand)
        torch.autograd.backward(loss)
        return loss

    def result() -> Tensor:
        loss = call(drawn)
        return torch.stack([loss.detach(), *(leaf.grad.norm() for leaf in leaves if leaf.grad is not None)])

    with Counter() as forward:
        compute(settings, predictions, targets, None)
    with Counter() as everything:
        call()
    return Run(call, {"calls": forward.calls, "with those of the gradient": everything.calls}, result)


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draws that depend on their names alone, so that both criterions look at the same points."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def attention(attend: Attention, *, training: bool = False) -> Run:
    generator = torch.Generator().manual_seed(0)
    shapes = [(SIDE // 32, SIDE // 32), (SIDE // 16, SIDE // 16), (SIDE // 8, SIDE // 8)]
    tokens = sum(rows * columns for rows, columns in shapes)
    value = torch.randn(4, tokens, 8, 16, generator=generator).requires_grad_(training)
    locations = torch.rand(4, tokens, 8, 3, 4, 2, generator=generator).requires_grad_(training)
    shares = torch.rand(4, tokens, 8, 3, 4, generator=generator).requires_grad_(training)
    leaves = (value, locations, shares)

    def call() -> Tensor:
        if not training:
            with torch.inference_mode():
                return attend(value, shapes, locations, shares)
        gradients = torch.autograd.grad(attend(value, shapes, locations, shares).square().sum(), leaves)
        return torch.cat([gradient.flatten() for gradient in gradients])

    return Run(call)


def classes(to_logits: Callable[[QueryPredictions], Tensor]) -> Run:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(1, 100, CLASSES, generator=generator)
    masks = 3 * torch.randn(1, 100, SIDE // 4, SIDE // 4, generator=generator)
    predictions = QueryPredictions(logits, masks, torch.zeros(1, 100, 4))

    def call() -> Tensor:
        with torch.inference_mode():
            return to_logits(predictions)

    return Run(call)


def model(attend: Attention, compute: Total, *, training: bool) -> Run:
    """The whole network with one attention or the other, and with one criterion or the other in a step."""
    torch.manual_seed(0)
    network = create_model("mask_dino_small").train(training)
    assert isinstance(network, MaskDINO)
    images, targets = slices(4)[0], objects(4)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0, weight_decay=0.0, fused=True)

    def call(rand: Rand | None = None) -> Tensor:
        with patch.object(DeformableAttention, "forward", attend):
            if not training:
                with torch.inference_mode():
                    logits: Tensor = network(images)
                    return logits
            optimizer.zero_grad()
            loss = compute(network.criterion, network.forward_queries(images, targets, rand=rand), targets, rand)
            torch.autograd.backward(loss)
            optimizer.step()
            return loss.detach()

    return Run(call, result=(lambda: call(drawn)[None]) if training else None)


@cache
def slices(number: int) -> tuple[Tensor, Tensor]:
    """Images and masks of phantoms, a lesion each."""
    images, masks = zip(*(phantom(seed, size=SIDE, lesion=True) for seed in range(number)), strict=True)
    return torch.stack(images), torch.stack(masks)


def objects(number: int) -> list[Target]:
    return targets_from_masks(slices(number)[1])


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what torch computes, views of memory left out: about the kernels that a GPU would start."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += not func.is_view
        return func(*args, **(kwargs or {}))
