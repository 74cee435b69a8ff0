"""Equal to the authors' code: their golden values, and a literal reference on settings that these leave out."""

import copy
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import SHARED
from tests.goldens import mask_dino
from tests.models.mask_dino import official_adapter, reference

GOLDENS = SHARED / "goldens" / "mask_dino"
CASES = sorted(path.stem for path in GOLDENS.glob("*.json")) or ["absent"]

CONFIG = {
    "num_classes": 3,
    "hidden_dim": 64,
    "conv_dim": 64,
    "mask_dim": 24,
    "num_queries": 9,
    "encoder_layers": 2,
    "encoder_ffn": 40,
    "encoder_heads": 4,
    "decoder_layers": 2,
    "decoder_ffn": 48,
    "feature_channels": {"res2": 8, "res3": 12, "res4": 16, "res5": 20},
    "encoder_features": ["res3", "res4", "res5"],
    "total_levels": 3,
    "feature_order": "high2low",
    "fpn_norm": "GN",
    "softmax_classes": False,
    "two_stage": True,
    "learn_content": False,
    "init_box": "bitmask",
    "initial_prediction": True,
    "denoising": "seg",
    "dn_number": 7,
    "dn_noise": 0.4,
    "num_points": 80,
    "oversample": 3.0,
    "importance": 0.75,
}
ONE_STAGE = {"two_stage": False, "init_box": "no"}
EVERY_FEATURE = {"encoder_features": ["res2", "res3", "res4", "res5"], "total_levels": 4}
SETTINGS: dict[str, dict[str, Any]] = {
    "authors' settings": {},
    "one-stage": ONE_STAGE,
    "one-stage without initial prediction": {**ONE_STAGE, "initial_prediction": False},
    "one-stage without denoising": {**ONE_STAGE, "denoising": "no"},
    "one-stage, standard denoising": {**ONE_STAGE, "denoising": "standard"},
    "one-stage, softmax": {**ONE_STAGE, "softmax_classes": True, "denoising": "no"},
    "learned content": {"learn_content": True},
    "anchors of the boxes": {"init_box": "no"},
    "anchors without the last row": {"init_box": "mask2box"},
    "no initial prediction": {"init_box": "no", "initial_prediction": False},
    "no denoising": {"denoising": "no"},
    "standard denoising": {"denoising": "standard"},
    "denoising without noise": {"dn_noise": 0.0},
    "softmax classes": {"softmax_classes": True},
    "one class": {"num_classes": 1},
    "fine first": {"feature_order": "low2high"},
    "one level more": {"total_levels": 4},
    "one level more, fine first": {"total_levels": 4, "feature_order": "low2high"},
    "two levels more": {"total_levels": 5},
    "two levels more, fine first": {"total_levels": 5, "feature_order": "low2high"},
    "every feature": EVERY_FEATURE,
    "Swin-L": {**EVERY_FEATURE, "total_levels": 5, "feature_order": "low2high"},
    "coarse features": {"encoder_features": ["res4", "res5"], "total_levels": 2},
    "coarse features, fine first": {
        "encoder_features": ["res4", "res5"],
        "total_levels": 3,
        "feature_order": "low2high",
    },
    "coarsest feature": {"encoder_features": ["res5"], "total_levels": 1},
    "a gap": {"encoder_features": ["res2", "res4"], "total_levels": 2},
    "wider pixel decoder": {"conv_dim": 96},
    "narrower pixel decoder": {"hidden_dim": 80, "feature_order": "low2high", "total_levels": 4},
    "no norm": {"fpn_norm": "", "encoder_features": ["res4", "res5"], "total_levels": 2},
    "one head": {"encoder_heads": 1},
    "more queries than tokens": {"num_queries": 80, "encoder_features": ["res5"], "total_levels": 1},
    "more queries than tokens, learned content": {
        "num_queries": 80,
        "learn_content": True,
        "encoder_features": ["res5"],
        "total_levels": 1,
    },
    "no random points": {"importance": 1.0},
    "random points alone": {"importance": 0.0, "oversample": 1.0},
}
COUNTS = {
    "3 and 2": (3, 2),
    "one empty": (2, 0),
    "all empty": (0, 0),
    "more than slots": (8, 1),
    "more than queries": (11, 0),
}
# All counts with the settings that treat them by themselves; with the others where there is time.
COUNTED = ("authors' settings", "one-stage", "standard denoising", "softmax classes")
# What others try by parts: no training step but where there is time.
COMBINED = (
    "one-stage without denoising",
    "one-stage, standard denoising",
    "one level more, fine first",
    "two levels more",
    "two levels more, fine first",
    "every feature",
    "coarse features, fine first",
    "more queries than tokens, learned content",
)
QUICK = {(setting, "3 and 2") for setting in SETTINGS if setting not in COMBINED} | {*product(COUNTED, COUNTS)}
STEPS = [pytest.param(*step, marks=() if step in QUICK else pytest.mark.slow) for step in product(SETTINGS, COUNTS)]


