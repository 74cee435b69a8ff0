"""Files: read whole or refused with a reason, the model as it was."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from brainseg._torchvision import make_importable
from brainseg.inference import optimize
from brainseg.models import SegmentationModel, UNeXt, create_model, load_weights
from brainseg.models.adaptation import adapt_input_channels
from tests.official import official_state_dict

CHANNELS = (4, 6, 8, 10, 12)


@pytest.fixture
def model() -> UNeXt:
    return UNeXt(channels=CHANNELS).eval()


@pytest.fixture
def folder(model: UNeXt, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


class Malicious:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("owned"),)


def truncate(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused_and_the_model_stays_as_it_was(folder: Path, keep: float) -> None:
    truncate(folder / "model.safetensors", keep)
    other = UNeXt(channels=CHANNELS)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(ValueError, match="truncated"):
        load_weights(other, folder)
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())
    with pytest.raises(ValueError, match="truncated"):
        UNeXt.from_pretrained(folder)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_truncated_pytorch_file_is_refused(model: UNeXt, tmp_path: Path, keep: float) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pth")
    truncate(tmp_path / "model.pth", keep)
    with pytest.raises(ValueError, match=r"truncated|no PyTorch file"):
        load_weights(model, tmp_path / "model.pth")


@pytest.mark.parametrize("content", [b"", b"hello", b"error 404", b"a,b\n1,2\n", b"GIF89a", b"<html></html>"])
def test_a_foreign_pytorch_file_is_refused(model: UNeXt, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"model.pt is .*no PyTorch file"):
        load_weights(model, tmp_path / "model.pt")


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_truncated_legacy_file_is_refused(model: UNeXt, tmp_path: Path, keep: float) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    truncate(tmp_path / "model.pt", keep)
    with pytest.raises(ValueError, match="no PyTorch file"):
        load_weights(model, tmp_path / "model.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_file_runs_nothing(
    model: UNeXt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    if legacy:
        path.write_bytes(pickle.dumps({"head.weight": Malicious()}, protocol=2))
    else:
        torch.save({"head.weight": Malicious()}, path)
    with pytest.raises(ValueError, match="could run code"):
        load_weights(model, path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_width_are_taken_as_they_are_and_counts_with_them(
    model: UNeXt, tmp_path: Path, dtype: torch.dtype
) -> None:
    narrow = {key: value.to(dtype) for key, value in model.state_dict().items()}
    torch.save(narrow, tmp_path / "narrow.pth")
    other = UNeXt(**model.config)
    load_weights(other, tmp_path / "narrow.pth")
    for key, value in other.state_dict().items():
        assert value.dtype == model.state_dict()[key].dtype
        assert torch.equal(value.to(dtype), narrow[key])
    narrow["stages.0.norm.num_batches_tracked"].fill_(0.5)
    torch.save(narrow, tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match=r"num_batches_tracked holds torch.* expected torch.int64"):
        load_weights(other, tmp_path / "narrow.pth")


def test_foreign_files_are_refused(model: UNeXt, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("no weights at all")
    with pytest.raises(ValueError, match="no safetensors file"):
        load_weights(model, tmp_path / "model.safetensors")
    torch.save({"epoch": 3, "weights": model.state_dict()}, tmp_path / "checkpoint.pth")
    named = r"no plain state dict but 'epoch', 'weights', of which torch.load\(...\)\['weights'\] may be meant; save"
    with pytest.raises(ValueError, match=named):
        load_weights(model, tmp_path / "checkpoint.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"does not fit this UNeXt: \d+ missing \(.*, \.\.\.\), 1 unknown \(weight\)"):
        load_weights(model, tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_weights(model, tmp_path / "absent.pth")


def test_weights_of_other_widths_are_refused_and_nothing_is_loaded(folder: Path) -> None:
    other = UNeXt(channels=(4, 6, 8, 10, 14))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"saved with channels=\[4, 6, 8, 10, 12\] and not \[4, 6, 8, 10, 14\]"):
        load_weights(other, folder)
    with pytest.raises(ValueError, match="of another shape"):
        load_weights(other, folder / "model.safetensors")
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "[" * 100_000, '{"model": 3, "arguments": {}}'])
def test_a_broken_config_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match="is no model configuration"):
        SegmentationModel.from_pretrained(folder)


def test_a_folder_without_its_files_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run and no weights"):
        SegmentationModel.from_pretrained(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model\.safetensors"):
        SegmentationModel.from_pretrained(folder)


def test_a_folder_of_another_network_is_refused(folder: Path) -> None:
    class Other(SegmentationModel):
        pass

    try:
        with pytest.raises(ValueError, match="holds a UNeXt, not a Other"):
            Other.from_pretrained(folder)
    finally:
        del SegmentationModel.classes["Other"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": "Unheard"}))
    with pytest.raises(ValueError, match="holds a Unheard, and no network of this name is defined"):
        SegmentationModel.from_pretrained(folder)


def test_unknown_arguments_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="cannot be built"):
        UNeXt.from_pretrained(folder, width=3)


def test_other_channels_and_classes_are_adapted_and_reported(
    folder: Path, model: UNeXt, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        adapted = UNeXt.from_pretrained(folder, in_channels=1, num_classes=4, drop_path=0.1).eval()
    assert "stages.0.conv adapted from 3 to 1 input channels" in caplog.text
    assert "head freshly initialised for 4 classes" in caplog.text
    assert (adapted.config["in_channels"], adapted.config["num_classes"]) == (1, 4)
    gray = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = model.encode(gray.expand(-1, 3, -1, -1))
        for a, b in zip(adapted.encode(gray), expected, strict=True):
            torch.testing.assert_close(a, b)


def test_deep_supervision_can_be_added_and_taken_off(folder: Path, tmp_path: Path) -> None:
    deep = UNeXt.from_pretrained(folder, deep_supervision=True)
    assert len(deep.train()(torch.rand(2, 3, 64, 64))) == 5
    deep.save_pretrained(tmp_path / "deep")
    plain = UNeXt.from_pretrained(tmp_path / "deep", deep_supervision=False)
    assert torch.equal(plain.head.weight, deep.head.weight)


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 2), (3, 5), (3, 6), (1, 3), (4, 1)])
def test_adapted_kernels_answer_a_gray_image_as_before(old: int, new: int) -> None:
    weight, gray = torch.rand(2, old, 3, 3), torch.rand(1, 1, 8, 8)

    def answer(kernels: Tensor) -> Tensor:
        return torch.conv2d(gray.expand(-1, kernels.shape[1], -1, -1), kernels)

    adapted = adapt_input_channels(weight, new)
    assert adapted.shape == (2, new, 3, 3)
    if new == 1 or new % old == 0:
        torch.testing.assert_close(answer(adapted), answer(weight))


def test_create_model_loads_a_folder(tmp_path: Path) -> None:
    model = create_model("unext_tiny", num_classes=2)
    model.save_pretrained(tmp_path)
    again = create_model("unext_tiny", weights=tmp_path)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert create_model("unext_tiny", num_classes=3, weights=tmp_path).config["num_classes"] == 3
    with pytest.raises(ValueError, match="saved with channels"):
        create_model("unext_small", weights=tmp_path)


def test_official_checkpoints_are_loaded_by_their_source(model: UNeXt, tmp_path: Path) -> None:
    official = {f"module.{key}": value for key, value in official_state_dict(model, "UNeXt-pytorch").items()}
    torch.save(official, tmp_path / "model.pth")
    again = UNeXt(channels=CHANNELS)
    with pytest.raises(ValueError, match=r"101 missing .* 101 unknown .*source="):
        load_weights(again, tmp_path / "model.pth")
    assert load_weights(again, tmp_path / "model.pth", source="UNeXt-pytorch") == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model._orig_mod.", "module.module."]
)
def test_what_wrappers_put_in_front_of_the_keys_is_dropped(model: UNeXt, tmp_path: Path, prefix: str) -> None:
    wrapped = {prefix + key: value for key, value in model.state_dict().items()}
    contents = [wrapped, {**wrapped, "n_averaged": torch.tensor(3)}, {"state_dict": wrapped, "epoch": 1, "lr": [0.1]}]
    for content in contents:
        torch.save(content, tmp_path / "last.ckpt")
        again = UNeXt(channels=CHANNELS)
        assert load_weights(again, tmp_path / "last.ckpt") == []
        assert torch.equal(again.head.weight, model.head.weight)


@pytest.mark.parametrize("prefix", ["net.", "segmentation_model.", "model.generator."])
def test_weights_are_found_below_any_prefix_and_beside_those_of_a_loss(
    model: UNeXt, tmp_path: Path, prefix: str
) -> None:
    below = {prefix + key: value for key, value in model.state_dict().items()}
    torch.save({"state_dict": {**below, "loss.weight": torch.ones(1)}}, tmp_path / "last.ckpt")
    again = UNeXt(channels=CHANNELS)
    assert load_weights(again, tmp_path / "last.ckpt") == []
    assert torch.equal(again.head.weight, model.head.weight)
    torch.save({**below, **{f"teacher.{key}": value for key, value in model.state_dict().items()}}, tmp_path / "two.pt")
    with pytest.raises(ValueError, match=rf"weights for this UNeXt below '{prefix}' and below 'teacher\.'; save those"):
        load_weights(again, tmp_path / "two.pt")


def test_a_network_that_could_not_be_read_back_is_not_saved(model: UNeXt, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not what its config builds .* save it before optimize"):
        optimize(model).save_pretrained(tmp_path / "optimized")
    assert not (tmp_path / "optimized").exists()


def test_saving_again_replaces_the_files_and_leaves_no_others(folder: Path) -> None:
    other = UNeXt(channels=CHANNELS)
    other.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert torch.equal(UNeXt.from_pretrained(folder).head.weight, other.head.weight)
    plain = folder.parent / "plain"
    plain.touch()
    assert {path.stat().st_mode for path in folder.iterdir()} == {plain.stat().st_mode}


def test_a_failed_save_leaves_the_old_files(model: UNeXt, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        model.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.filterwarnings("ignore:.*[Ss]parse:UserWarning")  # that they are, from PyTorch 2.14 on
@pytest.mark.parametrize("change", ["sparse", "complex", "integer"])
def test_tensors_that_are_no_weights_are_refused_and_nothing_is_loaded(
    model: UNeXt, tmp_path: Path, change: str
) -> None:
    wrong = {"sparse": Tensor.to_sparse, "complex": lambda x: x.to(torch.complex64), "integer": Tensor.int}[change]
    state_dict = model.state_dict()
    torch.save({**state_dict, "decoder.4.conv.weight": wrong(state_dict["decoder.4.conv.weight"])}, tmp_path / "w.pth")
    other = UNeXt(channels=CHANNELS)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"decoder.4.conv.weight (is no plain tensor|holds)"):
        load_weights(other, tmp_path / "w.pth")
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())


def test_half_a_head_is_refused(model: UNeXt, tmp_path: Path) -> None:
    torch.save({k: v for k, v in model.state_dict().items() if k != "head.bias"}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"1 missing \(head.bias\)"):
        load_weights(UNeXt(channels=CHANNELS), tmp_path / "w.pth")


def test_arguments_that_shapes_do_not_show_are_compared(tmp_path: Path) -> None:
    UNeXt(channels=CHANNELS, shift_size=3).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="saved with shift_size=3 and not 5"):
        load_weights(UNeXt(channels=CHANNELS), tmp_path)
    assert UNeXt.from_pretrained(tmp_path).config["shift_size"] == 3


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 2), (3, 4), (3, 5), (3, 7)])
def test_kernels_are_adapted_by_the_rule_of_timm(old: int, new: int) -> None:
    make_importable()
    from timm.models import adapt_input_conv

    weight = torch.rand(2, old, 3, 3)
    torch.testing.assert_close(adapt_input_channels(weight, new), adapt_input_conv(new, weight))
