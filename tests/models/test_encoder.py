"""timm backbones behind a UNet: shapes, odd sizes, gradients, files, and which are refused."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from brainseg._torchvision import make_importable
from brainseg.losses import DeepSupervisionLoss, DiceLoss
from brainseg.models import MaskDINO, SegmentationModel, UNet, create_model, hub
from brainseg.models.encoder import TimmEncoder
from brainseg.transforms import create_transform
from tests.models.contract import assert_close, images, randomize_statistics

STRIDE_OF_THE_FIRST_FEATURE = {
    "resnet34": 2,
    "convnext_tiny": 4,
    "efficientnet_b0": 2,
    "swin_tiny_patch4_window7_224": 4,
    "mobilenetv3_small_100": 2,
    "vgg11_bn": 1,
}
every_encoder = pytest.mark.parametrize("encoder", STRIDE_OF_THE_FIRST_FEATURE)
# Made for tests by timm: each a network of its kind, of less than a million parameters.
SMALL = ["test_resnet", "test_convnext", "test_efficientnet"]
every_small_encoder = pytest.mark.parametrize("encoder", SMALL)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def small(encoder: str, **arguments: object) -> UNet:
    torch.manual_seed(0)
    model = UNet(encoder=encoder, **{"channels": (16, 12, 8, 4)[: 4 if "convnext" not in encoder else 3], **arguments})  # type: ignore[arg-type]
    randomize_statistics(model)
    return model


@every_encoder
@pytest.mark.parametrize(
    ("height", "width", "channels", "classes"),
    [(33, 47, 4, 2), *(pytest.param(*size, marks=pytest.mark.slow) for size in ((64, 96, 3, 1), (97, 129, 1, 3)))],
)
def test_logits_have_the_size_of_the_image(encoder: str, height: int, width: int, channels: int, classes: int) -> None:
    model = UNet(channels, classes, encoder=encoder).eval()
    with torch.no_grad():
        logits, features = model.forward_intermediates(images(2, channels, height, width))
        assert torch.equal(model(images(2, channels, height, width)), logits)
    assert logits.shape == (2, classes, height, width)
    assert logits.is_contiguous()
    assert model.decoder_stride == STRIDE_OF_THE_FIRST_FEATURE[encoder]
    for feature, info in zip(features, model.feature_info, strict=True):
        reduction = info["reduction"]
        assert feature.shape == (2, info["num_chs"], -(-height // reduction), -(-width // reduction))
        assert isinstance(model.get_submodule(info["module"]), nn.Module)
    steps = len(model.feature_info) - 1
    assert model.config["channels"] == [256, 128, 64, 32, 16][:steps]
    assert [block.conv2.out_channels for block in model.decoder] == model.config["channels"]


@every_encoder
def test_every_parameter_receives_a_gradient(encoder: str) -> None:
    torch.manual_seed(0)
    model = UNet(encoder=encoder, deep_supervision=True).train()
    randomize_statistics(model)  # timm starts the last norm of a residual branch at 0, and with it all gradients before
    outputs = model(images(2, 3, 65, 97))
    finest = STRIDE_OF_THE_FIRST_FEATURE[encoder]
    coarser = [finest * 2**k for k in range(1, len(outputs))]
    assert [tuple(y.shape[2:]) for y in outputs] == [(-(-65 // s), -(-97 // s)) for s in (1, *coarser)]
    DeepSupervisionLoss(DiceLoss())(outputs, torch.ones(2, 1, 65, 97)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


def test_the_rest_of_the_way_is_bilinear() -> None:
    model = small("test_convnext").eval()
    with torch.no_grad():
        *_, finest = model.decode(model.encode(images()))
        expected = model.head(nn.Upsample(scale_factor=4, mode="bilinear")(finest))
        assert_close(model(images()), expected)


def test_the_widths_of_the_decoder_are_given_coarse_to_fine() -> None:
    model = create_model("unet", encoder="test_resnet", channels=(40, 30, 20, 10))
    assert [block.conv2.out_channels for block in model.decoder] == [40, 30, 20, 10]
    with pytest.raises(ValueError, match=r"channels must be 4 positive integers, got \(40, 30\)"):
        UNet(encoder="test_resnet", channels=(40, 30))


@every_small_encoder
def test_files_config_copies_and_the_meta_device(encoder: str, tmp_path: Path) -> None:
    model = small(encoder, in_channels=2, num_classes=3).eval()
    model.save_pretrained(tmp_path)
    again = SegmentationModel.from_pretrained(tmp_path).eval()
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(again(images(1, 2)), model(images(1, 2)))
        assert torch.equal(copy.deepcopy(model)(images(1, 2)), model(images(1, 2)))
        gray = SegmentationModel.from_pretrained(tmp_path, in_channels=1, num_classes=1).eval()
        expected = model.encode(images(1, 1).expand(-1, 2, -1, -1))
        for a, b in zip(gray.encode(images(1, 1)), expected, strict=True):
            assert_close(a, b, 1e-4)
    with torch.device("meta"):
        assert next(UNet(encoder=encoder).parameters()).is_meta


@every_small_encoder
def test_checkpointing_changes_neither_gradients_nor_statistics(encoder: str) -> None:
    plain = small(encoder).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.set_grad_checkpointing()
    for model in (plain, checkpointed):
        torch.manual_seed(1)
        model(images(3)).square().mean().backward()
    for (key, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-7, msg=key)
    for (key, a), b in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("encoder", [SMALL[0], *(pytest.param(name, marks=pytest.mark.slow) for name in SMALL[1:])])
def test_compiles_to_one_graph(encoder: str) -> None:
    model = small(encoder).eval()
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        assert_close(compiled(images()), model(images()))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm builds what is pretrained without its weights."""
    make_importable()
    import timm

    monkeypatch.setattr(hub, "check_reachable", lambda *_: None)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: create(name, **{**given, "pretrained": False}))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("encoder", "in_channels", "mean", "std"),
    [  # ImageNet's, and those of Inception; one channel has timm's summed kernels, more have them over and over
        ("test_efficientnet", 3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("test_efficientnet", 1, [0.449], [0.226]),
        ("test_efficientnet", 4, [0.485, 0.456, 0.406, 0.485], [0.229, 0.224, 0.225, 0.229]),
        ("test_resnet", 3, [0.5] * 3, [0.5] * 3),
    ],
)
def test_pretrained_weights_set_the_normalization_that_they_want(
    encoder: str, in_channels: int, mean: list[float], std: list[float]
) -> None:
    model = UNet(in_channels, encoder=encoder, pretrained=True)
    assert model.spec.normalization is not None
    assert model.spec.normalization["name"] == "Normalize"
    assert model.spec.normalization["arguments"] == {"mean": pytest.approx(mean), "std": pytest.approx(std)}
    assert create_transform(model.spec.normalization)(torch.rand(1, in_channels, 32, 32)).isfinite().all()
    assert UNet(encoder=encoder).spec.normalization is None


