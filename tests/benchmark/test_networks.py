"""Networks by name: ours, those of other libraries, and what any module makes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from brainseg.benchmark import find_network
from brainseg.benchmark.networks import match_networks
from brainseg.models import UNeXt, list_models

INSTANCE = nn.Conv2d(3, 1, 1)
NUMBER = 3


class Holder:
    @staticmethod
    def make() -> nn.Module:
        return nn.Conv2d(3, 2, 1)

    @staticmethod
    def make_nothing() -> None:
        return None


def test_our_networks_have_the_channels_of_the_image() -> None:
    network = find_network("unext_tiny")(4, 64)
    assert isinstance(network, UNeXt)
    assert network.config["in_channels"] == 4


def test_a_network_of_timm_has_the_channels_of_the_image() -> None:
    network = find_network("timm/resnet18")(1, 64)
    assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 1000)


def test_a_transformer_of_timm_is_built_for_the_size() -> None:
    network = find_network("timm/vit_tiny_patch16_224")(3, 64)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_a_network_of_smp() -> None:
    pytest.importorskip("segmentation_models_pytorch", exc_type=ImportError)
    network = find_network("smp/Unet/resnet18")(1, 64).eval()
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)
    with pytest.raises(ValueError, match="no architecture of smp 'Umet'; did you mean Unet"):
        find_network("smp/Umet")
    with pytest.raises(ValueError, match="no encoder of smp 'resnet19'; did you mean resnet18"):
        find_network("smp/Unet/resnet19")


@pytest.mark.parametrize(("name", "parameters"), [("UNet", 1_625_420), ("BasicUNet", None), ("AttentionUnet", None)])
def test_a_network_of_monai(name: str, parameters: int | None) -> None:
    pytest.importorskip("monai")
    network = find_network(f"monai/{name}")(3, 64).eval()
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)
    assert parameters is None or sum(x.numel() for x in network.parameters()) == parameters


def test_a_network_of_monai_that_needs_more_says_so() -> None:
    pytest.importorskip("monai")
    with pytest.raises(ValueError, match="DynUNet has no default for kernel_size"):
        find_network("monai/DynUNet")(3, 64)
    with pytest.raises(ValueError, match="no network of MONAI 'Umet'"):
        find_network("monai/Umet")


def test_anything_that_makes_a_module() -> None:
    made = find_network(f"{__name__}:Holder.make")(3, 64)
    assert isinstance(made, nn.Conv2d)
    assert find_network(f"{__name__}:INSTANCE")(3, 64) is INSTANCE
    assert isinstance(find_network("torch.nn:Identity")(3, 64), nn.Identity)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unex", "no network 'unex'; did you mean unext.*timm/NAME"),
        ("tim/resnet18", "no library 'tim'; did you mean timm"),
        ("timm/", "no library 'timm'"),
        ("timm/resnet81", "no network of timm 'resnet81'; did you mean"),
        ("no_such_package.net:make", "there is no module no_such_package; give package.module:callable"),
        ("torch.no_such:make", "there is no module torch.no_such"),
        ("torch.nn:Conv", "no name in torch.nn 'Conv'; did you mean"),
        ("torch.nn:", "does not read package.module:callable"),
        (":make", "does not read package.module:callable"),
        ("a/b.py:make", "does not read package.module:callable"),
        (f"{__name__}:NUMBER", "is int, expected a network or what makes one"),
    ],
)
def test_names_that_are_no_network_are_answered(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_network(name)


def test_a_callable_that_makes_no_module() -> None:
    with pytest.raises(ValueError, match=r"made NoneType, expected torch\.nn\.Module"):
        find_network(f"{__name__}:Holder.make_nothing")(3, 64)


def test_what_a_module_itself_lacks_is_an_import_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import not_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as caught:
        find_network("needs_more:make")
    assert caught.value.name == "not_to_be_found"


def test_patterns_are_those_of_our_networks() -> None:
    assert match_networks([]) == list_models()
    assert match_networks(["resunet", "unext_*"]) == ["resunet", "unext_tiny", "unext_small", "unext_large"]
    with pytest.raises(ValueError, match=r"no network of ours is called vgg\*"):
        match_networks(["vgg*"])
    with pytest.raises(ValueError, match="unext is named 2 times"):
        match_networks(["unext", "unext*"])
