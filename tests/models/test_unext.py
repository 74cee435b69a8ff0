"""UNeXt against the authors' code, and each claim of its definition."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.models import UNeXt, create_model
from brainseg.models.convert import _unext_keys
from brainseg.models.unext import DropPath, ShiftedBlock, ShiftedMLP, shift
from tests.goldens.recipe import make_mask
from tests.goldens.reference import GRADIENT_TOLERANCE, TOLERANCE, build, error

NAMES = ("unext_eval_256", "unext_s_eval_128x96", "unext_train_64")
PARAMETERS = {"unext_tiny": 77_257, "unext_small": 253_561, "unext": 1_471_921, "unext_large": 3_985_633}
SHIFT_AXES = (("height", -2), ("width", -1))


def record_stages(model: UNeXt, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and every intermediate map under its name in the goldens."""
    stages: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, *, tokens: bool = False, before: bool = False) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None = None) -> None:
            value = inputs[0] if output is None else output
            stages[name] = (value.permute(0, 3, 1, 2) if tokens else value).clone()

        module.register_forward_pre_hook(hook) if before else module.register_forward_hook(hook)

    def keep_block(name: str, block: ShiftedBlock) -> None:
        keep(f"{name}.block.norm", block.norm, tokens=True)
        keep(f"{name}.block.shift_h", block.mlp.fc1, tokens=True, before=True)
        keep(f"{name}.block.fc1", block.mlp.fc1, tokens=True)
        keep(f"{name}.block.dwconv", block.mlp.dwconv)
        keep(f"{name}.block.shift_w", block.mlp.fc2, tokens=True, before=True)
        keep(f"{name}.block.fc2", block.mlp.fc2, tokens=True)
        keep(f"{name}.block", block, tokens=True)

    for i, stage in enumerate(model.stages, start=1):
        keep(f"stage{i}", stage)
        if i <= 3:
            keep(f"stage{i}.bn", stage.norm)
        else:
            keep(f"stage{i}.embed", stage.embed, tokens=True)
            keep_block(f"stage{i}", stage.blocks[0])
    for i, up in enumerate(model.decoder, start=1):
        keep(f"up{i}", up)
        if i <= 4:
            keep(f"up{i}.bn", up.norm)
        else:
            keep(f"up{i}.conv", up.conv)
        if i <= 2:
            keep(f"up{i}.sum", up.blocks, tokens=True, before=True)
            keep_block(f"up{i}", up.blocks[0])
    return model(image), stages


def official_loss(logits: Tensor, target: Tensor) -> Tensor:
    p, axes = logits.sigmoid(), (1, 2, 3)
    dice = (2 * (p * target).sum(axes) + 1e-5) / (p.sum(axes) + target.sum(axes) + 1e-5)
    return 0.5 * F.binary_cross_entropy_with_logits(logits, target) + 1 - dice.mean()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_every_stage_and_the_logits_equal_the_authors_code(
    name: str, dtype: torch.dtype, read_golden: Callable[[str], dict[str, Any]]
) -> None:
    golden = read_golden(name)
    model, image = build(golden, dtype)
    with torch.no_grad():
        logits, stages = record_stages(model, image)
    errors = {stage: error(stages[stage], reference) for stage, reference in golden["stages"].items()}
    errors["logits"] = error(logits, golden["output"])
    assert {key: value for key, value in errors.items() if not value < TOLERANCE[dtype]} == {}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_loss_gradients_and_running_statistics_equal_the_authors_code(
    dtype: torch.dtype, read_golden: Callable[[str], dict[str, Any]]
) -> None:
    golden = read_golden("unext_train_64")
    model, image = build(golden, dtype)
    target = make_mask(golden["mask"]["seed"], tuple(golden["mask"]["shape"])).to(dtype)
    assert target.sum((2, 3)).tolist() == golden["mask"]["sum_per_sample_and_channel"]
    loss = official_loss(model(image), target)
    loss.backward()
    assert loss.item() == pytest.approx(golden["loss"], rel=TOLERANCE[dtype])

    keys, parameters = _unext_keys(), dict(model.named_parameters())
    assert set(golden["gradients"]) == {key for key in keys if keys[key] in parameters}
    largest = max(reference["norm"] for reference in golden["gradients"].values())
    for key, reference in golden["gradients"].items():
        gradient = parameters[keys[key]].grad
        assert gradient is not None, key
        if reference.get("zero_by_construction"):
            assert gradient.norm() < 1e-5 * largest, key
            continue
        found = gradient.double().flatten()[torch.tensor(reference["indices"])]
        difference = (found - torch.tensor(reference["values"], dtype=torch.float64)).abs().max().item()
        assert difference < GRADIENT_TOLERANCE[dtype] * reference["norm"], key
        assert gradient.double().norm().item() == pytest.approx(reference["norm"], rel=GRADIENT_TOLERANCE[dtype]), key

    state_dict = model.state_dict()
    for key, expected in golden["bn_after_one_forward"].items():
        found = state_dict[keys[key]].double().flatten().tolist()
        assert found == pytest.approx(expected if isinstance(expected, list) else [expected], rel=1e-5, abs=1e-6), key


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(name: str, expected: int) -> None:
    assert sum(p.numel() for p in create_model(name).parameters()) == expected