@pytest.mark.usefixtures("offline")
def test_mask_dino_on_a_pretrained_backbone_wants_the_same() -> None:
    model = MaskDINO(backbone="resnet18", pretrained=True, hidden_dim=32, conv_dim=32, mask_dim=32, encoder_layers=1)
    assert model.spec.normalization == TimmEncoder("resnet18", 3).normalization


def test_unknown_encoders_are_answered_with_the_closest() -> None:
    with pytest.raises(ValueError, match="there is no timm model 'resnt34'; did you mean resnet34 or"):
        UNet(encoder="resnt34")


@pytest.mark.parametrize("encoder", ["somebody/something", "", 3])
def test_what_is_no_name_gets_a_short_answer(encoder: object) -> None:
    with pytest.raises(ValueError, match="there is no timm model") as error:
        UNet(encoder=encoder)  # type: ignore[arg-type]
    assert len(str(error.value)) < 400


def test_an_unknown_tag_and_a_pretrained_that_is_no_bool_are_refused() -> None:
    with pytest.raises(ValueError, match=r"timm gives no features of 'resnet18.nonsense': .*tag"):
        UNet(encoder="resnet18.nonsense")
    with pytest.raises(ValueError, match="pretrained must be True, False or a file of weights, got 3"):
        UNet(encoder="test_resnet", pretrained=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("vit_tiny_patch16_224", r"features of strides \[16, 16, 16\], and a decoder needs each to be twice"),
        ("maxvit_tiny_tf_224", "takes no image of 96x128 pixels .* not bound to one size"),
        ("inception_v3", r"gives features of shapes .*\(1, 64, 45, 61\).* needs .*\(1, 64, 48, 64\)"),
    ],
)
def test_backbones_that_no_unet_can_stand_on_are_refused(encoder: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(encoder=encoder)


def test_the_input_channels_are_checked_before_anything_is_built() -> None:
    with pytest.raises(ValueError, match="in_channels must be a positive integer, got 0"):
        UNet(0, encoder="test_resnet")


def test_the_encoder_is_in_training_mode_as_a_new_module_is() -> None:
    assert all(module.training for module in TimmEncoder("test_resnet", 3).modules())
