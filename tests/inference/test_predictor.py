"""The predictor: normalised as the weights expect, at any size, from arrays as from tensors."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from brainseg.inference import Ensemble, Predictor, export
from brainseg.models import ModelSpec, UNeXt
from brainseg.models.spec import Task
from brainseg.transforms import Normalize


def network(num_classes: int = 1) -> UNeXt:
    torch.manual_seed(0)
    model = UNeXt(3, num_classes, channels=(8, 16, 24, 32, 64))
    model.normalization = Normalize([0.1, 0.2, 0.3], [0.5, 0.4, 0.3]).config
    return model


def test_images_are_normalised_as_the_weights_expect(tmp_path: Path) -> None:
    model = network()
    model.save_pretrained(tmp_path)
    predictor = Predictor.from_pretrained(tmp_path, device="cpu")
    image = torch.rand(1, 3, 40, 50)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.4, 0.3])
    expected = model.eval()((image - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(predictor.logits(image), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_images_of_other_precisions_are_taken(dtype: torch.dtype) -> None:
    predictor, images = Predictor(network(), device="cpu"), torch.rand(1, 3, 32, 32).to(dtype)
    assert torch.equal(predictor.logits(images), predictor.logits(images.float()))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_an_array_is_read_as_the_tensor_of_its_values(dtype: str) -> None:
    predictor = Predictor(network(num_classes=2), device="cpu")
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (37, 64, 3)).astype(dtype)
    tensor = torch.from_numpy(array.astype(np.float32) / np.iinfo(dtype).max).permute(2, 0, 1)
    mask = predictor(array)
    assert (mask.shape, mask.dtype) == ((2, 37, 64), torch.bool)
    assert torch.equal(mask, predictor(tensor))
    assert 0 < mask.float().mean() < 1


def test_the_threshold_is_a_probability() -> None:
    image = torch.rand(3, 48, 48)
    probability = Predictor(network(), device="cpu").logits(image[None])[0].sigmoid()
    middle = probability.median().item()
    mask = Predictor(network(), threshold=middle, device="cpu")(image)
    assert torch.equal(mask, probability > middle)


def test_logits_come_back_at_the_size_of_the_image() -> None:
    model = network()
    spec = replace(model.spec, image_size=(64, 32), keep_aspect_ratio=False)
    predictor = Predictor(model, spec=spec, device="cpu")
    image = torch.rand(1, 3, 100, 80)
    small = F.interpolate(image, (64, 32), mode="bilinear", antialias=True)
    plain = Predictor(model, device="cpu").logits(small)
    expected = F.interpolate(plain, (100, 80), mode="bilinear", antialias=True)
    torch.testing.assert_close(predictor.logits(image), expected)


def test_the_network_sees_the_shape_of_the_anatomy() -> None:
    model = network()
    image = torch.rand(1, 3, 60, 100)
    small = torch.zeros(1, 3, 64, 64)
    small[..., :38, :] = F.interpolate(image, (38, 64), mode="bilinear", antialias=True)
    plain = Predictor(model, device="cpu").logits(small)[..., :38, :]
    expected = F.interpolate(plain, (60, 100), mode="bilinear", antialias=True)
    torch.testing.assert_close(Predictor(model, image_size=(64, 64), device="cpu").logits(image), expected)


@pytest.mark.parametrize("side", [40, 64, 100])
def test_a_square_image_gives_the_same_bits_whether_it_is_stretched_or_not(side: int) -> None:
    model, image = network(), torch.rand(1, 3, side, side)
    kept, stretched = (
        Predictor(model, spec=ModelSpec(image_size=(64, 64), keep_aspect_ratio=keeps), device="cpu").logits(image)
        for keeps in (True, False)
    )
    assert torch.equal(kept, stretched)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((64, 64, 3), np.int32), ValueError, "array of int32"),
        (np.zeros((1, 64, 64, 3), np.uint8), ValueError, "is no image"),
        (np.full((64, 64, 3), 3.0), ValueError, r"values lie in \[3, 3\], expected \[0, 1\]; divide by 255"),
        (torch.zeros(64, 64), ValueError, r"a tensor of shape \(64, 64\) is no image \(C, H, W\)"),
        (torch.zeros(3, 64, 64, dtype=torch.int32), ValueError, "torch.int32"),
        (torch.full((3, 64, 64), 200.0), ValueError, r"\[200, 200\], expected \[0, 1\]; divide by 255"),
        (torch.randn(3, 64, 64), ValueError, "the predictor normalizes them"),
        (torch.full((3, 64, 64), torch.nan), ValueError, "image values hold NaN"),
        (torch.zeros(1, 64, 64), ValueError, r"this network was trained on 3 channels; the image has 1"),
        (torch.zeros(64, 64, 3), ValueError, "permute it to channels first"),
        (torch.zeros(2, 64, 64, 3), ValueError, "permute it to channels first"),
        (np.zeros((0, 64, 3), np.uint8), ValueError, "images of 0x64 pixels show nothing"),
        (np.zeros((3, 64, 64), np.uint8), ValueError, r"arrays are \(height, width, channels\)"),
        ("nowhere.png", FileNotFoundError, "nowhere.png"),
        ([[0.0]], TypeError, "list is no image; give a path, a PIL image"),
        (Image.new("CMYK", (64, 64)), ValueError, "the PIL image holds CMYK colours"),
    ],
)
def test_what_is_no_image_is_an_error(image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Predictor(network(), device="cpu")(image)


def test_a_threshold_that_is_no_probability_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\], got 127"):
        Predictor(network(), threshold=127)


def test_whatever_holds_an_image_gives_the_same_mask(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 256, (40, 56, 3)).astype(np.uint8)
    picture = Image.fromarray(array)
    picture.save(tmp_path / "slice.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    middle = Predictor(network(), device="cpu").probabilities(tensor / 255).median().item()
    predictor = Predictor(network(), threshold=middle, device="cpu")
    expected = predictor(tensor / 255)
    assert 0 < expected.float().mean() < 1
    images: list[Any] = [tmp_path / "slice.png", str(tmp_path / "slice.png"), picture, array, array / 255, tensor]
    for image in images:
        assert torch.equal(predictor(image), expected)
    batch = torch.stack([tensor / 255, (tensor / 255).flip(-1)]).double()
    assert predictor(batch).shape == (2, 1, 40, 56)
    assert torch.equal(predictor(batch)[0], expected)


def test_a_network_of_exclusive_classes_gives_each_pixel_one() -> None:
    model = network(num_classes=3)
    model.spec = replace(model.spec, task="multiclass", class_names=("background", "a", "b"), threshold=None)
    predictor, image = Predictor(model, device="cpu"), torch.rand(3, 40, 50)
    probabilities = predictor.probabilities(image)
    assert (probabilities.shape, probabilities.dtype) == ((3, 40, 50), torch.float32)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(40, 50))
    labels, masks = predictor.labels(image), predictor(image)
    assert (labels.shape, labels.dtype) == ((40, 50), torch.int64)
    assert torch.equal(labels, probabilities.argmax(0))
    assert torch.equal(masks, torch.stack([labels == k for k in range(3)]))
    assert torch.equal(predictor.labels(image[None])[0], labels)


def test_labels_are_of_exclusive_classes_alone() -> None:
    with pytest.raises(ValueError, match="task is 'multilabel', and labels are of 'multiclass'"):
        Predictor(network(num_classes=2), device="cpu").labels(torch.rand(3, 32, 32))


def test_each_class_may_have_its_own_threshold() -> None:
    model = network(num_classes=2)
    model.spec = replace(model.spec, threshold=(0.3, 0.9))
    predictor, image = Predictor(model, device="cpu"), torch.rand(3, 40, 50)
    probabilities = predictor.probabilities(image)
    assert torch.equal(predictor(image), torch.stack([probabilities[0] > 0.3, probabilities[1] > 0.9]))


def test_a_network_of_others_needs_a_spec() -> None:
    module = nn.Conv2d(3, 2, kernel_size=1)
    with pytest.raises(TypeError, match=r"Conv2d does not say what its output means; give Predictor\(model, spec="):
        Predictor(module)
    spec = ModelSpec(task="multiclass", class_names=("background", "lesion"), image_size=(32, 32))
    predictor, image = Predictor(module, spec=spec, device="cpu"), torch.rand(3, 20, 30)
    assert predictor(image).sum(0).eq(1).all()
    with pytest.raises(ValueError, match=r"logits of shape \(1, 2, 20, 30\) do not fit the 1 class"):
        Predictor(module, spec=ModelSpec(), device="cpu")(image)
    with pytest.raises(ValueError, match=r"a spec of 2 class\(es\) does not fit a network of num_classes=1"):
        Predictor(network(), spec=spec)


class Answer(nn.Module):
    """A network of others that answers with something else than logits."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)


