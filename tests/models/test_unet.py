"""UNet against the authors' code, and each claim of its definition."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.models import SegmentationModel, UNet, create_model
from tests.goldens.reference import TOLERANCE, build, error, output

NAMES = ("unet_buda_probabilities",)


def record_stages(model: SegmentationModel, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and every map under its name in the goldens, which count decoders from the shallow end."""
    stages: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _, __, output: stages.update({name: output.clone()}))

    keep("enc1.conv1", model.encoder[0].conv1)
    for i in range(4):
        keep(f"enc{i + 1}", model.encoder[i])
        keep(f"upconv{4 - i}", model.up[i])
        keep(f"dec{4 - i}", model.decoder[i])
    keep("bottleneck", model.bottleneck)
    keep("logits", model.head)
    return model(image), stages


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_every_stage_and_the_probabilities_equal_the_authors_code(
    name: str, dtype: torch.dtype, read_golden: Callable[[str], dict[str, Any]]
) -> None:
    golden = read_golden(name)
    model, image = build(golden, dtype)
    with torch.no_grad():
        logits, stages = record_stages(model, image)
    errors = {stage: error(stages[stage], reference) for stage, reference in golden["stages"].items()}
    errors["output"] = error(output(logits, golden), golden["output"])
    assert {key: value for key, value in errors.items() if not value < TOLERANCE[dtype]} == {}


@pytest.mark.parametrize(
    ("name", "parameters", "buffers"), [("unet_small", 7_763_041, 5_906), ("unet", 31_037_633, 11_794)]
)
def test_parameter_counts_are_the_published_ones(name: str, parameters: int, buffers: int) -> None:
    model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(b.numel() for b in model.buffers()) == buffers
    assert len(model.state_dict()) == 118


@pytest.mark.parametrize("channels", [(4, 6), (3, 4, 5), (4, 5, 6, 7, 8, 9)])
def test_every_depth_follows_the_definition(channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = UNet(2, 3, channels=channels).double().train()
    assert model.stride == 2 ** (len(channels) - 1)
    image = torch.rand(2, 2, 64, 128, dtype=torch.float64)
    weights = model.state_dict()

    def block(x: Tensor, name: str) -> Tensor:
        for j in (1, 2):
            x = F.conv2d(x, weights[f"{name}.conv{j}.weight"], padding=1)
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
            scale, offset = (weights[f"{name}.norm{j}.{part}"].view(-1, 1, 1) for part in ("weight", "bias"))
            x = ((x - mean) / (variance + 1e-5).sqrt() * scale + offset).clamp(min=0)
        return x

    skips, x = [], image
    for k in range(len(channels) - 1):
        skips.append(block(x, f"encoder.{k}"))
        x = F.max_pool2d(skips[-1], 2)
    x = block(x, "bottleneck")
    for k, skip in enumerate(reversed(skips)):
        x = F.conv_transpose2d(x, weights[f"up.{k}.weight"], weights[f"up.{k}.bias"], stride=2)
        x = block(torch.cat([x, skip], dim=1), f"decoder.{k}")
    torch.testing.assert_close(model(image), F.conv2d(x, weights["head.weight"], weights["head.bias"]))


def test_the_bottleneck_is_the_last_and_smallest_feature() -> None:
    model = UNet(channels=(4, 6, 8, 10, 12))
    assert [info["module"] for info in model.feature_info] == [*(f"encoder.{k}" for k in range(4)), "bottleneck"]
    assert all(2 * a["reduction"] == b["reduction"] for a, b in pairwise(model.feature_info))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (8,)}, r"channels must be two or more positive integers, got \(8,\)"),
        ({"channels": 64}, "channels must be two or more positive integers, got 64"),
        ({"channels": (8, 0)}, "each of channels must be a positive integer, got 0"),
        ({"channels": "64"}, "channels must be two or more positive integers, got '64'"),
        ({"pretrained": True}, "pretrained= starts a timm backbone; name one by encoder="),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**arguments)


def test_deep_supervision_of_one_decoder_block_is_a_list_too() -> None:
    outputs = UNet(channels=(4, 6), deep_supervision=True).train()(torch.rand(2, 3, 64, 64))
    assert [tuple(output.shape) for output in outputs] == [(2, 1, 64, 64)]
    assert isinstance(outputs, list)
