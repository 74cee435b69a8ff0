"""The whole network: arguments, targets, classes, half precision, backbones."""

import copy
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.inference import Predictor
from brainseg.models import MaskDINO, MaskDINOHead, SegmentationModel, SetCriterion, create_model, load_weights
from brainseg.models.mask_dino import (
    instance_inference,
    panoptic_inference,
    semantic_inference,
    semantic_logits,
    targets_from_masks,
)
from tests.models.contract import NARROW_QUERIES, images

SMALL = {**NARROW_QUERIES, "channels": (8, 8, 16, 16)}


def small(**arguments: Any) -> MaskDINO:
    torch.manual_seed(0)
    return MaskDINO(**{"backbone": "small", **SMALL, **arguments})


def disk(batch: int = 2, classes: int = 1, height: int = 64, width: int = 96) -> Tensor:
    masks = torch.zeros(batch, classes, height, width, dtype=torch.bool)
    masks[0, :, 10:40, 20:50] = True
    return masks


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init_box": "mask"}, "init_box must be one of 'no', 'bitmask', 'mask2box', got 'mask'"),
        ({"denoising": "yes"}, "denoising must be one of 'seg', 'standard', 'no'"),
        ({"feature_order": "up"}, "feature_order must be one of"),
        ({"two_stage": False}, "one-stage queries are learned: .*init_box='bitmask'"),
        ({"two_stage": False, "init_box": "no", "learn_content": True}, "learn_content=True"),
        ({"initial_prediction": False}, "set initial_prediction=True"),
        ({"total_levels": 2}, "total_levels must be at least the number of encoder_features"),
        ({"encoder_features": ["res5"], "total_levels": 2}, "and 1 for a single one, got 2 for 1"),
        ({"encoder_features": ["res6"]}, r"some of res2, res3, res4, res5, each once, got \['res6'\]"),
        ({"encoder_features": ["res5", "res5", "res4"]}, "each once"),
        ({"conv_dim": 48}, "conv_dim must be a multiple of 32"),
        ({"hidden_dim": 36}, "hidden_dim must be a multiple of 8"),
        ({"hidden_dim": 30, "decoder_heads": 2}, "hidden_dim must be a multiple of 4"),
        ({"num_queries": 0}, "num_queries must be a positive integer, got 0"),
        ({"two_stage": 1}, "two_stage must be True or False, got 1"),
        ({"encoder_drop": 1.0}, r"encoder_drop must lie in \[0, 1\)"),
        ({"dn_noise": 2}, r"dn_noise must lie in \[0, 1\], got 2"),
        ({"oversample": 0.5}, r"oversample must lie in \[1, 1000\]"),
        ({"channels": (8, 8, 16)}, "channels must be 4 positive integers"),
        ({"channels": (8, 8, 16, 20)}, "multiples of 8"),
        ({"pretrained": True}, "for a timm backbone"),
        ({"backbone": "resnet18"}, "channels are the widths of backbone='small'"),
        ({"backbone": "vit_tiny_patch16_224", "channels": None}, "features of strides"),
        ({"backbone": nn.Conv2d(3, 8, 1)}, "MaskDINOHead"),
        ({"frozen_norms": "no"}, "frozen_norms must be True or False, got 'no'"),
        ({"things": [1]}, r"things must be some of the classes 0 to 0, got \[1\]"),
        ({"dn_noise": None}, r"dn_noise must lie in \[0, 1\]"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_unknown_arguments_are_answered_with_the_known_ones() -> None:
    with pytest.raises(TypeError, match="takes no queries; it takes encoder_features, total_levels"):
        small(queries=5)


# A training step


def test_losses_through_forward_are_those_of_the_criterion() -> None:
    model = small().train()
    targets = targets_from_masks(disk())
    torch.manual_seed(1)
    total, parts = model(images(), targets)
    torch.manual_seed(1)
    expected, expected_parts = model.criterion(model.forward_queries(images(), targets), targets)
    assert torch.equal(total, expected)
    assert parts == expected_parts


def test_denoising_and_criterion_get_the_same_targets() -> None:
    model = small().train()
    targets = targets_from_masks(disk())
    predictions = model.forward_queries(images(), targets)
    with pytest.raises(ValueError, match=r"targets of \[1, 0\] objects, and the criterion got targets of \[0, 0\]"):
        model.criterion(predictions, targets_from_masks(torch.zeros(2, 1, 64, 96)))
    with pytest.raises(ValueError, match="got NoneType for 2 images; give a list with one for each"):
        model.criterion(predictions, None)
    with pytest.raises(ValueError, match=r"target 0 must have labels and masks, .*got NoneType"):
        model.criterion(predictions, [None, None])


def test_a_step_with_more_objects_than_slots_or_none_at_all_goes_on_and_is_warned_of_once() -> None:
    model = small(num_classes=6).train()
    with pytest.warns(UserWarning, match="an image has 6 objects, more than the 4 denoising queries"):
        model.forward_queries(images(), targets_from_masks(disk(classes=6)))
    for masks in (disk(classes=6), torch.zeros(2, 6, 64, 96)):
        targets = targets_from_masks(masks)
        predictions = model.forward_queries(images(), targets)
        assert predictions.dn is None
        total, parts = model.criterion(predictions, targets)
        total.backward()
        assert parts["loss_class_dn"] == 0
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_targets_may_be_those_of_the_image_or_of_the_padded_one() -> None:
    model = small().train()
    x, masks = images(2, 3, 70, 100), disk(height=70, width=100)
    padded = F.pad(x, (0, 28, 0, 26)), F.pad(masks, (0, 28, 0, 26))
    totals = []
    for image, mask in ((x, masks), padded):
        torch.manual_seed(1)
        targets = targets_from_masks(mask)
        totals.append(model.criterion(model.forward_queries(image, targets), targets)[0])
    torch.testing.assert_close(totals[0], totals[1])


def test_all_layers_have_masks_with_targets_or_in_training_and_the_last_alone_otherwise() -> None:
    model = small()
    targets = targets_from_masks(disk())
    for mode, given, auxiliary in (
        (True, None, True),
        (True, targets, True),
        (False, targets, True),
        (False, None, False),
    ):
        predictions = model.train(mode).forward_queries(images(), given)
        assert len(predictions.aux) == 2
        assert all((layer.pred_masks is not None) == auxiliary for layer in predictions.aux)
        assert (predictions.dn is not None) == (mode and given is not None)
        assert predictions.pred_masks is not None
        assert predictions.pred_masks.shape == (2, 8, 16, 24)


def test_validation_loss_needs_no_training_mode() -> None:
    model = small().eval()
    targets = targets_from_masks(disk())
    with torch.no_grad():
        total, parts = model.criterion(model.forward_queries(images(), targets), targets)
    assert total.isfinite()
    assert parts["loss_class_dn"] == 0


def test_forward_is_the_semantic_logits_of_the_queries() -> None:
    model = small(num_classes=2).eval()
    x = images(2, 3, 70, 100)
    with torch.no_grad():
        torch.testing.assert_close(model(x), semantic_logits(model.forward_queries(x), (70, 100)))


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    model = small(in_channels=1).train()
    masks = disk()
    x, targets = masks.float(), targets_from_masks(masks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(40):
        total, _ = model.criterion(model.forward_queries(x, targets), targets)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-5:]) < 0.4 * sum(totals[:5])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_training_step_under_autocast_is_finite(dtype: torch.dtype) -> None:
    model = small(num_classes=2).train()
    targets = targets_from_masks(disk(classes=2))
    with torch.autocast("cpu", dtype):
        total, _ = model.criterion(model.forward_queries(images() * 10, targets), targets)
    total.backward()
    assert total.isfinite()
    assert total.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "arguments", [{"two_stage": False, "init_box": "no"}, {"learn_content": True, "denoising": "no"}]
)
def test_every_parameter_of_other_settings_learns(arguments: dict[str, Any]) -> None:
    model = small(**arguments).train()
    targets = targets_from_masks(disk())
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    model.criterion(model.forward_queries(images(), targets), targets)[0].backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any() or (key.endswith("label_enc.weight") and "denoising" in arguments), key