@pytest.mark.parametrize(
    ("in_channels", "num_classes", "channels"), [(1, 1, (8, 16, 24, 32, 64)), (5, 4, (4, 6, 7, 9, 11))]
)
def test_parameter_count_follows_the_formula(in_channels: int, num_classes: int, channels: tuple[int, ...]) -> None:
    i, n = in_channels, num_classes
    a, b, c, d, e = channels
    expected = (9 * i * a + 3 * a) + (9 * a * b + 3 * b) + (9 * b * c + 3 * c)
    expected += (9 * c * d + 2 * d**2 + 19 * d) + (9 * d * e + 2 * e**2 + 19 * e)
    expected += (9 * e * d + 2 * d**2 + 19 * d) + (9 * d * c + 2 * c**2 + 19 * c)
    expected += (9 * c * b + 3 * b) + (9 * b * a + 3 * a) + (9 * a**2 + a) + (a * n + n)
    assert sum(p.numel() for p in UNeXt(i, n, channels=channels).parameters()) == expected


@pytest.mark.parametrize("channels", [5, 16, 64, 128, 160])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (7, 4)])
@pytest.mark.parametrize("axis", ["height", "width"])
@pytest.mark.parametrize("shift_size", [1, 4, 5, 7])
def test_shift_follows_its_definition(channels: int, height: int, width: int, axis: str, shift_size: int) -> None:
    x = torch.rand(2, height, width, channels)
    expected = torch.zeros_like(x)
    group = -(-channels // shift_size)
    for q in range(channels):
        s = q // group - shift_size // 2
        for i in range(height):
            for j in range(width):
                row, column = (i - s, j) if axis == "height" else (i, j - s)
                if 0 <= row < height and 0 <= column < width:
                    expected[:, i, j, q] = x[:, row, column, q]
    assert torch.equal(shift(x, axis, shift_size), expected)


def test_depths_are_the_numbers_of_blocks_on_both_ways() -> None:
    model = UNeXt(channels=(4, 6, 8, 10, 12), depths=(2, 3), drop_path=0.5)
    boxes = [model.stages[3], model.stages[4], model.decoder[0], model.decoder[1]]
    assert [len(box.blocks) for box in boxes] == [2, 3, 2, 3]
    rates = [[block.drop_path.rate for block in box.blocks] for box in boxes]
    assert rates == [pytest.approx(expected) for expected in ([0, 0.1], [0.2, 0.3, 0.4], [0, 0.1], [0.2, 0.3, 0.4])]
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 1, 64, 64)


def test_drop_path_keeps_or_scales_whole_images() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3, 1)
    scale = DropPath(0.25).train()(x).flatten(1)
    assert torch.equal(scale.amax(1), scale.amin(1))
    assert scale[:, 0].unique().tolist() == pytest.approx([0, 4 / 3])
    assert (scale[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(DropPath(0.25).eval()(x), x)


def test_dropout_acts_in_training_only() -> None:
    model = UNeXt(channels=(4, 6, 8, 10, 12), drop=0.5)
    x = torch.rand(2, 3, 64, 64)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_initialisation_follows_the_authors() -> None:
    torch.manual_seed(0)
    model = UNeXt()
    mlp, embed, conv = model.stages[4].blocks[0].mlp, model.stages[4].embed.proj, model.decoder[0].conv
    assert mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert mlp.dwconv.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert embed.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    assert conv.weight.abs().max().item() == pytest.approx((256 * 9) ** -0.5, rel=1e-3)
    assert not any(b.any() for b in (mlp.fc1.bias, mlp.fc2.bias, mlp.dwconv.bias, embed.bias))


def test_tokens_and_maps_share_memory() -> None:
    model = UNeXt(channels=(4, 6, 8, 10, 12)).eval()
    layouts = []
    for stage in model.stages:
        stage.register_forward_hook(
            lambda _, __, output: layouts.append(output.is_contiguous(memory_format=torch.channels_last))
        )
    model(torch.rand(2, 3, 64, 64))
    assert layouts == [True] * 5


def test_gradients_of_every_image_come_out_of_one_call() -> None:
    model = UNeXt(channels=(4, 6, 8, 10, 12)).eval()
    parameters, images = dict(model.named_parameters()), torch.rand(2, 1, 3, 64, 64)

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (image,)).square().mean()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, images)
    for i, image in enumerate(images):
        for key, expected in torch.func.grad(loss)(parameters, image).items():
            torch.testing.assert_close(found[key][i], expected, rtol=1e-4, atol=1e-6)


