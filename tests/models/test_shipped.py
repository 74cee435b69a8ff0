"""What ships is listed, is what was released, says its licence once, and loads by tag, by name and by folder."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from brainseg.models import SegmentationModel, create_model, list_weights, load_weights, shipped


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what ships, in its place."""
    shutil.copytree(shipped.SHIPPED, tmp_path / "weights")
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "weights")
    return tmp_path / "weights"


def test_every_folder_is_listed_and_has_its_card() -> None:
    folders = {path.parent.relative_to(shipped.SHIPPED).as_posix() for path in shipped.SHIPPED.rglob("config.json")}
    assert set(list_weights()) == folders
    for name in list_weights():
        card = (shipped.SHIPPED / name / "README.md").read_text()
        assert "CC BY-NC-SA 4.0" in card
        assert "not a medical device" in card
    assert (shipped.SHIPPED / "LICENSE").is_file()


@pytest.mark.parametrize("name", list_weights())
def test_weights_load_by_tag_by_name_and_into_a_network(name: str) -> None:
    network, tag = name.split("/")
    by_tag, by_name = create_model(network, weights=tag), SegmentationModel.from_pretrained(name)
    into = create_model(network)
    load_weights(into, name)
    assert by_tag.spec == by_name.spec == into.spec
    assert by_tag.spec.class_names == ("tumour",)
    for key, value in by_tag.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, by_name.state_dict()[key])
        assert torch.equal(value, into.state_dict()[key])


def test_arguments_change_what_ships_as_they_change_a_folder() -> None:
    other = create_model("unext", weights="lgg", in_channels=1, num_classes=2)
    assert other.config["num_classes"] == 2
    assert (other.spec.channel_names, other.spec.shown_channel) == (None, None)  # FLAIR is in none of its channels


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_the_released_one_is_refused(copied: Path, file: str) -> None:
    path = copied / "unext" / "lgg" / file
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"{file} is missing or not the file that was released; install brainseg"):
        create_model("unext", weights="lgg")
    path.unlink()
    with pytest.raises(ValueError, match=f"{file} is missing or not the file that was released"):
        SegmentationModel.from_pretrained("unext/lgg")


def test_the_licence_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    shipped._log_licence.cache_clear()
    with caplog.at_level(logging.WARNING):
        create_model("unext", weights="lgg")
        create_model("unext", weights="lgg")
    (record,) = caplog.records
    assert "CC BY-NC-SA 4.0, for non-commercial use" in record.getMessage()


def test_a_tag_goes_before_a_folder_of_its_name_and_a_folder_before_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lgg").mkdir()  # such as that of the data
    assert create_model("unext", weights="lgg").spec.class_names == ("tumour",)
    create_model("unext_tiny").save_pretrained(tmp_path / "unext" / "lgg")
    assert SegmentationModel.from_pretrained("unext/lgg").config["channels"] == [8, 16, 24, 32, 64]


def test_an_unknown_tag_is_answered_with_those_there_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder lgx; weights that ship with unext: lgg"):
        create_model("unext", weights="lgx")
    with pytest.raises(FileNotFoundError, match=r"weights that ship with resunet: none"):
        create_model("resunet", weights="lgg")
    with pytest.raises(FileNotFoundError, match=r"or the name of weights that ship: .*unext/lgg"):
        SegmentationModel.from_pretrained("unext/lgx")


def test_checksums_are_those_of_all_files_that_are_read() -> None:
    for files in json.loads((shipped.SHIPPED / shipped.CHECKSUMS).read_text()).values():
        assert files.keys() == {"config.json", "model.safetensors"}