# Classes and files


def test_reset_classifier_changes_what_belongs_to_classes_alone() -> None:
    model = small().double().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_classifier(3)
    after = model.state_dict()
    assert before.keys() == after.keys()
    of_classes = {
        "query_head.class_embed.weight",
        "query_head.class_embed.bias",
        "query_head.denoising.label_enc.weight",
    }
    assert {key for key in before if not torch.equal(before[key], after[key])} == of_classes
    assert model.config["num_classes"] == 3
    targets = targets_from_masks(disk(classes=3))
    predictions = model.forward_queries(images().double(), targets)
    assert predictions.pred_logits.shape == (2, 8, 3)
    assert model.criterion(predictions, targets)[0].dtype == torch.float64
    with pytest.raises(ValueError, match="num_classes must be a positive integer, got 0"):
        model.reset_classifier(0)
    with pytest.raises(ValueError, match="things must be some of the classes 0 to 0"):
        small(num_classes=2, things=[1]).reset_classifier(1)
    model.criterion.weights["class"] = 1.0
    model.reset_classifier(2)
    assert model.criterion.weights["class"] == 1.0  # a criterion that was changed stays
    model.criterion = SetCriterion(2, weights={"class": 2.0})
    model.reset_classifier(4)
    assert (model.criterion.weights["class"], model.criterion.num_classes) == (2.0, 4)
    assert len(model.state_dict()) == len(before)