@cache
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_mask_dino_parity", SHARED / "tools/check_mask_dino_parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("adapter", [official_adapter, reference], ids=["ours", "reference"])
def test_golden_values_of_the_authors_code_are_met(name: str, adapter: ModuleType) -> None:
    if not GOLDENS.is_dir():
        pytest.skip(f"{GOLDENS} is absent")
    case = json.loads((GOLDENS / f"{name}.json").read_text())
    found = checker().run_case(case, adapter)
    compared = {key: checker().compare(expected, found[key]) for key, expected in case["quantities"].items()}
    assert {key: error for key, (error, allowed, _) in compared.items() if error > allowed} == {}


def test_a_golden_training_step_of_our_own_is_met() -> None:
    case = json.loads((Path(mask_dino.__file__).parent / "mask_dino_small_width.json").read_text())
    model = official_adapter.build(case["config"])
    official_adapter.load(model, mask_dino.make_state(case))
    features = {
        name: mask_dino.make_feature(case["salt"], name, given["shape"]) for name, given in case["inputs"].items()
    }
    targets = mask_dino.make_targets(case["targets"], *case["image"])
    found = official_adapter.train_step(model, features, targets, mask_dino.make_draw(case["salt"]))
    assert len(case["quantities"]) > 100
    for name, golden in case["quantities"].items():
        assert list(found[name].shape) == golden["shape"], name
        tolerance = {"value": 2e-5, "grad": 4e-4, "exact": 0}[golden["tol"]] * golden["scale"]
        errors = np.abs(found[name].reshape(-1)[golden["index"]] - np.array(golden["value"]))
        assert errors.max(initial=0) <= tolerance, name


@pytest.mark.filterwarnings("ignore:an image has")
@pytest.mark.parametrize(("setting", "counts"), STEPS)
def test_a_training_step_equals_the_reference(setting: str, counts: str) -> None:
    config = {**CONFIG, **SETTINGS[setting]}
    targets = make_targets(COUNTS[counts], config["num_classes"])
    ours, theirs = (adapter.train_step(model, features, targets, draw) for adapter, model, features in both(config))
    assert_equal(ours, theirs)


@pytest.mark.parametrize("setting", SETTINGS)
def test_evaluation_equals_the_reference(setting: str) -> None:
    ours, theirs = (
        adapter.predict(model, features) for adapter, model, features in both({**CONFIG, **SETTINGS[setting]})
    )
    assert_equal(ours, theirs)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def both(config: dict[str, Any]) -> Iterator[tuple[ModuleType, Any, dict[str, np.ndarray]]]:
    """The two implementations, each with a model of the same float64 weights, and the same features."""
    generator = np.random.default_rng(0)
    state = {key: weight(generator, key, shape) for key, shape in reference.state_shapes(config).items()}
    sides = {"res2": (24, 32), "res3": (12, 16), "res4": (6, 8), "res5": (3, 4)}
    features = {name: smooth(generator, (2, width, *sides[name])) for name, width in config["feature_channels"].items()}
    for adapter, dtype in ((official_adapter, torch.float32), (reference, torch.float64)):
        with default_dtype(dtype):
            model = adapter.build(copy.deepcopy(config))
            adapter.load(model, state)
            yield adapter, model, features


def weight(generator: np.random.Generator, key: str, shape: tuple[int, ...]) -> np.ndarray:
    z = generator.standard_normal(shape)
    if key.endswith(("level_embed", "label_enc.weight", "query_feat.weight", "query_embed.weight")):
        return z
    if key.endswith("sampling_offsets.bias"):
        return 2 * z
    if key.endswith("class_embed.bias"):
        return z - 1
    if len(shape) == 1:
        return key.endswith("weight") + 0.1 * z
    return z / np.sqrt(np.prod(shape[1:]))


def smooth(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Waves of random direction, the same over all levels in kind."""
    batch, channels, height, width = shape
    amplitude, fy, fx, phase = (generator.uniform(-2, 2, (batch, channels, 1, 1)) for _ in range(4))
    y, x = np.mgrid[:height, :width] + 0.5
    return amplitude * np.cos(6 * (fy * y / height + fx * x / width) + phase)


def make_targets(counts: tuple[int, ...], num_classes: int) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(1)
    y, x = np.mgrid[:96, :128] + 0.5
    targets = []
    for count in counts:
        centers, radii = generator.uniform(0.25, 0.75, (count, 2)), generator.uniform(0.12, 0.3, (count, 2))
        masks = [
            ((x / 128 - cx) / rx) ** 2 + ((y / 96 - cy) / ry) ** 2 <= 1
            for (cx, cy), (rx, ry) in zip(centers, radii, strict=True)
        ]
        targets.append(
            {
                "labels": generator.integers(0, num_classes, count),
                "boxes": np.concatenate([centers, 2 * radii], axis=1),
                "masks": np.array(masks, dtype=np.float64).reshape(count, 96, 128),
            }
        )
    return targets


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(list(name.encode())).random(shape)


def assert_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Up to the rounding of float64, as a share of the largest number of its kind."""
    assert ours.keys() == theirs.keys()
    largest = max((np.abs(value).max() for key, value in theirs.items() if key.startswith("grad")), default=0)
    for key, expected in theirs.items():
        found = ours[key]
        assert found.shape == expected.shape, key
        if expected.size:
            scale = largest if key.startswith("grad") else np.abs(expected).max()
            assert np.abs(found - expected).max() <= 1e-11 * scale, key
