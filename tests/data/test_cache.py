"""The cache of decoded slices: built once, rebuilt when files change, whole or not there, and small to send."""

import errno
import hashlib
import multiprocessing
import os
import pickle
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import platformdirs
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from brainseg.data import ImageMaskFolder, LGGSegmentation, cache, write_phantoms

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

SLICES = 6

# One server imports the library once; its children are forks of it and get their arguments pickled.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["brainseg.data"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two patients with three slices each."""
    write_phantoms(tmp_path / "data", patients=2, slices=SLICES // 2, size=32)
    return tmp_path / "data"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that are decoded, in order."""
    paths: list[Path] = []
    read = cache.read_image

    def counted(path: Path) -> np.ndarray:
        paths.append(path)
        return read(path)

    monkeypatch.setattr(cache, "read_image", counted)
    return paths


def images(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/*.tif") if not path.stem.endswith("_mask"))


def fingerprint(data: LGGSegmentation) -> str:
    digest = hashlib.sha256()
    for sample in data:
        digest.update(f"{sample['patient']} {sample['slice']}".encode())
        digest.update(sample["image"].numpy().tobytes() + sample["mask"].numpy().tobytes())
    return digest.hexdigest()


def test_every_file_is_decoded_once(root: Path, tmp_path: Path, decoded: list[Path]) -> None:
    first = LGGSegmentation(root, cache_dir=tmp_path / "cache")
    assert sorted(decoded) == images(root)
    again = LGGSegmentation(root, cache_dir=tmp_path / "cache")
    part = LGGSegmentation(root, first.patients[1:], cache_dir=tmp_path / "cache")
    assert fingerprint(again) == fingerprint(first)
    assert len(part) == SLICES // 2
    assert len(decoded) == SLICES


def test_the_default_is_the_users_cache_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "user" / name)
    LGGSegmentation(root)
    assert len(list((tmp_path / "user" / "brainseg" / "slices").glob("*/pixels.bin"))) == 1


def test_a_cache_in_the_home_folder_is_found(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    LGGSegmentation(root, cache_dir="~/cache")
    assert len(list((tmp_path / "cache").glob("*/pixels.bin"))) == 1


def test_a_relative_cache_is_found_after_a_change_of_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = LGGSegmentation(root, cache_dir="cache")
    monkeypatch.chdir(root)
    assert data[0]["image"].shape == (3, 32, 32)


def change(root: Path) -> None:
    path = images(root)[0]
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def touch(root: Path) -> None:
    # The same size and content at another time may be another content.
    os.utime(images(root)[0], (1, 1))


def change_mask(root: Path) -> None:
    path = images(root)[0]
    mask = path.with_name(f"{path.stem}_mask.tif")
    Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)


def remove(root: Path) -> None:
    path = images(root)[0]
    path.unlink()
    path.with_name(f"{path.stem}_mask.tif").unlink()


def add(root: Path) -> None:
    path = images(root)[0]
    for suffix in ("", "_mask"):
        source = path.with_name(f"{path.stem}{suffix}.tif")
        source.with_name(f"{path.parent.name}_9{suffix}.tif").write_bytes(source.read_bytes())


@pytest.mark.parametrize(
    ("edit", "slices"),
    [(change, SLICES), (touch, SLICES), (change_mask, SLICES), (remove, SLICES - 1), (add, SLICES + 1)],
)
def test_a_changed_data_set_is_decoded_again(
    root: Path, tmp_path: Path, decoded: list[Path], edit: Callable[[Path], None], slices: int
) -> None:
    before = LGGSegmentation(root, cache_dir=tmp_path / "cache")
    known = fingerprint(before)
    decoded.clear()
    edit(root)
    after = LGGSegmentation(root, cache_dir=tmp_path / "cache")
    assert len(after) == len(decoded) == slices
    assert (fingerprint(after) == known) == (edit is touch)
    assert fingerprint(before) == known


def test_data_sets_of_one_folder_do_not_mix(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_phantoms(tmp_path / name, patients=2, slices=1, size=32, seed=ord(name))
        for path in (tmp_path / name).glob("*/*.tif"):
            os.utime(path, (1, 1))
    first, second = (LGGSegmentation(tmp_path / name, cache_dir=tmp_path / "cache") for name in ("a", "b"))
    assert not torch.equal(first[0]["image"], second[0]["image"])


def test_another_layout_of_the_cache_is_not_read(
    root: Path, tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    LGGSegmentation(root, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(cache, "LAYOUT", cache.LAYOUT + 1)
    LGGSegmentation(root, cache_dir=tmp_path / "cache")
    assert len(decoded) == 2 * SLICES


def test_file_names_need_not_be_unicode(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        path = tmp_path / "data" / folder / os.fsdecode(b"z\xfcrich.png")
        try:
            Image.new("L", (32, 32)).save(path)
        except OSError:
            pytest.skip("this file system takes only UTF-8 names")
    assert len(ImageMaskFolder(tmp_path / "data", cache_dir=tmp_path / "cache")) == 1


def build_and_die(root: Path, cache_dir: Path) -> None:
    Path.replace = lambda *_: os._exit(9)  # type: ignore[method-assign, assignment]
    LGGSegmentation(root, cache_dir=cache_dir)


def test_what_a_killed_build_left_is_harmless(root: Path, tmp_path: Path, decoded: list[Path]) -> None:
    process = CONTEXT.Process(target=build_and_die, args=(root, tmp_path / "cache"))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 9
    (left,) = (tmp_path / "cache").glob("*.partial")
    (left / "pixels.bin").write_bytes(b"half of it")
    data = LGGSegmentation(root, cache_dir=tmp_path / "cache")
    assert len(decoded) == SLICES
    assert not left.exists()
    assert fingerprint(data) == fingerprint(LGGSegmentation(root, cache_dir=tmp_path / "other"))


def test_a_failing_build_names_the_file_and_leaves_no_cache(root: Path, tmp_path: Path) -> None:
    broken = images(root)[-1]
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{broken.name} is truncated"):
        LGGSegmentation(root, cache_dir=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    broken.write_bytes(content)
    assert len(LGGSegmentation(root, cache_dir=tmp_path / "cache")) == SLICES


def test_a_full_disk_names_the_cache_and_leaves_none(
    root: Path, tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    with (
        full_disk(),
        pytest.raises(OSError, match=rf"the cache {tmp_path}/cache cannot be written \(.*\); make room, or"),
    ):
        LGGSegmentation(root, cache_dir=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(LGGSegmentation(root, cache_dir=tmp_path / "cache")) == SLICES


def test_a_read_only_disk_names_the_cache(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)  # the tests may run as root, whom no mode stops
    with pytest.raises(OSError, match=rf"the cache {tmp_path}/cache cannot be written \(Read-only file system\)"):
        LGGSegmentation(root, cache_dir=tmp_path / "cache")


def test_a_finished_cache_serves_a_read_only_disk(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LGGSegmentation(root, cache_dir=tmp_path / "cache")
    monkeypatch.delattr(Path, "mkdir")
    assert len(LGGSegmentation(root, cache_dir=tmp_path / "cache")) == SLICES


def test_a_slice_that_cannot_be_read_is_not_the_caches_fault(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> np.ndarray:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(cache, "read_image", failing)
    with pytest.raises(OSError, match=rf"Input/output error: '{images(root)[0]}'"):
        LGGSegmentation(root, cache_dir=tmp_path / "cache")


def construct(root: Path, cache_dir: Path, barrier: "Barrier", results: "Queue[tuple[int, str]]") -> None:
    read, count = cache.read_image, 0

    def slow(path: Path) -> np.ndarray:
        nonlocal count
        count += 1
        time.sleep(0.05)
        return read(path)

    cache.read_image = slow
    barrier.wait(timeout=60)
    data = LGGSegmentation(root, cache_dir=cache_dir)
    results.put((count, fingerprint(data)))


def test_processes_that_start_together_decode_once(root: Path, tmp_path: Path) -> None:
    barrier, results = CONTEXT.Barrier(2), CONTEXT.Queue()
    processes = [CONTEXT.Process(target=construct, args=(root, tmp_path / "cache", barrier, results)) for _ in range(2)]
    try:
        for process in processes:
            process.start()
        (first, one), (second, other) = (results.get(timeout=60) for _ in processes)
        for process in processes:
            process.join(timeout=60)
    finally:
        for process in processes:
            process.kill()
    assert one == other == fingerprint(LGGSegmentation(root, cache_dir=tmp_path / "own"))
    assert sorted((first, second)) == [0, SLICES]
    assert [process.exitcode for process in processes] == [0, 0]


def test_workers_read_what_the_main_process_reads(root: Path, tmp_path: Path) -> None:
    data = LGGSegmentation(root, cache_dir=tmp_path / "cache")
    single = list(DataLoader(data, batch_size=4))
    workers = list(DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context=CONTEXT, timeout=60))
    assert [batch["image"].shape for batch in single] == [(4, 3, 32, 32), (2, 3, 32, 32)]
    for batch, expected in zip(workers, single, strict=True):
        assert torch.equal(batch["image"], expected["image"])
        assert torch.equal(batch["mask"], expected["mask"])
        assert batch["patient"] == expected["patient"]
        assert torch.equal(batch["slice"], expected["slice"])


def test_a_pickled_data_set_holds_no_pixels(root: Path, tmp_path: Path) -> None:
    data = LGGSegmentation(root, cache_dir=tmp_path / "cache")
    known = fingerprint(data)  # maps the file
    pickled = pickle.dumps(data)
    assert len(pickled) < 1000 * len(data)
    assert fingerprint(pickle.loads(pickled)) == known


def test_samples_may_be_written_to(root: Path, tmp_path: Path) -> None:
    data = LGGSegmentation(root, cache_dir=tmp_path / "cache")
    data[0]["image"].zero_()
    data[0]["mask"].fill_(7)
    assert data[0]["image"].any()
    assert data[0]["mask"].max() <= 1


@pytest.mark.parametrize(
    ("module", "name"), [("platformdirs", "platformdirs"), ("filelock", "filelock"), ("rich.progress", "rich")]
)
def test_without_a_package_the_extra_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'needs {name}: pip install "brainseg-torch\[data\]"'):
        LGGSegmentation(root, cache_dir=None if name == "platformdirs" else tmp_path / "cache")


def test_progress_goes_to_standard_error(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LGGSegmentation(root, cache_dir=tmp_path / "cache")
    assert capsys.readouterr().out == ""
