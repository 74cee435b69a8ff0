"""ResUNet against a reference build of its definition, and each claim of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.models import ResUNet, SegmentationModel
from tests.goldens.reference import TOLERANCE, build, error

NAMES = ("resunet_stride_eval_64x48",)
every_variant = pytest.mark.parametrize("downsample", ["stride", "pool"])
both_upsamplings = pytest.mark.parametrize("upsample", ["bilinear", "transposed"])


def record_stages(model: SegmentationModel, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and every intermediate map under its name in the golden."""
    stages: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _, __, output: stages.update({name: output.clone()}))

    for i in range(3):
        keep(f"enc{i + 1}", model.encoder[i])
        keep(f"up{i + 1}", model.up[i])
        keep(f"dec{i + 1}", model.decoder[i])
    keep("bridge", model.bridge)
    return model(image), stages


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_every_stage_and_the_logits_equal_the_reference(
    name: str, dtype: torch.dtype, read_golden: Callable[[str], dict[str, Any]]
) -> None:
    golden = read_golden(name)
    model, image = build(golden, dtype)
    with torch.no_grad():
        logits, stages = record_stages(model, image)
    errors = {stage: error(stages[stage], reference) for stage, reference in golden["stages"].items()}
    errors["logits"] = error(logits, golden["output"])
    assert {key: value for key, value in errors.items() if not value < TOLERANCE[dtype]} == {}


@every_variant
@pytest.mark.parametrize(
    ("upsample", "parameters", "keys"), [("bilinear", 8_219_585, 123), ("transposed", 9_596_737, 129)]
)
def test_parameter_counts_are_those_of_the_definition(
    downsample: str, upsample: str, parameters: int, keys: int
) -> None:
    model = ResUNet(downsample=downsample, upsample=upsample)  # type: ignore[arg-type]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(b.numel() for b in model.buffers()) == 9_236
    assert len(model.state_dict()) == keys


@every_variant
@both_upsamplings
@pytest.mark.parametrize("channels", [(4, 6), (4, 5, 6, 7), (3, 4, 5, 6, 7)])
def test_every_variant_follows_the_definition(downsample: str, upsample: str, channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = ResUNet(2, 3, channels=channels, downsample=downsample, upsample=upsample).double().train()  # type: ignore[arg-type]
    assert model.stride == 2 ** (len(channels) - 1)
    image = torch.rand(2, 2, 64, 96, dtype=torch.float64)
    weights = model.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, offset = (weights[f"{name}.{part}"].view(-1, 1, 1) for part in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + offset

    def unit(x: Tensor, name: str, stride: int = 1) -> Tensor:
        main = norm(x, f"{name}.norm1").clamp(min=0) if f"{name}.norm1.weight" in weights else x
        main = F.conv2d(main, weights[f"{name}.conv1.weight"], padding=1, stride=stride)
        main = F.conv2d(norm(main, f"{name}.norm2").clamp(min=0), weights[f"{name}.conv2.weight"], padding=1)
        shortcut = F.conv2d(x, weights[f"{name}.shortcut_conv.weight"], stride=stride)
        return main + norm(shortcut, f"{name}.shortcut_norm")

    def down(x: Tensor, name: str) -> Tensor:
        return unit(x, name, 2) if downsample == "stride" else unit(F.max_pool2d(x, 2), name)

    x = unit(image, "encoder.0")
    skips = [x]
    for k in range(1, len(channels) - 1):
        x = down(x, f"encoder.{k}")
        skips.append(x)
    x = down(x, "bridge")
    for k, skip in enumerate(reversed(skips)):
        if upsample == "bilinear":
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        else:
            x = F.conv_transpose2d(x, weights[f"up.{k}.weight"], weights[f"up.{k}.bias"], stride=2)
        x = unit(torch.cat([x, skip], dim=1), f"decoder.{k}")
    torch.testing.assert_close(model(image), F.conv2d(x, weights["head.weight"], weights["head.bias"]))


def test_the_first_unit_reads_the_image_without_a_norm_before() -> None:
    keys = ResUNet(channels=(4, 6, 8, 10)).state_dict()
    assert [k for k in ("encoder.0", "encoder.1", "bridge", "decoder.0") if f"{k}.norm1.weight" in keys] == [
        "encoder.1",
        "bridge",
        "decoder.0",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (8,)}, r"channels must be two or more positive integers, got \(8,\)"),
        ({"downsample": "max"}, "downsample must be 'stride' or 'pool', got 'max'"),
        ({"upsample": "nearest"}, "upsample must be 'bilinear' or 'transposed', got 'nearest'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResUNet(**arguments)