def test_one_image_at_the_smallest_size_cannot_be_normalised_in_training() -> None:
    model = UNeXt(channels=(4, 6, 8, 10, 12)).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (1, 2, 3)}, r"channels must be 5 positive integers, got \(1, 2, 3\)"),
        ({"channels": (0, 2, 3, 4, 5)}, "each of channels must be a positive integer, got 0"),
        ({"channels": "12345"}, "channels must be 5 positive integers, got '12345'"),
        ({"channels": 5}, "channels must be 5 positive integers, got 5"),
        ({"depths": (1, 1, 1)}, "depths must be 2 positive integers"),
        ({"depths": (True, 1)}, "each of depths must be a positive integer, got True"),
        ({"shift_size": 0}, "shift_size must be a positive integer, got 0"),
        ({"shift_size": 2.5}, "shift_size must be a positive integer, got 2.5"),
        ({"mlp_ratio": 0.001}, "mlp_ratio must leave every hidden width at least 1, got 0.001"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio must leave"),
        ({"mlp_ratio": "2"}, "mlp_ratio must leave"),
        ({"drop": 1.0}, r"drop must lie in \[0, 1\), got 1.0"),
        ({"drop_path": -0.1}, r"drop_path must lie in \[0, 1\), got -0.1"),
        ({"drop": "0.1"}, r"drop must lie in \[0, 1\), got '0.1'"),
        ({"deep_supervision": "no"}, "deep_supervision must be True or False, got 'no'"),
        ({"in_channels": 0}, "in_channels must be a positive integer, got 0"),
        ({"num_classes": True}, "num_classes must be a positive integer, got True"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNeXt(**arguments)


def test_numpy_numbers_are_welcome() -> None:
    model = UNeXt(np.int64(1), channels=np.array([4, 6, 8, 10, 12]), shift_size=np.int64(3), drop=np.float64(0.25))
    assert model.config["channels"] == [4, 6, 8, 10, 12]
    assert (model.config["shift_size"], model.config["drop"]) == (3, 0.25)


def test_every_block_has_the_ratio_the_shift_and_the_rate_that_were_asked_for() -> None:
    model = UNeXt(channels=(4, 6, 8, 10, 12), mlp_ratio=1.5, shift_size=3, drop=0.25)
    mlps = [module for module in model.modules() if isinstance(module, ShiftedMLP)]
    assert [mlp.fc1.out_features for mlp in mlps] == [15, 18, 15, 12]
    assert [(mlp.shift_size, mlp.drop.p) for mlp in mlps] == [(3, 0.25)] * 4


@pytest.mark.parametrize("shift_size", [3, 5])
def test_the_shifted_mlp_follows_its_formula_with_both_dropouts(shift_size: int) -> None:
    mlp = ShiftedMLP(7, 14, shift_size=shift_size, drop=0.5).train()
    tokens = torch.randn(2, 6, 5, 7)
    torch.manual_seed(1)
    found = mlp(tokens)
    torch.manual_seed(1)
    hidden = shift(tokens, "height", shift_size) @ mlp.fc1.weight.T + mlp.fc1.bias
    hidden = F.conv2d(hidden.permute(0, 3, 1, 2), mlp.dwconv.weight, mlp.dwconv.bias, padding=1, groups=14)
    hidden = hidden.permute(0, 2, 3, 1)
    hidden = F.dropout(hidden / 2 * (1 + torch.erf(hidden / 2**0.5)), 0.5)
    expected = F.dropout(shift(hidden, "width", shift_size) @ mlp.fc2.weight.T + mlp.fc2.bias, 0.5)
    torch.testing.assert_close(found, expected)
