"""Networks in every setting that is asked for, as cases of the harness."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Any

import torch

from brainseg.benchmark.costs import count_costs
from brainseg.benchmark.harness import Candidate, Case, Run
from brainseg.benchmark.network_run import create_run
from brainseg.benchmark.networks import find_network, match_networks
from brainseg.benchmark.setting import Layout, Mode, Precision, Setting

# Compilers and other layouts sum in another order; a network of many layers shows that in its fourth digit.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Grid:
    """Networks, and the settings to measure them in: a table for each device, mode, size and batch.

    In a table each network has a row for every dtype and layout, and rows more for what the last three ask for; all
    are timed interleaved, and ratios are to the first. In inference, rows of a network that are as exact as its
    first one must give what that gives, to 1e-3 of its largest value.

    Attributes:
        names: as `find_network` takes them, and shell patterns of ours; all of ours if empty.
        devices: "cpu", "cuda", "cuda:1".
        batches: images a call.
        sizes: heights and widths in pixels.
        dtypes: "float32", "tf32", "bfloat16", "float16", as `Setting` explains them.
        modes: "inference", "training".
        layouts: "contiguous", "channels_last".
        in_channels: channels of the images.
        optimize: rows more of `brainseg.inference.optimize`, in inference.
        compile: rows more of `torch.compile`, of the optimized copy where there is one.
        cuda_graph: rows more of CUDA graphs, on CUDA.
        tolerance: all networks must give what the first gives in the same setting, to this part of its largest value;
            None if they need not.

    Raises:
        ValueError: an empty choice, one that does not exist, or names that `find_network` refuses.
    """

    names: Sequence[str] = ()
    devices: Sequence[str] = ("cpu",)
    batches: Sequence[int] = (1,)
    sizes: Sequence[int] = (256,)
    dtypes: Sequence[Precision] = ("float32",)
    modes: Sequence[Mode] = ("inference",)
    layouts: Sequence[Layout] = ("contiguous",)
    in_channels: int = 3
    optimize: bool = False
    compile: bool = False
    cuda_graph: bool = False
    tolerance: float | None = None

    def __post_init__(self) -> None:
        for name in ("devices", "batches", "sizes", "dtypes", "modes", "layouts"):
            values = list(getattr(self, name))
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be one or more different values, got {values}")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance must be a positive number, got {self.tolerance}")
        on_cuda = [device for device in self.devices if device.startswith("cuda")]
        for asked, what in ((self.cuda_graph, "a CUDA graph"), ("tf32" in self.dtypes, "tf32")):
            if asked and not on_cuda:
                raise ValueError(f"{what} needs a CUDA device, got {', '.join(self.devices)}")
        if len(on_cuda) == len(self.devices) and not torch.cuda.is_available():
            raise ValueError(f"torch finds no CUDA device, and {', '.join(self.devices)} was asked for; use cpu")
        for name in self.networks():
            with suppress(ImportError):  # a row of the table will say so
                find_network(name)
        if not any(case.candidates for case in self.cases()):
            raise ValueError("nothing is left to measure: tf32 and CUDA graphs exist on CUDA alone")

    def networks(self) -> list[str]:
        """The names, patterns resolved."""
        return match_networks(list(self.names))

    def cases(self) -> list[Case]:
        """A case for each device, mode, size and batch."""
        return [
            Case(
                f"{mode.capitalize()} on {device}, batch {batch}, {size}x{size}",
                list(self._candidates(device, mode, size, batch)),
                device=device,
                images=batch,
                labels={"device": device, "mode": mode, "size": size, "batch": batch},
            )
            for device, mode, size, batch in product(self.devices, self.modes, self.sizes, self.batches)
        ]

    def _candidates(self, device: str, mode: Mode, size: int, batch: int) -> Iterator[Candidate]:
        networks = self.networks()
        for network in networks:
            eager = None
            for words, setting in self._settings(device, mode, size, batch):
                row = ", ".join([network, *words])
                build = partial(_run, network, setting)
                if self.tolerance is not None and network != networks[0]:
                    yield Candidate(row, build, ", ".join([networks[0], *words]), self.tolerance)
                elif mode == "inference" and eager is not None and setting.dtype == "float32":
                    yield Candidate(row, build, eager, TOLERANCE)
                else:
                    yield Candidate(row, build)
                if eager is None and setting.dtype == "float32":
                    eager = row

    def _settings(self, device: str, mode: Mode, size: int, batch: int) -> Iterator[tuple[list[str], Setting]]:
        """The settings of a network's rows, and the words that tell them apart."""
        for dtype, layout in product(self.dtypes, self.layouts):
            if dtype == "tf32" and not device.startswith("cuda"):
                continue
            plain = Setting(device, batch, size, self.in_channels, dtype, mode, layout)
            words = [dtype] * (len(self.dtypes) > 1) + [layout] * (len(self.layouts) > 1)
            for more, ways in self._ways(device, mode):
                yield [*words, *more], replace(plain, **ways)

    def _ways(self, device: str, mode: Mode) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
        """Eagerly, and in the ways that the options ask for."""
        best: dict[str, Any] = {}
        words: list[str] = []
        yield words, best
        if self.optimize and mode == "inference":
            best, words = {"optimize": True}, ["optimized"]
            yield words, best
        if self.compile:
            best, words = {**best, "compile": True}, [*words, "compiled"]
            yield words, best
        if self.cuda_graph and device.startswith("cuda"):
            yield ["CUDA graph"], {"cuda_graph": True}
            if best:
                yield [*words, "CUDA graph"], {**best, "cuda_graph": True}


def _run(network: str, setting: Setting) -> Run:
    build = partial(find_network(network), setting.in_channels, setting.size)
    return create_run(build, setting, _costs(network, setting.in_channels, setting.size))


@cache
def _costs(network: str, in_channels: int, size: int) -> Mapping[str, float]:
    return count_costs(find_network(network)(in_channels, size), in_channels, size)
