"""Images and masks in two folders, of any format and number of classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from brainseg.data import ImageMaskFolder

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (33, 40), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (33, 40, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (33, 40), dtype=np.uint16)
MASK = RNG.integers(0, 2, (33, 40), dtype=np.uint8)

Load = Callable[..., ImageMaskFolder]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def load(root: Path, tmp_path: Path) -> Load:
    return lambda *names: ImageMaskFolder(root, *names, cache_dir=tmp_path / "cache")


def write(path: Path, pixels: NDArray[Any] | Image.Image = GRAY) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path)


@pytest.mark.parametrize("extension", ["png", "tif", "tiff", "bmp", "pgm", "PNG"])
def test_any_format_of_pillow_is_read(root: Path, load: Load, extension: str) -> None:
    write(root / "images" / f"a.{extension}", GRAY)
    write(root / "masks" / "a.png", 255 * MASK)
    (sample,) = load()
    assert torch.equal(sample["image"], torch.from_numpy(GRAY.astype(np.float32))[None] / 255)
    assert torch.equal(sample["mask"], torch.from_numpy(MASK.astype(np.float32))[None])
    assert (sample["patient"], sample["slice"]) == ("a", 0)


def test_lossy_formats_are_read_as_pillow_reads_them(root: Path, load: Load) -> None:
    write(root / "images" / "a.jpg", COLOUR)
    write(root / "masks" / "a.png", 255 * MASK)
    with Image.open(root / "images" / "a.jpg") as image:
        expected = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
    assert torch.equal(load()[0]["image"], torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (GRAY, GRAY[None] / 255),
        (COLOUR, COLOUR.transpose(2, 0, 1) / 255),
        (WIDE, WIDE[None] / 65535),
        (np.concatenate([COLOUR, GRAY[..., None]], axis=-1), COLOUR.transpose(2, 0, 1) / 255),
        (Image.fromarray(GRAY).convert("P"), np.stack([GRAY / 255] * 3)),
    ],
    ids=["gray", "RGB", "16 bits", "RGBA", "palette"],
)
def test_values_of_every_storage_lie_between_0_and_1(
    root: Path, load: Load, pixels: NDArray[Any] | Image.Image, expected: NDArray[Any]
) -> None:
    write(root / "images" / "a.png", pixels)
    write(root / "masks" / "a.png", MASK)
    image = load()[0]["image"]
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, torch.from_numpy(expected).float(), rtol=1e-6, atol=0)


def test_eight_and_sixteen_bits_may_alternate(root: Path, load: Load) -> None:
    # Odd numbers of bytes before the wide ones, which lie at even places.
    sides = {"a": (33, 39), "b": (32, 32), "c": (31, 31), "d": (5, 7)}
    images = {name: RNG.integers(0, 256 if name in "ac" else 65536, side) for name, side in sides.items()}
    for name, image in images.items():
        write(root / "images" / f"{name}.png", image.astype(np.uint8 if name in "ac" else np.uint16))
        write(root / "masks" / f"{name}.png", np.zeros(image.shape, np.uint8))
    for sample in load():
        expected = images[sample["patient"]] / (255 if sample["patient"] in "ac" else 65535)
        np.testing.assert_allclose(sample["image"][0].numpy(), expected, rtol=1e-6)


def test_one_folder_a_class_gives_one_channel_a_class(root: Path, load: Load) -> None:
    masks = RNG.integers(0, 2, (11, 33, 40), dtype=np.uint8)
    write(root / "images" / "a.png", COLOUR)
    for k, mask in enumerate(masks):
        write(root / "masks" / str(k) / ("a.png" if k % 2 else "a.tif"), 255 * mask)
    data = load()
    assert data.num_classes == 11
    assert torch.equal(data[0]["mask"], torch.from_numpy(masks).float())


def test_items_are_sorted_by_name_without_extension(root: Path, load: Load) -> None:
    for name in ("b", "a-1", "a"):
        write(root / "images" / f"{name}.png")
        write(root / "masks" / f"{name}.png", MASK)
    data = load()
    assert [sample["patient"] for sample in data] == data.patients == ["a", "a-1", "b"]


def test_names_choose_a_part(root: Path, load: Load) -> None:
    for name in "abc":
        write(root / "images" / f"{name}.png")
        write(root / "masks" / f"{name}.png", MASK)
    assert [sample["patient"] for sample in load(["c", "a"])] == ["a", "c"]
    with pytest.raises(ValueError, match=r"holds no patient 'd' \(1 of 2 wanted are unknown\)"):
        load(["a", "d"])
    assert len(load([])) == 0


def test_what_lies_beside_the_images_is_no_problem(root: Path, load: Load) -> None:
    for folder in ("images", "masks/0", "masks/1"):
        write(root / folder / "a.png", MASK)
        (root / folder / "Thumbs.db").write_bytes(b"\0")
        (root / folder / "._a.png").write_bytes(b"\0")
        (root / folder / "labels.csv").write_text("")
        for name in ("notes.pdf", "data.h5", "film.mpg"):
            (root / folder / name).write_bytes(b"")
        write(root / folder / "__MACOSX" / "b.png")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (root / "masks" / name).mkdir()
    (root / "README.md").write_text("")
    assert len(load()) == 1


def test_names_match_however_their_accents_are_spelled(root: Path, load: Load) -> None:
    composed, decomposed = "Zürich", "Zu\u0308rich"
    write(root / "images" / f"{decomposed}.png")
    write(root / "masks" / f"{composed}.png", MASK)
    for name in (composed, decomposed):
        (sample,) = load([name])
        assert sample["patient"] == composed
    write(root / "images" / f"{composed}.png")
    with pytest.raises(ValueError, match="share a name"):
        load()


def test_a_name_ends_where_the_suffix_of_an_image_begins(root: Path, load: Load) -> None:
    write(root / "images" / "scan_1.2.png")
    Image.fromarray(MASK).save(root / "images" / "scan_1.3", format="PNG")
    for name in ("scan_1.2.png", "scan_1.3.png"):
        write(root / "masks" / name, MASK)
    assert load().patients == ["scan_1.2", "scan_1.3"]


def missing(root: Path) -> None:
    (root / "masks" / "b.png").unlink()


def extra(root: Path) -> None:
    (root / "images" / "b.png").unlink()


def doubled_image(root: Path) -> None:
    write(root / "images" / "b.tif", COLOUR)


def doubled_mask(root: Path) -> None:
    write(root / "masks" / "b.tif", MASK)


def gray(root: Path) -> None:
    write(root / "images" / "b.png", GRAY)


def other_size(root: Path) -> None:
    write(root / "masks" / "b.png", MASK[:32])


def other_values(root: Path) -> None:
    write(root / "masks" / "b.png", GRAY)


def broken(root: Path) -> None:
    (root / "images" / "b.png").write_bytes((root / "images" / "b.png").read_bytes()[:500])


def one_class_lacks_a_mask(root: Path) -> None:
    for k in "01":
        write(root / "masks" / k / "a.png", MASK)
    write(root / "masks" / "0" / "b.png", MASK)


def named_classes(root: Path) -> None:
    for name in ("oedema", "tumour"):
        (root / "masks" / name).mkdir()


def mask_beside_classes(root: Path) -> None:
    for name in "ab":
        (root / "masks" / f"{name}.png").unlink()
        write(root / "masks" / "0" / f"{name}.png", MASK)
    write(root / "masks" / "c.png", MASK)


def image_in_a_folder(root: Path) -> None:
    write(root / "images" / "more" / "c.png", COLOUR)


def numbers_of_classes(root: Path) -> None:
    write(root / "masks" / "b.png", 3 * MASK)


def lost_link(root: Path) -> None:
    (root / "images" / "c.png").symlink_to(root / "nowhere.png")
    write(root / "masks" / "c.png", MASK)


def classes_from_one(root: Path) -> None:
    for name in "12":
        (root / "masks" / name).mkdir()


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (missing, FileNotFoundError, r"images/b\.png has no mask; expected .*masks/b\.\* \(any image format\)"),
        (extra, FileNotFoundError, r"masks/b\.png is a mask without an image; expected images/b\.\*"),
        (doubled_image, ValueError, r"images/b\.tif and b\.png share a name; rename one with its mask"),
        (doubled_mask, ValueError, r"masks/b\.tif and b\.png share a name; rename one with its mask"),
        (gray, ValueError, r"b\.png has 1 channels and a\.png 3; convert all images to gray or all to colour"),
        (other_size, ValueError, r"masks/b\.png is 32x40 pixels and its image b\.png 33x40; export both at one size"),
        (other_values, ValueError, r"masks/b\.png holds the values .*, expected 0 and 255"),
        (broken, ValueError, r"images/b\.png is truncated or no image that Pillow reads"),
        (one_class_lacks_a_mask, FileNotFoundError, r"images/b\.png has no mask; expected .*masks/1/b\.\*"),
        (
            named_classes,
            FileNotFoundError,
            r"masks holds the folders oedema, tumour; expected 0, 1, ... one a class: rename",
        ),
        (mask_beside_classes, ValueError, r"masks/c\.png lies beside the folders of the classes; move it into the one"),
        (
            image_in_a_folder,
            ValueError,
            r"images/a\.\* lies beside folders, which are those of patients; move it into one",
        ),
        (numbers_of_classes, ValueError, r"b\.png holds the values 0, 3, expected .*masks/0, masks/1, \.\.\."),
        (lost_link, FileNotFoundError, r"images/c\.png"),
        (classes_from_one, FileNotFoundError, r"masks holds the folders 1, 2; expected 0, 1, ... one a class"),
    ],
)
def test_bad_data_is_named(
    root: Path, load: Load, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    for name in "ab":
        write(root / "images" / f"{name}.png", COLOUR)
        write(root / "masks" / f"{name}.png", MASK)
    damage(root)
    with pytest.raises(error, match=message):
        load()


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], r"there is no folder .*data/images; expected images/<name>"),
        (["masks"], r"there is no folder .*data/images; expected images/<name>"),
        (["images"], r"data/images holds no images; expected images/<name>"),
        (["images", "masks"], r"data/images holds no images; expected images/<name>"),
    ],
)
def test_incomplete_folders_are_named(root: Path, load: Load, folders: list[str], message: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=message):
        load()


def test_volumes_in_place_of_images_are_called_what_they_are(root: Path, load: Load) -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
        (root / folder / "a.nii.gz").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match=r"images holds no images; .* but it holds a\.nii\.gz \(a NIfTI volume\)"
    ):
        load()


def test_images_without_a_folder_of_masks_are_named(root: Path, load: Load) -> None:
    write(root / "images" / "a.png")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*data/masks; expected"):
        load()


def label_maps(root: Path, **maps: NDArray[Any] | Image.Image) -> None:
    for name, pixels in maps.items():
        write(root / "images" / f"{name}.png")
        write(root / "masks" / f"{name}.png", pixels)


CLASSES = ["background", "oedema", "core"]
MAP = RNG.integers(0, 3, (33, 40), dtype=np.uint8)


@pytest.mark.parametrize("storage", ["gray", "palette", "16 bits", "gray stored as colour"])
def test_label_maps_are_numbers_of_classes_however_they_are_stored(root: Path, tmp_path: Path, storage: str) -> None:
    pixels: NDArray[Any] | Image.Image = MAP
    if storage == "palette":
        pixels = Image.fromarray(MAP).convert("P")
        pixels.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    elif storage == "16 bits":
        pixels = MAP.astype(np.uint16)
    elif storage == "gray stored as colour":
        pixels = MAP[..., None].repeat(3, axis=-1)
    label_maps(root, a=pixels)
    data = ImageMaskFolder(root, classes=CLASSES, cache_dir=tmp_path / "cache")
    assert (data.task, data.class_names, data.num_classes) == ("multiclass", tuple(CLASSES), 3)
    assert data[0]["mask"].dtype == torch.int64
    assert torch.equal(data[0]["mask"], torch.from_numpy(MAP).long())
    assert data.labels.ignore_index is None


@pytest.mark.parametrize(
    "content",
    ['["background", "oedema", "core"]', '{"oedema": 1, "core": 2}', '{"0": "background", "1": "oedema", "2": "core"}'],
)
def test_classes_are_read_from_their_file(root: Path, tmp_path: Path, content: str) -> None:
    label_maps(root, a=MAP)
    (root / "classes.json").write_text(content)
    data = ImageMaskFolder(root, cache_dir=tmp_path / "cache")
    assert data.class_names == tuple(CLASSES)
    assert torch.equal(data[0]["mask"], torch.from_numpy(MAP).long())
    regions = ImageMaskFolder(root, classes={"whole": [1, 2], "core": [2]}, cache_dir=tmp_path / "cache")
    assert (regions.task, regions.class_names) == ("multilabel", ("whole", "core"))
    assert torch.equal(regions[0]["mask"], torch.from_numpy(np.stack([MAP > 0, MAP == 2])).float())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"classes\.json is no JSON"),
        ("[]", r"classes\.json holds no classes"),
        ('"tumour"', r"classes\.json holds no classes"),
        ('{"a": "background", "1": "core"}', r"classes\.json has no value for each name"),
        ('{"0": "a", "1": "a"}', r"classes\.json has no value for each name"),
        ("[1, 2]", "classes must be names"),
        ('["background", "oedema"]', r"a\.png holds the value 2, which no class has"),
    ],
)
def test_classes_that_are_none_are_named(root: Path, tmp_path: Path, content: str, message: str) -> None:
    label_maps(root, a=MAP)
    (root / "classes.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        ImageMaskFolder(root, cache_dir=tmp_path / "cache")


def test_255_is_ignored_in_label_maps(root: Path, tmp_path: Path) -> None:
    ignored = np.where(MASK > 0, np.uint8(255), MAP)
    label_maps(root, a=ignored, b=MAP)
    data = ImageMaskFolder(root, classes=CLASSES, cache_dir=tmp_path / "cache")
    assert data.labels.ignore_index == 255
    assert torch.equal(data[0]["mask"], torch.from_numpy(ignored).long())
    several = ImageMaskFolder(root, classes=CLASSES, task="multilabel", cache_dir=tmp_path / "cache")
    assert torch.equal(several[0]["valid"], torch.from_numpy(MASK == 0)[None])
    assert several[1]["valid"].all()
    assert torch.equal(several[0]["mask"], torch.from_numpy(np.stack([ignored == 1, ignored == 2])).float())
    part = ImageMaskFolder(root, ["b"], classes=CLASSES, task="multilabel", cache_dir=tmp_path / "cache")
    assert list(part[0]) == list(several[0])  # a batch needs the same of every sample


def test_masks_of_0_and_255_are_not_taken_for_label_maps(root: Path, tmp_path: Path) -> None:
    label_maps(root, a=255 * MASK, b=np.zeros_like(MASK))
    with pytest.raises(
        ValueError, match=r"a\.png and all others hold 0 and 255 alone, and label maps ignore 255; they are"
    ):
        ImageMaskFolder(root, classes=["background", "tumour"], cache_dir=tmp_path / "cache")
    data = ImageMaskFolder(root, classes=["tumour"], cache_dir=tmp_path / "cache")
    assert (data.task, data.class_names, data.num_classes) == ("binary", ("tumour",), 1)
    assert torch.equal(data[0]["mask"], torch.from_numpy(MASK)[None].float())
    assert data.has_foreground == [True, False]


def test_colour_without_a_palette_is_no_label_map(root: Path, tmp_path: Path) -> None:
    label_maps(root, a=COLOUR)
    with pytest.raises(
        ValueError, match=r"a\.png is a colour image, expected a label map; save it as gray or with a pal"
    ):
        ImageMaskFolder(root, classes=CLASSES, cache_dir=tmp_path / "cache")


def test_masks_of_several_folders_are_named_and_may_exclude_each_other(root: Path, tmp_path: Path) -> None:
    write(root / "images" / "a.png")
    for k in range(2):
        write(root / "masks" / str(k) / "a.png", np.equal(MAP, k + 1).astype(np.uint8))
    named = ImageMaskFolder(root, classes=CLASSES[1:], cache_dir=tmp_path / "cache")
    assert (named.task, named.class_names) == ("multilabel", ("oedema", "core"))
    data = ImageMaskFolder(root, classes=CLASSES[1:], task="multiclass", cache_dir=tmp_path / "cache")
    assert data.class_names == tuple(CLASSES)
    assert torch.equal(data[0]["mask"], torch.from_numpy(MAP).long())
    write(root / "masks" / "1" / "a.png", np.ones_like(MASK))
    overlapping = ImageMaskFolder(root, task="multiclass", cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"masks/0/a\.png: masks of two classes overlap"):
        overlapping[0]


def test_the_same_files_read_in_two_ways_have_two_caches(root: Path, tmp_path: Path) -> None:
    label_maps(root, a=MASK)
    masks = ImageMaskFolder(root, cache_dir=tmp_path / "cache")
    maps = ImageMaskFolder(root, task="multiclass", cache_dir=tmp_path / "cache")
    assert masks[0]["mask"].shape == (1, 33, 40)
    assert maps[0]["mask"].shape == (33, 40)
    assert maps.class_names == ("background", "label_1")
