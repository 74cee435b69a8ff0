"""Names: listed by pattern, built with changes, and the nearest one for a wrong one."""

from pathlib import Path

import pytest

from brainseg.models import ResUNet, SegmentationModel, UNeXt, create_model, list_models, register_model, registry


@pytest.fixture
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are gone after the test."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))


def test_names_are_listed_by_pattern() -> None:
    assert list_models() == [
        "unext_tiny",
        "unext_small",
        "unext",
        "unext_large",
        "unet_small",
        "unet",
        "resunet",
        "mask_dino_small",
        "mask_dino_resnet50",
    ]
    assert list_models("unext*") == ["unext_tiny", "unext_small", "unext", "unext_large"]
    assert list_models("unext_*") == ["unext_tiny", "unext_small", "unext_large"]
    assert list_models("resnet*") == []


def test_arguments_go_before_those_of_the_name() -> None:
    model = create_model("unext_small", in_channels=1, depths=(2, 3))
    assert isinstance(model, UNeXt)
    assert (model.config["in_channels"], model.config["depths"]) == (1, [2, 3])
    assert model.config["channels"] == [8, 16, 32, 64, 128]


@pytest.mark.parametrize(("name", "closest"), [("unxt", "unext"), ("UNeXt_small", "unext_small"), ("UNET", "unet")])
def test_unknown_names_are_answered_with_the_closest(name: str, closest: str) -> None:
    with pytest.raises(ValueError, match=f"there is no model '{name}'; did you mean .*{closest}"):
        create_model(name)


def test_a_name_like_no_other_is_answered_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=f"there is no model 'zz'; there are {', '.join(list_models())}. list_models"):
        create_model("zz")


def test_a_backbone_brings_its_own_decoder_widths() -> None:
    for name in ("unet", "unet_small"):
        assert create_model(name, encoder="test_resnet").config["channels"] == [256, 128, 64, 32]


def test_a_folder_of_another_width_is_not_taken_for_the_name(tmp_path: Path) -> None:
    create_model("unet_small", channels=(4, 8, 16, 32, 64)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not fit"):
        create_model("unet_small", weights=tmp_path)


@pytest.mark.usefixtures("own_names")
def test_a_registered_network_has_names_with_arguments_of_their_own(tmp_path: Path) -> None:
    def define() -> type[ResUNet]:
        @register_model("own")
        @register_model("own_narrow", channels=(4, 6), downsample="pool")
        class Own(ResUNet):
            pass

        return Own

    first, second = define(), define()  # a cell of a notebook that runs twice
    assert first is not second
    assert list_models("own*") == ["own_narrow", "own"]
    model = create_model("own_narrow", downsample="stride", num_classes=2)
    assert type(model) is second
    assert (model.config["channels"], model.config["downsample"]) == ([4, 6], "stride")
    model.save_pretrained(tmp_path)
    assert type(SegmentationModel.from_pretrained(tmp_path)) is second
    assert create_model("own_narrow", weights=tmp_path, downsample="stride").config["num_classes"] == 2


@pytest.mark.usefixtures("own_names")
def test_what_cannot_be_registered_is_refused() -> None:
    with pytest.raises(ValueError, match="there is a model 'unext' already, a UNeXt; take another name"):
        register_model("unext")(ResUNet)
    with pytest.raises(ValueError, match=r"arguments of 'own' do not fit ResUNet: .*width"):
        register_model("own", width=3)(ResUNet)
    with pytest.raises(TypeError, match="decorates subclasses of SegmentationModel, got <class 'int'>"):
        register_model("own")(int)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="decorates subclasses of SegmentationModel, got <function"):
        register_model("own")(lambda **arguments: ResUNet(**arguments))  # type: ignore[arg-type,type-var]
    for name in ("", "own network", "org/own", ResUNet):
        with pytest.raises(ValueError, match="a model's name must be a word"):
            register_model(name)  # type: ignore[arg-type]
    assert "own" not in list_models()
