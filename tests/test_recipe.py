"""The trainer of docs/recipe: one loop for networks of ours and of others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from docs.networks import candidates
from docs.recipe import train
from safetensors.torch import load_file
from torch import nn

from brainseg.data import write_phantoms
from brainseg.models.mask_dino import targets_from_masks


def run(root: Path, output: Path, *options: str) -> dict[str, torch.Tensor]:
    """The weights of two steps."""
    folds = root / "folds.json"
    folds.write_text('{"folds": [["TCGA_CS_0001_20000101"], ["TCGA_DU_0002_20000101"]]}')
    given = ["--fold", "0", "--steps", "2", "--warm-up", "1", "--batch", "2", "--folds", str(folds)]
    train.train(train.create_parser().parse_args([*given, "--root", str(root), "--output", str(output), *options]))
    return load_file(output / "weights" / "model.safetensors")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lgg")
    write_phantoms(folder, patients=2, slices=4, size=192)
    return folder


def test_a_run_that_was_cut_off_ends_with_the_weights_of_one_that_was_not(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(root, tmp_path / "whole", "--model", "unext_tiny")
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 1)
    draw = train.draw_batch
    drawn = []

    def cut_off(*arguments: Any) -> Any:
        drawn.append(arguments)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(train, "draw_batch", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "cut", "--model", "unext_tiny")
    resumed = run(root, tmp_path / "cut", "--model", "unext_tiny")
    assert len(drawn) == 3
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert not torch.equal(whole["head.weight"], train.build("unext_tiny").state_dict()["head.weight"])


def foreign() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))


def test_a_network_of_others_is_trained_by_the_same_loop_and_read_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "foreign", foreign, raising=False)
    weights = run(root, tmp_path, "--model", "docs.networks.candidates:foreign")
    model = train.read_averaged(tmp_path)
    assert not model.training
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_mask_dino_is_trained_by_its_own_criterion() -> None:
    torch.manual_seed(0)
    model = train.build("mask_dino_small").train()
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, :, 10:30, 20:50] = 1
    images = torch.rand(2, 3, 64, 64)
    torch.manual_seed(1)
    loss, parts = train.loss_of(model, images, masks)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = model.forward_queries(images, targets_from_masks(masks))
    expected, _ = model.criterion(predictions, targets_from_masks(masks))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    assert set(parts) == {"ce", "dice"}


def test_the_slices_around_a_slice_are_its_neighbours_and_at_the_ends_itself() -> None:
    assert train.neighbours(torch.tensor([0, 2, 4]), 3, 5).tolist() == [[0, 0, 1], [1, 2, 3], [3, 4, 4]]
    assert train.neighbours(torch.arange(3), 1, 3).tolist() == [[0], [1], [2]]


def test_a_network_of_three_slices_sees_those_around(root: Path, tmp_path: Path) -> None:
    patients = train.load(root, ["TCGA_CS_0001_20000101"])
    generator = torch.Generator().manual_seed(0)
    images, _ = train.draw_batch(patients, 4, 0.0, generator, 3)
    raw = patients[0].raw.float() / 255
    around = torch.stack([torch.cat([raw[max(i - 1, 0)], raw[i], raw[min(i + 1, 3)]]) for i in range(4)])
    expected = train.NORMALIZE(around)
    assert all(any(torch.allclose(image, each, atol=1e-2) for each in expected) for image in images)
    weights = run(root, tmp_path, "--model", "unext_tiny", "--slices", "3")
    model = train.read_averaged(tmp_path)
    assert model(torch.rand(1, 9, 64, 64)).shape == (1, 1, 64, 64)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_teachers_are_half_of_the_target_and_of_the_same_fold(root: Path, tmp_path: Path) -> None:
    alone = run(root, tmp_path / "teacher", "--model", "unext_tiny")
    taught = run(root, tmp_path / "taught", "--model", "unext_tiny", "--teachers", str(tmp_path / "teacher"))
    assert not torch.equal(alone["head.weight"], taught["head.weight"])
    teacher, images = train.read_averaged(tmp_path / "teacher"), torch.rand(1, 3, 64, 64)
    masks = (torch.rand(1, 1, 64, 64) > 0.5).float()
    with torch.no_grad():
        expected = (masks + teacher(images).sigmoid()) / 2
    torch.testing.assert_close(train.softened([teacher, teacher], images, masks), expected, atol=1e-2, rtol=0)
    with pytest.raises(SystemExit, match="trained on other patients than this run is; give teachers of the same fold"):
        run(root, tmp_path / "other", "--model", "unext_tiny", "--fold", "1", "--teachers", str(tmp_path / "teacher"))