NO_LOGITS = [
    (lambda x: {"out": x[:, :1]}, "Answer answered with a dict, expected logits"),
    (lambda x: [x[:, :1]], "Answer answered with a list, expected logits"),
    (lambda x: x[:, 0], r"Answer answered with shape \(\d, \d+, \d+\), expected logits"),
    (
        lambda x: x[:, :1, ::4, ::4],
        r"with logits of \(\d+, \d+\) pixels to images of \(\d+, \d+\); put a module around",
    ),
]


@pytest.mark.parametrize(("answer", "message"), NO_LOGITS)
def test_a_network_of_others_answers_with_logits(answer: Callable[[Tensor], Any], message: str) -> None:
    predictor = Predictor(Answer(answer), spec=ModelSpec(), device="cpu")
    with pytest.raises(ValueError, match=message):
        predictor(torch.rand(3, 32, 40))
    with pytest.raises(ValueError, match=message):
        export(Answer(answer), spec=ModelSpec(), in_channels=3)


def test_pixels_that_are_no_squares_are_seen_as_squares() -> None:
    seen = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x[:, :1]

    predictor = Predictor(Watching(), spec=ModelSpec(image_size=(64, 64), threshold=0.4), device="cpu")
    thick = torch.rand(2, 3, 16, 64)  # rows of 4 mm, columns of 1 mm
    thin = F.interpolate(thick, (64, 64), mode="bilinear", antialias=True)
    logits = predictor.logits(thick, stretch=4)
    assert logits.shape == (2, 1, 16, 64)
    torch.testing.assert_close(seen[-1], thin)
    for result, arguments in ((predictor.probabilities, {}), (predictor, {}), (Ensemble([predictor]), {})):
        assert result(thick, stretch=4, **arguments).shape == (2, 1, 16, 64)
        torch.testing.assert_close(seen[-1], thin)
    spacings: list[Any] = [(5, 4, 1), np.array((5, 4, 1)), torch.tensor((5, 4, 1))]
    for spacing in spacings:
        predictor.volume(thick, spacing=spacing)
        torch.testing.assert_close(seen[-1], thin)
    predictor.volume(thick)
    assert not seen[-1][..., 16:, :].any()  # as they are
    with pytest.raises(ValueError, match="spacing must be three positive numbers"):
        predictor.volume(thick, spacing=(5, 0, 1))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize(("value", "name"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_logits_that_are_not_finite_are_an_error_and_not_an_empty_mask(task: Task, value: float, name: str) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = x[:, :1] if task == "binary" else x[:, :2]
            return torch.where(logits > 0.99, value, logits)

    spec = ModelSpec() if task == "binary" else ModelSpec(task=task, class_names=("background", "a"))
    predictor = Predictor(Broken(), spec=spec, tta=True, device="cpu")
    images = torch.rand(3, 3, 32, 32) * 0.9
    assert predictor(images).shape == (3, spec.num_classes, 32, 32)
    images[1, 0, 5, 7] = 1
    with pytest.raises(ValueError, match=f"Broken's logits of image 1 of the batch of 3, counted from 0, hold {name}"):
        predictor(images)


def test_labels_are_of_the_classes_of_the_spec() -> None:
    spec = ModelSpec(task="multiclass", class_names=("background", "lesion"))
    with pytest.raises(ValueError, match="do not fit the 2 class"):
        Predictor(Answer(lambda x: x), spec=spec, device="cpu").labels(torch.rand(3, 32, 32))


def test_predicting_leaves_a_network_in_training_as_it_was() -> None:
    model, image = network().train(), torch.rand(3, 32, 32)
    model.stages[0].norm.eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    mask = Predictor(model, device="cpu").probabilities(image)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(mask, Predictor(model.eval(), device="cpu").probabilities(image))


def test_a_run_its_best_weights_and_files_before_the_spec_give_the_same(tmp_path: Path) -> None:
    model, image = network(), torch.rand(3, 80, 60)
    model.spec = replace(model.spec, image_size=(32, 48), keep_aspect_ratio=False, threshold=0.45)
    model.save_pretrained(tmp_path / "best")
    (tmp_path / "config.yaml").write_text("data:\n  image_size: [32, 48]\n")
    expected = Predictor(model, device="cpu").probabilities(image)
    for folder in (tmp_path, tmp_path / "best"):
        predictor = Predictor.from_pretrained(folder, device="cpu")
        assert torch.equal(predictor.probabilities(image), expected)
        assert predictor.spec == model.spec
    config = json.loads((tmp_path / "best" / "config.json").read_text())
    spec = config.pop("spec")
    (tmp_path / "best" / "config.json").write_text(json.dumps({**config, "normalization": spec["normalization"]}))
    for folder in (tmp_path, tmp_path / "best"):
        assert torch.equal(Predictor.from_pretrained(folder, device="cpu").probabilities(image), expected)


@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
def test_the_network_sees_the_part_around_the_head(task: Task) -> None:
    classes = {"binary": ("a",), "multilabel": ("a", "b"), "multiclass": ("nothing", "a", "b")}[task]
    model = network(num_classes=len(classes))
    model.spec = ModelSpec(task=task, class_names=classes, image_size=(96, 128), crop=(64, 48))
    image = torch.zeros(1, 3, 96, 128)
    image[..., 20:70, 60:100] = 0.5 + torch.rand(1, 3, 50, 40) / 2  # its middle in row 45 and column 80
    top, left = 13, 56
    logits = Predictor(model, device="cpu").logits(image)
    part = (slice(None), slice(None), slice(top, top + 64), slice(left, left + 48))
    torch.testing.assert_close(
        logits[part],
        Predictor(model, spec=replace(model.spec, crop=None, image_size=(64, 48)), device="cpu").logits(image[part]),
    )

    outside = torch.ones(96, 128, dtype=torch.bool)
    outside[part[2:]] = False
    found = Predictor(model, device="cpu").probabilities(image)[0, :, outside]
    assert found[model.spec.foreground.start :].max() < 1e-12
    if task == "multiclass":
        assert found[0].min() > 0.999
    assert Predictor(model, device="cpu", tta=True).logits(image)[0, -1, outside].max() < -20
    torch.testing.assert_close(
        Predictor(model, device="cpu").logits(image.half())[part], logits[part], atol=0.02, rtol=0
    )


def test_an_image_without_a_head_is_seen_around_its_middle() -> None:
    model = network()
    model.spec = ModelSpec(image_size=(64, 64), crop=(32, 32))
    logits = Predictor(model, device="cpu").logits(torch.zeros(1, 3, 64, 64))
    assert (logits[..., 16:48, 16:48] > -20).all()
    assert (logits > -20).sum() == 32 * 32


def test_at_another_size_the_network_sees_the_same_part() -> None:
    model = network()
    model.spec = ModelSpec(image_size=(64, 64), crop=(48, 32))
    assert Predictor(model, image_size=(128, 96), device="cpu").spec.crop == (96, 48)
    assert Predictor(model, threshold=0.3, device="cpu").spec.crop == (48, 32)


def test_windows_see_all_of_a_large_image() -> None:
    model = network()
    model.spec = ModelSpec(image_size=(64, 64), crop=(32, 32))
    image = torch.rand(1, 3, 96, 80)
    windows = Predictor(model, windows=True, device="cpu").logits(image)
    model.spec = replace(model.spec, crop=None)
    assert torch.equal(windows, Predictor(model, windows=True, device="cpu").logits(image))
