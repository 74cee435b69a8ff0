"""Which slices an epoch shows, and in which order."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence, Sized

import torch
from torch import Tensor
from torch.utils.data import Sampler

from brainseg.checks import check_between, check_count
from brainseg.data.cache import SliceDataset


class EpochSampler(Sampler[int]):
    """As many draws an epoch as there are slices, shared over processes in equal parts.

    What is drawn follows from the seed and the number of the epoch alone: all processes agree without talking, and a
    run that goes on after a kill sees what it would have seen (`set_epoch`; Lightning calls it). What does not divide
    by the number of processes is left out at the end of the order, as `DistributedSampler(drop_last=True)` does.

    Args:
        size: number of slices.
        seed: of all draws.
        world: number of processes.
        rank: of this one.

    Raises:
        ValueError: fewer slices than processes, or a rank that is none.
    """

    def __init__(self, size: int, *, seed: int, world: int = 1, rank: int = 0) -> None:
        check_count("world", world)
        if size < world:
            raise ValueError(f"{size} slices cannot be shared over {world} processes; use at most {size}")
        if not 0 <= rank < world:
            raise ValueError(f"rank must be a process of 0 to {world - 1}, got {rank}")
        self.size, self.seed, self.world, self.rank = size, seed, world, rank
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch to draw for next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.world

    def __iter__(self) -> Iterator[int]:
        # Far apart, so that an epoch of one seed is not another epoch of the next.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order: list[int] = self._draw(generator).tolist()
        return iter(order[self.rank : len(self) * self.world : self.world])

    @abstractmethod
    def _draw(self, generator: torch.Generator) -> Tensor:
        """The indices of an epoch, in order, (size,)."""


class UniformSampler(EpochSampler):
    """Every slice once an epoch: the order of torch's `DistributedSampler` for 1,000,003 times the seed.

    Args:
        dataset: the slices.
        seed: of all draws.
        world: number of processes.
        rank: of this one.

    Raises:
        ValueError: fewer slices than processes, or a rank that is none.
    """

    def __init__(self, dataset: Sized, *, seed: int, world: int = 1, rank: int = 0) -> None:
        super().__init__(len(dataset), seed=seed, world=world, rank=rank)

    def _draw(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.size, generator=generator)


class ForegroundSampler(EpochSampler):
    """A given share of slices with foreground, of which two thirds of the LGG slices have none.

    Of both kinds no slice comes a second time in an epoch before all others of its kind have come.

    Args:
        dataset: the slices.
        share: of an epoch's slices that have foreground, in [0, 1], rounded to whole slices.
        seed: of all draws.
        world: number of processes.
        rank: of this one.

    Raises:
        ValueError: no slice with foreground, or none without, where the share needs some; a share beyond [0, 1];
            fewer slices than processes, or a rank that is none.
    """

    def __init__(self, dataset: SliceDataset, *, share: float = 0.5, seed: int, world: int = 1, rank: int = 0) -> None:
        super().__init__(len(dataset), seed=seed, world=world, rank=rank)
        self.share = check_between("share", share, 0, 1)
        shows = torch.tensor(dataset.has_foreground)
        self._groups = [torch.nonzero(shows)[:, 0], torch.nonzero(~shows)[:, 0]]
        with_foreground = round(self.share * self.size)
        self._counts = [with_foreground, self.size - with_foreground]
        for group, count, kind in zip(self._groups, self._counts, ("with", "without"), strict=True):
            if count and not len(group):
                raise ValueError(
                    f"no slice of {dataset.root} is {kind} foreground, and share={share} needs {count} such; take the "
                    "uniform sampler"
                )

    def _draw(self, generator: torch.Generator) -> Tensor:
        chosen = [_repeated(group, count, generator) for group, count in zip(self._groups, self._counts, strict=True)]
        return _shuffled(torch.cat(chosen), generator)


class PatientSampler(EpochSampler):
    """Every patient equally often, however many slices it has.

    Who gets one more, where patients do not divide the epoch, is drawn anew each time. Of a patient no slice comes a
    second time in an epoch before all its others have come.

    Args:
        dataset: the slices.
        seed: of all draws.
        world: number of processes.
        rank: of this one.

    Raises:
        ValueError: fewer slices than processes, or a rank that is none.
    """

    def __init__(self, dataset: SliceDataset, *, seed: int, world: int = 1, rank: int = 0) -> None:
        super().__init__(len(dataset), seed=seed, world=world, rank=rank)
        places: dict[str, list[int]] = {}
        for index, files in enumerate(dataset.files):
            places.setdefault(files.patient, []).append(index)
        self._groups: Sequence[Tensor] = [torch.tensor(indices) for indices in places.values()]

    def _draw(self, generator: torch.Generator) -> Tensor:
        patients = _repeated(torch.arange(len(self._groups)), self.size, generator)
        counts = torch.bincount(patients, minlength=len(self._groups)).tolist()
        chosen = [_repeated(group, count, generator) for group, count in zip(self._groups, counts, strict=True)]
        return _shuffled(torch.cat(chosen), generator)


def _repeated(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """So many of the values, in an order that is drawn, each again only after all others."""
    rounds = -(-count // len(values)) if count else 0
    orders = [values[torch.randperm(len(values), generator=generator)] for _ in range(rounds)]
    return torch.cat([values[:0], *orders])[:count]


def _shuffled(values: Tensor, generator: torch.Generator) -> Tensor:
    return values[torch.randperm(len(values), generator=generator)]
