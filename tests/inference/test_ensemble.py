"""Several networks as one: the mean of their logits, each with its own input."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brainseg.inference import Ensemble, Predictor
from brainseg.models import ModelSpec, Postprocessing, UNeXt
from brainseg.transforms import ForegroundZScore


def network(seed: int) -> UNeXt:
    torch.manual_seed(seed)
    return UNeXt(channels=(8, 16, 24, 32, 64))


def test_logits_are_averaged_each_with_its_own_size_and_normalization(tmp_path: Path) -> None:
    first, second = network(0), network(1)
    first.spec = replace(first.spec, image_size=(32, 48), threshold=0.4)
    second.spec = replace(second.spec, normalization=ForegroundZScore().config)
    for number, model in enumerate((first, second)):
        model.save_pretrained(tmp_path / str(number))
    ensemble = Ensemble.from_folders([tmp_path / "0", tmp_path / "1"], device="cpu")
    image = torch.rand(3, 40, 50)
    logits = [Predictor(model, device="cpu").logits(image[None]) for model in (first, second)]
    torch.testing.assert_close(ensemble.logits(image[None]), (logits[0] + logits[1]) / 2)
    assert torch.equal(ensemble(image), (((logits[0] + logits[1]) / 2).sigmoid() > 0.4)[0])


def test_a_saved_ensemble_comes_back_wherever_its_folder_lies(tmp_path: Path) -> None:
    members = [Predictor(network(seed), image_size=(32, 32), threshold=0.3, device="cpu") for seed in (0, 1)]
    ensemble, image = Ensemble(members), torch.rand(3, 40, 50)
    ensemble.save_pretrained(tmp_path / "here")
    assert members[0].model.spec.image_size is None  # what a network itself says is left as it was
    (tmp_path / "here").rename(tmp_path / "there")
    for back in (Predictor.from_pretrained(tmp_path / "there"), Ensemble.from_pretrained(tmp_path / "there")):
        assert isinstance(back, Ensemble)
        assert back.spec == ensemble.spec
        torch.testing.assert_close(back.logits(image[None]), ensemble.logits(image[None]))
    single = Ensemble.from_pretrained(tmp_path / "there" / "member_1")
    torch.testing.assert_close(single.logits(image[None]), members[1].logits(image[None]))


def test_networks_of_others_are_not_saved(tmp_path: Path) -> None:
    foreign = Predictor(torch.nn.Conv2d(3, 1, 1), spec=ModelSpec(), device="cpu")
    with pytest.raises(ValueError, match="member_0 is Conv2d, expected a network of brainseg"):
        Ensemble([foreign]).save_pretrained(tmp_path / "out")
    nested = Ensemble([Ensemble([Predictor(network(0))])])
    with pytest.raises(ValueError, match="member_0 is Ensemble, expected a network of brainseg"):
        nested.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_network_of_an_ensemble_is_named(tmp_path: Path) -> None:
    Ensemble([Predictor(network(seed)) for seed in (0, 1)]).save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds several networks, and one is wanted: .*/member_0"):
        UNeXt.from_pretrained(tmp_path)
    (tmp_path / "member_1" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="member_1 holds no run and no weights"):
        Predictor.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"members": []}', '{"members": [1]}', '{"members": "a"}'])
def test_a_file_that_names_no_members_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "ensemble.json").write_text(content)
    with pytest.raises(ValueError, match=r"ensemble\.json names no members"):
        Predictor.from_pretrained(tmp_path)


def test_members_of_other_classes_are_refused() -> None:
    first, second = network(0), network(1)
    second.spec = ModelSpec(class_names=("oedema",))
    with pytest.raises(ValueError, match="members must agree in task and classes, got binary of foreground and"):
        Ensemble([Predictor(first), Predictor(second)])
    with pytest.raises(ValueError, match="needs one member or more"):
        Ensemble([])


def test_a_patient_is_predicted_as_a_volume() -> None:
    model = network(0)
    model.spec = replace(model.spec, postprocessing=Postprocessing(smooth=True))
    predictor, slices = Predictor(model, device="cpu"), torch.rand(5, 3, 32, 40)
    likely = torch.stack([predictor.probabilities(image) for image in slices])
    expected = 0.2 * likely[[0, 0, 1, 2, 3]] + 0.6 * likely + 0.2 * likely[[1, 2, 3, 4, 4]]
    torch.testing.assert_close(predictor.volume(slices, batch_size=2), expected > 0.5)
    plain = predictor.volume(slices, postprocessing=Postprocessing())
    assert torch.equal(plain, likely > 0.5)
    with pytest.raises(ValueError, match=r"expected the slices of a patient \(S, C, H, W\)"):
        predictor.volume(slices[:0])
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        predictor.volume(slices, batch_size=0)


def test_weights_that_ship_are_an_ensemble_of_one() -> None:
    x = torch.rand(1, 3, 64, 64)
    ensemble = Ensemble.from_weights("unext", "lgg", device="cpu")
    assert torch.equal(ensemble.logits(x), Predictor.from_weights("unext", "lgg", device="cpu").logits(x))


def test_members_that_take_other_channels_or_axes_are_refused() -> None:
    first, second = network(0), network(1)
    first.spec = ModelSpec(channel_names=("t1", "flair", "t1ce"))
    second.spec = ModelSpec(channel_names=("FLAIR", "t1", "t1ce"))
    with pytest.raises(ValueError, match="same channels, got t1, flair, t1ce and flair, t1, t1ce; predict apart"):
        Ensemble([Predictor(first), Predictor(second)])
    second.spec = ModelSpec(axis="coronal")  # channels without names may be the same
    with pytest.raises(ValueError, match="slices of one axis, got axial and coronal; predict apart"):
        Ensemble([Predictor(first), Predictor(second)])
