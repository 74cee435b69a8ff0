"""Weights to the Hub and from it: against a stub of its functions that keeps repositories in a folder."""

from pathlib import Path

import huggingface_hub
import pytest
import torch

from brainseg.inference import Predictor
from brainseg.models import ModelSpec, SegmentationModel, UNeXt, create_model, hub, list_models, load_weights
from tests.hub import stub

ROOT = Path(__file__).parents[2]
SPEC = ModelSpec(task="multiclass", class_names=("background", "oedema", "core"), image_size=(64, 96))


def narrow() -> UNeXt:
    torch.manual_seed(0)
    model = UNeXt(num_classes=3, channels=(4, 4, 5, 5, 10))
    model.spec = SPEC
    return model.eval()


@pytest.fixture
def repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose subfolders org/name are what the Hub has."""
    monkeypatch.chdir(tmp_path)
    return stub(monkeypatch, tmp_path / "hub", accepted="right")


def test_what_was_pushed_is_read_by_its_name_everywhere(repositories: Path) -> None:
    model, image = narrow(), torch.rand(3, 64, 96)
    assert model.push_to_hub("someone/tumours", token="right") == "https://hub/someone/tumours/commit/1"
    names = {path.name for path in (repositories / "someone" / "tumours").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    expected = Predictor(model)(image)
    for name in ("someone/tumours", "hf-hub:someone/tumours"):
        again = SegmentationModel.from_pretrained(name)
        assert (type(again), again.config, again.spec) == (UNeXt, model.config, SPEC)
        assert torch.equal(Predictor.from_pretrained(name)(image), expected)
    other = UNeXt(num_classes=3, channels=(4, 4, 5, 5, 10))
    load_weights(other, "hf-hub:someone/tumours")
    assert torch.equal(other.head.weight, model.head.weight)
    built = create_model("unext", channels=(4, 4, 5, 5, 10), weights="hf-hub:someone/tumours", num_classes=3)
    assert torch.equal(built.head.weight, model.head.weight)


def test_a_branch_has_its_own_weights_and_a_card_stays(repositories: Path) -> None:
    model = narrow()
    model.push_to_hub("someone/tumours", token="right")
    card = repositories / "someone" / "tumours" / "README.md"
    assert "multiclass, of the classes background, oedema, core" in card.read_text()
    assert 'Predictor.from_pretrained("someone/tumours")' in card.read_text()
    card.write_text("mine")
    torch.nn.init.zeros_(model.head.weight)
    model.push_to_hub("someone/tumours", token="right", branch="second")
    model.push_to_hub("someone/tumours", token="right")
    assert card.read_text() == "mine"
    assert SegmentationModel.from_pretrained("someone/tumours@second").head.weight.eq(0).all()


@pytest.mark.usefixtures("repositories")
def test_a_local_folder_goes_before_the_hub(tmp_path: Path) -> None:
    model = narrow()
    model.push_to_hub("someone/tumours", token="right")
    torch.nn.init.zeros_(model.head.weight)
    model.save_pretrained(tmp_path / "someone" / "tumours")
    assert SegmentationModel.from_pretrained("someone/tumours").head.weight.eq(0).all()
    with pytest.raises(FileNotFoundError, match="holds no run and no weights"):
        SegmentationModel.from_pretrained("someone/tumuors")  # beside a folder that there is: mistyped


@pytest.mark.parametrize("name", ["unext/lggg", "weights/unet.pth", "one", "a/b/c", "/a/b", "./a", "../b"])
def test_mistyped_paths_are_not_asked_for(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "fetch", lambda *_: pytest.fail("the Hub was asked"))
    with pytest.raises(FileNotFoundError, match="holds no run and no weights"):
        SegmentationModel.from_pretrained(name)


@pytest.mark.usefixtures("repositories")
def test_what_the_hub_refuses_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="and the Hub has no someone/none, or not for you"):
        SegmentationModel.from_pretrained("someone/none")
    with pytest.raises(PermissionError, match="not let you write to someone/tumours: sign in with"):
        narrow().push_to_hub("someone/tumours", token="wrong")

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("[Errno 111] Connection refused")  # the client beneath has errors of its own

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(ConnectionError, match="no folder someone/none, and someone/none is not in the cache"):
        SegmentationModel.from_pretrained("someone/none")
    with pytest.raises(ConnectionError, match=r"cannot be reached .*Connection refused\): nothing was uploaded"):
        narrow().push_to_hub("someone/tumours", token="right")


def test_torch_hub_loads_every_registered_name() -> None:
    model = torch.hub.load(str(ROOT), "unext", source="local", weights="lgg")
    assert model.spec.class_names == ("tumour",)
    with torch.device("meta"):
        for name in list_models():
            assert torch.hub.load(str(ROOT), name, source="local", num_classes=2).config["num_classes"] == 2
