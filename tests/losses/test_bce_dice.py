"""The loss of the published experiments against the authors' code and against its formula in numpy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from brainseg.losses import BCEDiceLoss, bce_dice_loss
from brainseg.models import convert_state_dict, create_model
from tests.goldens.recipe import make_input, make_mask, make_state_dict

TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-5}


def official(logits: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[float, float]:
    """BCE and Dice as specs/lgg_experiments.md states them, naively."""
    p = 1 / (1 + np.exp(-logits))
    bce = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    axes = (1, 2, 3)
    dice = (2 * (p * target).sum(axes) + 1e-5) / (p.sum(axes) + target.sum(axes) + 1e-5)
    return bce, 1 - dice.mean()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_defaults_give_the_loss_of_the_authors_code(dtype: torch.dtype) -> None:
    golden = json.loads((Path(__file__).parents[1] / "goldens" / "unext_train_64.json").read_text())
    model = create_model("unext", in_channels=3, num_classes=3).to(dtype).train()
    weights = make_state_dict(golden["weights"]["salt"], {key: shape for key, shape, _ in golden["state_dict"]})
    model.load_state_dict(convert_state_dict(weights, "UNeXt-pytorch"))
    image = make_input(golden["input"]["seed"], tuple(golden["input"]["shape"])).to(dtype)
    target = make_mask(golden["mask"]["seed"], tuple(golden["mask"]["shape"]))
    with torch.no_grad():
        found = bce_dice_loss(model(image), target)
    assert found.item() == pytest.approx(golden["loss"], rel=TOLERANCE[dtype])


@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 4), classes=st.integers(1, 3), share=st.floats(0, 1))
def test_the_defaults_are_the_official_formula(seed: int, batch: int, classes: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    logits = 4 * generator.standard_normal((batch, classes, 7, 5))
    target = (generator.random(logits.shape) < share).astype(np.float64)
    bce, dice = official(logits, target)
    total, parts = BCEDiceLoss().parts(torch.from_numpy(logits), torch.from_numpy(target))
    assert bce_dice_loss(torch.from_numpy(logits), torch.from_numpy(target)).item() == pytest.approx(0.5 * bce + dice)
    assert total.item() == pytest.approx(0.5 * bce + dice)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx({"bce": bce, "dice": dice})


def test_none_gives_the_loss_of_each_image_with_its_classes_pooled() -> None:
    generator = np.random.default_rng(0)
    logits, target = generator.standard_normal((3, 2, 6, 4)), (generator.random((3, 2, 6, 4)) < 0.2).astype(np.float64)
    found = bce_dice_loss(torch.from_numpy(logits), torch.from_numpy(target), reduction="none")
    terms = [official(logits[i : i + 1], target[i : i + 1]) for i in range(3)]
    assert found.tolist() == pytest.approx([0.5 * bce + dice for bce, dice in terms])


def test_a_batch_is_one_large_image() -> None:
    logits, target = torch.randn(3, 2, 6, 4), torch.rand(3, 2, 6, 4)
    large = (x.movedim(0, 1).flatten(1, 2)[None] for x in (logits, target))
    torch.testing.assert_close(bce_dice_loss(logits, target, batch=True), bce_dice_loss(*large))
    assert bce_dice_loss(logits, target, batch=True, reduction="none").shape == ()


def test_an_image_without_tumour_costs_1_until_the_predicted_mass_is_near_smooth() -> None:
    # 1 - 1e-5 / (mass + 1e-5), with mass = 4 * p.
    p = torch.tensor([0.5, 2.5e-3, 2.5e-6], dtype=torch.float64)
    logits = p.logit()[:, None, None, None].expand(3, 1, 2, 2)
    found = bce_dice_loss(logits, torch.zeros(3, 1, 2, 2), bce_weight=0, reduction="none")
    assert found.tolist() == pytest.approx([1 - 1e-5 / 2.00001, 1 - 1e-5 / 0.01001, 0.5])


def test_the_terms_are_weighted_as_asked_and_their_parts_are_not() -> None:
    logits, target = torch.randn(2, 1, 6, 4), (torch.rand(2, 1, 6, 4) < 0.3).float()
    bce = F.binary_cross_entropy_with_logits(logits, target)
    total, parts = BCEDiceLoss(bce_weight=2.0, dice_weight=3.0, smooth=1.0).parts(logits, target)
    torch.testing.assert_close(parts["bce"], bce)
    torch.testing.assert_close(total, 2 * bce + 3 * parts["dice"])
    torch.testing.assert_close(total, bce_dice_loss(logits, target, bce_weight=2.0, dice_weight=3.0, smooth=1.0))


def test_the_total_has_a_gradient_and_its_parts_have_none() -> None:
    total, parts = BCEDiceLoss().parts(torch.zeros(2, 1, 4, 4, requires_grad=True), torch.ones(2, 1, 4, 4))
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())


def test_a_mistake_of_the_largest_logits_costs_their_size() -> None:
    logits = torch.tensor([1e4, -1e4], dtype=torch.float16).reshape(1, 1, 1, 2)
    found = bce_dice_loss(logits, torch.tensor([[[[False, True]]]]), dice_weight=0)
    assert found.item() == pytest.approx(0.5 * 1e4)


def test_class_indices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"target of shape \(2, 4, 4\) has class indices, .* give a floating or bool"):
        bce_dice_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))
