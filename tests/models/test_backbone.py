"""Backbones from files, folders and the Hub, with and without a connection."""

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from brainseg._torchvision import make_importable
from brainseg.models import MaskDINO, SegmentationModel, UNet, hub

SMALL = ["test_resnet", "test_convnext", "test_efficientnet"]


def trained(name: str, **arguments: Any) -> nn.Module:
    """A whole classifier of timm, no value of which is that of a fresh one."""
    make_importable()
    import timm

    torch.manual_seed(1)
    model = timm.create_model(name, **arguments)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 1.0)
    return model


def plain(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("backbone.").replace(".", "_"): value for key, value in state.items()}


def assert_started_from(model: UNet, weights: nn.Module) -> None:
    theirs = plain(weights.state_dict())
    assert isinstance(model.encoder, nn.Module)
    for key, value in plain(model.encoder.state_dict()).items():
        assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("name", SMALL)
def test_a_local_file_starts_the_backbone(name: str, tmp_path: Path) -> None:
    weights = trained(name)
    save_file(weights.state_dict(), tmp_path / "weights.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.state_dict().items()}}, tmp_path / "weights.pth")
    for file in ("weights.safetensors", "weights.pth"):
        assert_started_from(UNet(encoder=name, pretrained=tmp_path / file), weights)


def test_a_local_file_is_adapted_to_the_channels_and_sets_the_normalization(tmp_path: Path) -> None:
    weights = trained("test_resnet")
    save_file(weights.state_dict(), tmp_path / "weights.safetensors")
    overlay = {"mean": (0.25, 0.25, 0.25), "std": (0.5, 0.5, 0.5)}
    model = UNet(
        1, encoder="test_resnet", pretrained=str(tmp_path / "weights.safetensors"), pretrained_cfg_overlay=overlay
    )
    (stem,) = model.stems
    expected = weights.get_submodule("conv1.0").weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(model.get_submodule(stem).weight, expected)
    assert model.normalization == {"name": "Normalize", "arguments": {"mean": [0.25], "std": [0.5]}}
    assert "pretrained" not in model.config
    gray = {**weights.state_dict(), "conv1.0.weight": expected.detach()}
    save_file(gray, tmp_path / "gray.safetensors")
    four = UNet(4, encoder="test_resnet", pretrained=tmp_path / "gray.safetensors")
    torch.testing.assert_close(four.get_submodule(stem).weight, expected.repeat(1, 4, 1, 1) / 4)
    model.save_pretrained(tmp_path / "saved")
    shutil.move(tmp_path / "weights.safetensors", tmp_path / "elsewhere.safetensors")
    assert SegmentationModel.from_pretrained(tmp_path / "saved").config == model.config


def test_mask_dino_starts_from_a_file_too(tmp_path: Path) -> None:
    weights = trained("test_resnet")
    save_file(weights.state_dict(), tmp_path / "weights.safetensors")
    model = MaskDINO(backbone="test_resnet", pretrained=tmp_path / "weights.safetensors", hidden_dim=32, conv_dim=32)
    found = model.get_submodule("backbone.encoder.backbone.layer1.0.conv1").weight
    assert torch.equal(found, weights.get_submodule("layer1.0.conv1").weight)


def test_files_that_do_not_fit_are_refused_whole(tmp_path: Path) -> None:
    state = trained("test_resnet").state_dict()
    half = {key: value for key, value in state.items() if not key.startswith("layer4")}
    cases = {
        "other": (
            trained("test_convnext").state_dict(),
            r"does not fit timm's 'test_resnet': it lacks \d+ of \d+ param",
        ),
        "half": (half, r"it lacks \d+ of \d+ parameters, such as layer4"),
        "wide": (
            {**state, "layer1.0.conv1.weight": torch.ones(7, 7, 3, 3)},
            "does not fit .* size mismatch for layer1",
        ),
    }
    for name, (content, message) in cases.items():
        save_file(content, tmp_path / f"{name}.safetensors")
        with pytest.raises(ValueError, match=message):
            UNet(encoder="test_resnet", pretrained=tmp_path / f"{name}.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "half.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated or no safetensors file"):
        UNet(encoder="test_resnet", pretrained=tmp_path / "cut.safetensors")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none"):
        UNet(encoder="test_resnet", pretrained=tmp_path / "none.pth")
    with pytest.raises(ValueError, match="pretrained= starts a timm backbone; name one by encoder="):
        UNet(pretrained=tmp_path / "half.safetensors")


def test_arguments_of_the_backbone_go_through_and_are_kept() -> None:
    model = UNet(encoder="test_convnext", encoder_arguments={"drop_path_rate": 0.5})
    assert any(getattr(module, "drop_prob", 0) > 0 for module in model.modules())
    assert model.config["encoder_arguments"] == {"drop_path_rate": 0.5}
    with pytest.raises(ValueError, match=r"arguments do not fit timm's 'test_resnet': .*no_such"):
        UNet(encoder="test_resnet", encoder_arguments={"no_such": 1})


def saved(folder: Path, **arguments: Any) -> nn.Module:
    """timm's own folder of a classifier."""
    weights = trained("test_resnet", **arguments)
    from timm.models import save_for_hf

    save_for_hf(weights, folder, model_args=arguments or None, safe_serialization=True)
    return weights


def test_a_local_folder_is_a_name_and_the_network_does_not_need_it_again(tmp_path: Path) -> None:
    weights = saved(tmp_path / "timm", drop_path_rate=0.25)
    import timm.models._hub

    if not hasattr(timm.models._hub, "load_model_config_from_path"):
        pytest.skip(f"timm {timm.__version__} knows no local-dir:")
    model = UNet(encoder=f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    assert_started_from(model, weights)
    assert model.normalization is not None
    assert (model.config["encoder"], model.config["encoder_arguments"]) == ("test_resnet", {"drop_path_rate": 0.25})
    model.save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "timm")
    again = SegmentationModel.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json; timm's save_for_hf writes"):
        UNet(encoder=f"local-dir:{tmp_path / 'timm'}")
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="is no configuration of timm"):
        UNet(encoder=f"local-dir:{tmp_path / 'timm'}")


def test_a_name_of_the_hub_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = saved(tmp_path)
    asked: list[str] = []

    def download(repository: str | None = None, file: str | None = None, **given: Any) -> str:
        asked.append(f"{repository or given['repo_id']}/{file or given['filename']}")
        return str(tmp_path / asked[-1].rpartition("/")[2])

    import huggingface_hub
    import timm.models._hub

    monkeypatch.setattr(hub, "check_reachable", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
    model = UNet(encoder="hf-hub:someone/network", pretrained=True)
    assert_started_from(model, weights)
    assert model.config["encoder"] == "test_resnet"
    assert {*asked} == {"someone/network/config.json", "someone/network/model.safetensors"}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """Every host of the network answers with a refused connection; what was asked for."""
    asked: list[object] = []

    def resolve(host: object, *_: object, **__: object) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]

    import huggingface_hub.constants

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return asked


@pytest.mark.parametrize("encoder", ["resnet34", "hf-hub:someone/network"])
def test_a_refused_connection_is_one_sentence_after_one_try(encoder: str, refused: list[object]) -> None:
    with pytest.raises(ConnectionError, match=r"not in the cache, and https://.* cannot be reached .*: co") as error:
        UNet(encoder=encoder, pretrained=True)
    assert str(error.value).startswith(("timm/resnet34", "someone/network"))
    assert len(refused) <= 2  # the Hub's client asks once for its own sake
    assert "\n" not in str(error.value)


def test_the_offline_mode_of_the_hub_is_said_without_a_try(
    refused: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()  # whose hooks know the old mode
    with pytest.raises(ConnectionError, match=r"timm/resnet34\S* is not in the cache, .* \(HF_HUB_OFFLINE is set\)"):
        UNet(encoder="resnet34", pretrained=True)
    huggingface_hub.close_session()
    assert refused == []
