"""What a network costs: counted by hand for small ones, as published, and as measured for what training keeps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from brainseg.inference import optimize
from brainseg.models import ModelSummary, ResUNet, SegmentationModel, UNet, create_model, list_models, summary
from tests.models.contract import deep_supervision, narrow, saved_storages

narrow_and_registered = pytest.mark.parametrize("build", [narrow, pytest.param(create_model, marks=pytest.mark.slow)])


class OneConvolution(SegmentationModel):
    stride = 1
    stems = ("conv",)

    def __init__(self, in_channels: int = 3, num_classes: int = 1) -> None:
        super().__init__(in_channels, num_classes)
        self.conv = nn.Conv2d(in_channels, 4, kernel_size=3, padding=1)
        self._build_heads([4])

    def encode(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x)]

    def decode(self, features: list[Tensor]):  # type: ignore[no-untyped-def]
        yield features.pop()


class OwnWeights(OneConvolution):
    """Computes between its boxes and behind the last one, with weights of its own and a box that it never calls."""

    def __init__(self, in_channels: int = 3, num_classes: int = 1) -> None:
        super().__init__(in_channels, num_classes)
        self.inside = nn.Parameter(torch.eye(4))
        self.behind = nn.Parameter(torch.eye(num_classes))
        self.unused = nn.Linear(2, 3)

    def encode(self, x: Tensor) -> list[Tensor]:
        return [torch.einsum("oc,bchw->bohw", self.inside, self.conv(x))]

    def _logits(self, finest: Tensor, height: int, width: int) -> Tensor:
        return torch.einsum("ok,bkhw->bohw", self.behind, super()._logits(finest, height, width))


def rows(costs: ModelSummary) -> list[tuple[Any, ...]]:
    return [dataclasses.astuple(stage) for stage in costs.stages]


def assert_stages_sum_to_the_whole(costs: ModelSummary) -> None:
    assert sum(stage.parameters for stage in costs.stages) == costs.parameters
    assert sum(stage.macs for stage in costs.stages) == costs.macs


def measured_bytes(model: SegmentationModel, height: int, width: int) -> float:
    """What a training step on the CPU keeps for one of two images, told apart by where the data lie."""
    like = next(model.parameters())
    images = torch.rand(2, model.config["in_channels"], height, width).to(like)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention keeps less, on the devices that have it
        storages = saved_storages(lambda: model.train()(images))
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in own) / 2


# Counts


def test_a_convolution_is_counted_by_hand() -> None:
    costs = summary(OneConvolution(in_channels=2), (40, 50))
    assert costs.parameters == (2 * 9 + 1) * 4 + (4 + 1)
    assert costs.macs == 40 * 50 * (2 * 9 * 4 + 4)
    assert costs.flops == 2 * costs.macs
    assert costs.activation_bytes == 40 * 50 * (2 + 4) * 4  # the image for the convolution, its map for the head
    assert rows(costs) == [
        ("conv", (4, 40, 50), (2 * 9 + 1) * 4, 40 * 50 * 2 * 9 * 4),
        ("head", (1, 40, 50), 4 + 1, 40 * 50 * 4),
    ]


# ../shared/specs/unet_resunet_unext.md, sections 1.1, 2.1 and 3.2
@pytest.mark.parametrize(
    ("name", "arguments", "parameters", "gmacs"),
    [
        ("unext_tiny", {}, 77_257, "0.0745"),
        ("unext_small", {}, 253_561, "0.0992"),
        ("unext", {}, 1_471_921, "0.5620"),
        ("unext", {"num_classes": 4}, 1_471_972, "0.5651"),  # three more of 16 x 256 x 256 MACs
        ("unext_large", {}, 3_985_633, "1.4036"),
        ("unet_small", {}, 7_763_041, "12.0712"),
        ("unet", {}, 31_037_633, "48.1674"),
        ("resunet", {}, 8_219_585, "45.2272"),
        ("resunet", {"downsample": "pool"}, 8_219_585, "45.2272"),
        ("resunet", {"upsample": "transposed"}, 9_596_737, "48.4484"),
    ],
)
def test_counts_are_the_published_ones(name: str, arguments: dict[str, Any], parameters: int, gmacs: str) -> None:
    costs = summary(create_model(name, **arguments))
    assert costs.parameters == parameters
    assert f"{costs.macs / 1e9:.4f}" == gmacs


def test_every_stage_of_unext_has_the_published_macs() -> None:
    stages = summary(create_model("unext")).stages
    assert [stage.name for stage in stages] == [
        *(f"stages.{i}" for i in range(5)),
        *(f"decoder.{i}" for i in range(5)),
        "head",
    ]
    # section 1.8: stages 1 to 5, up 1 to 5, head
    published = ["28.31", "75.50", "150.99", "60.66", "32.13", "37.07", "81.92", "37.75", "18.87", "37.75", "1.05"]
    assert [f"{stage.macs / 1e6:.2f}" for stage in stages] == published
    widths = [16, 32, 128, 160, 256, 160, 128, 32, 16, 16, 1]
    sides = [128, 64, 32, 16, 8, 16, 32, 64, 128, 256, 256]
    assert [stage.shape for stage in stages] == [(c, side, side) for c, side in zip(widths, sides, strict=True)]


def test_the_boxes_of_unet_are_met_in_the_order_of_the_paper() -> None:
    shapes = {stage.name: stage.shape for stage in summary(create_model("unet")).stages}
    assert list(shapes) == [
        *("encoder.0", "encoder.1", "encoder.2", "encoder.3", "bottleneck"),
        *(f"{box}.{i}" for i in range(4) for box in ("up", "decoder")),
        "head",
    ]
    # section 2.1
    assert (shapes["encoder.3"], shapes["bottleneck"]) == ((512, 32, 32), (1024, 16, 16))
    assert (shapes["decoder.0"], shapes["decoder.3"]) == ((512, 32, 32), (64, 256, 256))


@narrow_and_registered
@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("size", [(97, 129), *(pytest.param((n, n), marks=pytest.mark.slow) for n in (32, 256))])
def test_stages_sum_to_the_whole(name: str, size: tuple[int, int], build: Callable[[str], SegmentationModel]) -> None:
    model = build(name)
    size = tuple(max(side, model.minimum_side) for side in size)
    costs = summary(model, size)
    assert_stages_sum_to_the_whole(costs)
    if name.startswith("mask_dino"):  # the last box gives the predictions of all queries
        assert costs.stages[-1].shape is None
    else:
        assert costs.stages[-1].shape[1:] == tuple(-(-side // model.stride) * model.stride for side in size)


def test_what_a_network_computes_by_itself_counts_with_the_box_behind_it() -> None:
    costs = summary(OwnWeights(num_classes=2), (40, 50))
    assert_stages_sum_to_the_whole(costs)
    assert rows(costs) == [
        ("conv", (4, 40, 50), 4 * 4 + 2 * 2 + (3 * 9 + 1) * 4, 40 * 50 * 3 * 9 * 4),
        ("head", (2, 40, 50), (4 + 1) * 2, 40 * 50 * (4 * 4 + 4 * 2)),
        ("OwnWeights", (2, 40, 50), 0, 40 * 50 * 2 * 2),
        ("unused", None, 2 * 3 + 3, 0),
    ]


@pytest.mark.parametrize(
    ("encoder", "boxes", "channels", "sides"),
    [
        ("resnet34", ["act1", "layer1", "layer2", "layer3", "layer4"], [64, 64, 128, 256, 512], [32, 16, 8, 4, 2]),
        # Its boxes give maps (B, H, W, C).
        ("swin_tiny_patch4_window7_224", [f"layers_{i}" for i in range(4)], [96, 192, 384, 768], [16, 8, 4, 2]),
    ],
)
def test_an_encoder_of_timm_has_a_row_for_each_feature(
    encoder: str, boxes: list[str], channels: list[int], sides: list[int]
) -> None:
    model = UNet(encoder=encoder)
    costs = summary(model, (64, 64))
    assert_stages_sum_to_the_whole(costs)
    features = costs.stages[: len(boxes)]
    assert [stage.name for stage in features] == [f"encoder.backbone.{box}" for box in boxes]
    assert [stage.name for stage in features] == [info["module"] for info in model.feature_info]
    assert [stage.shape for stage in features] == [(c, side, side) for c, side in zip(channels, sides, strict=True)]
    assert sum(stage.parameters for stage in features) == sum(x.numel() for x in model.encoder.parameters())


def test_resnet34_has_the_published_parameters_without_its_classifier() -> None:
    stages = summary(UNet(encoder="resnet34"), (64, 64)).stages
    # He et al. 2016, table 1, as torchvision counts it: 21,797,672 with 1000 classes.
    assert sum(s.parameters for s in stages if s.name.startswith("encoder")) == 21_797_672 - (512 + 1) * 1000
    assert stages[0].parameters == 7 * 7 * 3 * 64 + 2 * 64  # the convolution and norm before the first feature's box


@pytest.mark.parametrize("encoder", ["mvitv2_tiny", "hrnet_w18_small"])
def test_a_backbone_whose_features_come_from_no_box_is_one_row(encoder: str) -> None:
    costs = summary(UNet(encoder=encoder), (64, 64))
    (row,) = [stage for stage in costs.stages if stage.name.startswith("encoder")]
    assert (row.name, row.shape) == ("encoder", None)
    assert_stages_sum_to_the_whole(costs)


def test_heads_of_deep_supervision_cost_parameters_alone_in_evaluation() -> None:
    plain, deep = (summary(create_model("unet_small", deep_supervision=on)) for on in (False, True))
    assert deep.macs == plain.macs
    assert deep.stages[: len(plain.stages)] == plain.stages
    assert rows(deep)[len(plain.stages) :] == [
        (f"auxiliary_heads.{i}", None, width + 1, 0) for i, width in enumerate((256, 128, 64))
    ]
    assert_stages_sum_to_the_whole(deep)


def test_an_optimized_network_has_no_norms_and_computes_its_upsampling() -> None:
    model = ResUNet(channels=(8, 16, 32))
    before, after = summary(model, (64, 64)), summary(optimize(model), (64, 64))
    kernels = {"up.1": 16 * 4 * 4 * 32 * 32}  # of each channel; wide maps are interpolated
    assert after.macs - before.macs == sum(kernels.values())
    assert {s.name: s.macs for s in after.stages if s.name in kernels} == kernels
    assert after.parameters < before.parameters
    assert_stages_sum_to_the_whole(after)


# What training keeps


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("name", list_models())
def test_activations_are_as_measured(name: str, checkpointing: bool) -> None:
    model = narrow(name, **deep_supervision(name))
    model.set_grad_checkpointing(checkpointing)
    assert summary(model, (97, 129)).activation_bytes == measured_bytes(model, 97, 129)


@narrow_and_registered
@pytest.mark.parametrize("name", list_models())
def test_checkpointing_keeps_less(name: str, build: Callable[[str], SegmentationModel]) -> None:
    model = build(name)
    plain = summary(model)
    model.set_grad_checkpointing()
    checkpointed = summary(model)
    assert checkpointed.activation_bytes < 0.7 * plain.activation_bytes
    assert dataclasses.replace(checkpointed, activation_bytes=plain.activation_bytes) == plain


def test_activations_are_of_the_models_dtype() -> None:
    model = create_model("unext_small").double()
    assert summary(model, (64, 64)).activation_bytes == measured_bytes(model, 64, 64)
    image, half = summary(OneConvolution(), (64, 64)), summary(OneConvolution().half(), (64, 64))
    assert half.activation_bytes == image.activation_bytes / 2


# The network


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_network_stays_as_it_is(device: str, training: bool) -> None:
    with torch.device(device):
        model = create_model("unext_tiny", drop=0.1, drop_path=0.1, deep_supervision=True).train(training)
    model.stages[0].train(not training).requires_grad_(False)  # type: ignore[index]
    before = [(module.training, len(module._forward_hooks)) for module in model.modules()]
    tensors = [(tensor, tensor.clone(), tensor.requires_grad) for tensor in (*model.parameters(), *model.buffers())]
    seed = torch.get_rng_state()
    summary(model, (64, 64))
    assert [(module.training, len(module._forward_hooks)) for module in model.modules()] == before
    after = [*model.parameters(), *model.buffers()]
    for tensor, (same, values, requires_grad) in zip(after, tensors, strict=True):
        assert tensor is same
        assert tensor.requires_grad == requires_grad
        assert device == "meta" or torch.equal(tensor, values)
    assert torch.equal(torch.get_rng_state(), seed)


def test_counts_do_not_depend_on_the_state_of_the_network() -> None:
    model = create_model("unet_small", deep_supervision=True)
    expected = summary(model, (64, 64))
    assert summary(model.eval(), (64, 64)) == expected
    assert summary(model.to(memory_format=torch.channels_last), (64, 64)) == expected
    model.encoder[0].requires_grad_(False)  # type: ignore[index]
    assert summary(model, (64, 64)) == expected
    assert summary(model.requires_grad_(False), (64, 64)) == expected
    with torch.no_grad():
        assert summary(model, (64, 64)) == expected
    with torch.inference_mode():
        assert summary(model, (64, 64)) == expected
        assert summary(create_model("unet_small", deep_supervision=True), (64, 64)) == expected
    assert summary(model.to("meta"), (64, 64)) == expected


@pytest.mark.parametrize("size", [256, (256,), (256, 256.0), (256, -1), "256x256"])
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match=r"^size must be 2 positive integers|^each of size must be"):
        summary(create_model("unext_tiny"), size)


def test_a_size_that_the_network_does_not_take_is_refused_in_its_words() -> None:
    with pytest.raises(ValueError, match=r"UNeXt takes sides of at least 32 pixels, .* 31, 64\); resize or pad it"):
        summary(create_model("unext_tiny"), (31, 64))


# The table


def test_the_table_is_read_from_left_to_right() -> None:
    assert str(summary(UNet(1, 2, channels=(4, 8)), (64, 32))).splitlines() == [
        "name         output  parameters  MMACs",
        "encoder.0   4x64x32         196   0.37",
        "bottleneck  8x32x16         896   0.44",
        "up.0        4x64x32         132   0.07",
        "decoder.0   4x64x32         448   0.88",
        "head        2x64x32          10   0.02",
        "total: 1,682 parameters, 0.0018 GMACs, 0.0036 GFLOPs, 0.4 MiB of activations in training",
    ]


def test_any_module_is_counted() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1, bias=False))
    costs = summary(module, (32, 48), in_channels=2)
    assert (costs.parameters, costs.macs) == (4 * 2 * 9 + 4 + 4, 32 * 48 * (4 * 2 * 9 + 4))
    assert [stage.shape for stage in costs.stages] == [(4, 32, 48), (1, 32, 48)]
    with pytest.raises(ValueError, match="Sequential does not say how many channels it takes; give in_channels="):
        summary(module)
    with pytest.raises(ValueError, match=r"cannot be counted for images of shape \(1, 3, 256, 256\)"):
        summary(module, in_channels=3)