def test_weights_are_loaded_into_another_way_of_training(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    model = SegmentationModel.from_pretrained(tmp_path, denoising="no", num_points=128)
    assert model.config["denoising"] == "no"
    assert load_weights(small(dn_number=9), tmp_path) == []
    fewer = SegmentationModel.from_pretrained(tmp_path, num_queries=5).eval()
    assert fewer.forward_queries(images()).pred_logits.shape[1] == 5
    with pytest.raises(ValueError, match="init_box='bitmask' and not 'no'"):
        load_weights(small(init_box="no"), tmp_path)


def test_learned_queries_are_as_many_as_their_file_holds(tmp_path: Path) -> None:
    small(learn_content=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"queries.content.weight"):
        SegmentationModel.from_pretrained(tmp_path, num_queries=5)


# Backbones


def test_a_backbone_of_ones_own_needs_four_features() -> None:
    head = MaskDINOHead((8, 8, 16, 16), num_classes=2, **NARROW_QUERIES).eval()
    model = small(num_classes=2).eval()
    head.load_state_dict(model.query_head.state_dict())
    features = model.backbone(images())
    with torch.no_grad():
        assert torch.equal(head(features).pred_logits, model.forward_queries(images()).pred_logits)
    with pytest.raises(ValueError, match=r"must have sides .*\(2, 3\)\], got .*pad images to a multiple of 32"):
        head([*features[:3], features[3][..., 1:]])
    for wrong in ([], features[:3], [x.movedim(1, -1) for x in features], [x[0] for x in features]):
        with pytest.raises(ValueError, match=r"with D = \[8, 8, 16, 16\], got"):
            head(wrong)
    with pytest.raises(TypeError, match="must be a list of tensors, fine to coarse, got dict"):
        head(dict(zip(("res2", "res3", "res4", "res5"), features, strict=True)))


def test_a_frozen_residual_network_is_no_identity_and_has_no_trainable_norms() -> None:
    frozen = MaskDINO(backbone="test_resnet", **NARROW_QUERIES)
    norms = [module for module in frozen.backbone.modules() if "BatchNorm" in type(module).__name__]
    assert norms
    assert all((norm.weight == 1).all() and not norm.weight.requires_grad for norm in norms)
    free = MaskDINO(backbone="test_resnet", frozen_norms=False, **NARROW_QUERIES)
    assert sum(p.numel() for p in free.parameters()) > sum(p.numel() for p in frozen.parameters())


def test_swin_shifts_its_windows_after_padding_them() -> None:
    model = MaskDINO(backbone="swin_tiny_patch4_window7_224", feature_norms=True, **NARROW_QUERIES).eval()
    block = model.backbone.get_submodule("encoder.backbone.layers_0.blocks.1")
    attention, window, shift = block.attn, 7, 3
    x = torch.randn(1, 9, 16, 96, generator=torch.Generator().manual_seed(0))
    padded = F.pad(x, (0, 0, 0, 5, 0, 5)).roll((-shift, -shift), (1, 2))  # 14 x 21

    def zones(length: int) -> Tensor:  # what lies together before the shift
        place = torch.arange(length)
        return (place >= length - window).int() + (place >= length - shift).int()

    zone = zones(14)[:, None] * 3 + zones(21)
    expected = torch.zeros_like(padded)
    for i in range(2):
        for j in range(3):
            rows, columns = slice(7 * i, 7 * i + 7), slice(7 * j, 7 * j + 7)
            own = zone[rows, columns].flatten()
            mask = torch.where(own[:, None] == own, 0.0, -100.0)
            tokens = padded[:, rows, columns].reshape(1, 49, 96)
            expected[:, rows, columns] = attention(tokens, mask=mask[None]).view(1, 7, 7, 96)
    expected = expected.roll((shift, shift), (1, 2))[:, :9, :16]
    torch.testing.assert_close(block._attn(x), expected)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(model)(images(1)), model(images(1)))


def test_masks_of_another_size_are_refused() -> None:
    for mode in (True, False):
        with pytest.raises(ValueError, match=r"masks of target 0 are \(1, 32, 48\), and the image has .*\(64, 96\)"):
            small().train(mode).forward_queries(images(), targets_from_masks(disk()[..., ::2, ::2]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_that_are_not_finite_are_named(value: float) -> None:
    x = images(3)
    x[0, 1, 5, 5] = x[2, 0, 0, 0] = value
    model = small().eval()
    for call in (model, model.forward_queries, model.forward_intermediates, model.train()):
        what = "NaN" if math.isnan(value) else "infinity"
        message = rf"pixels of images 0, 2 of the batch of 3, counted from 0, hold {what}; leave such images out"
        with pytest.raises(ValueError, match=message):
            call(x)


def test_logits_that_are_not_finite_are_named_and_no_empty_result() -> None:
    predictions = small().eval().forward_queries(images(3))
    for field, what in (("pred_logits", "class logits"), ("pred_masks", "mask logits")):
        values = getattr(predictions, field).detach().clone()
        values[1].view(-1)[0] = torch.nan
        unsound = replace(predictions, **{field: values})
        for result in (instance_inference, semantic_inference, partial(panoptic_inference, things=[0])):
            with pytest.raises(
                ValueError, match=f"{what} of image 1 of the batch of 3, counted from 0, hold NaN; look"
            ):
                result(unsound)
    model = small()
    torch.nn.init.constant_(model.query_head.class_embed.weight, torch.nan)
    with pytest.raises(ValueError, match="class logits of images 0, 1, 2 of the batch of 3"):
        model.eval()(images(3))
    with pytest.raises(ValueError, match="class logits of image 0 of the batch of 1"):
        Predictor(model, device="cpu")(torch.rand(images().shape[1:]))
    assert model.train()(images()).isnan().any()  # as loss scaling needs it


def test_an_empty_batch_has_empty_logits() -> None:
    assert small().eval()(images()[:0]).shape == (0, 1, 64, 96)


def test_create_model_takes_another_backbone() -> None:
    with torch.device("meta"):
        model = create_model("mask_dino_small", backbone="test_resnet")
    assert model.config["hidden_dim"] == 128
