"""Metrics whose states are lists of tensors, gathered over processes when they are computed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from brainseg.metrics.rules import MetricResult


class GatheredMetric(Metric):
    """Base class of the metrics: keeps small tensors of every batch; its subclass makes a result of all of them."""

    is_differentiable = False
    full_state_update = False

    def compute(self) -> Tensor:
        """The mean over cases, over all processes: float32, a scalar, or with ``average="none"`` and K > 1 (K,)."""
        return self._summarise().value

    def result(self) -> MetricResult:
        """The mean and what it is the mean of; in distributed runs every process must call it."""
        with self._gathered():
            return self._summarise()

    def sync(self, *arguments: Any, **options: Any) -> None:
        """As torchmetrics' own; a process without data takes part with states of no rows."""
        for name, blank in self._blanks().items():
            if isinstance(state := getattr(self, name), list) and not state:
                state.append(blank)
        super().sync(*arguments, **options)

    def _summarise(self) -> MetricResult:
        """The result of the states as they are."""
        raise NotImplementedError

    def _blanks(self) -> dict[str, Tensor]:
        """Each state that is a list, as a tensor of no rows."""
        raise NotImplementedError

    def _mark(self, name: str, *arguments: Any) -> None:
        """A state that differs where the arguments do, since a collection lets metrics with equal states share them.

        Bytes, which are compared exactly, and no dtype of the module around it touches.
        """
        self.add_state(name, torch.tensor(list(repr(arguments).encode()), dtype=torch.uint8), dist_reduce_fx="max")

    def _apply(self, fn: Callable[[Tensor], Tensor], *arguments: Any, **options: Any) -> nn.Module:
        # States move with the module, but what was counted and measured keeps its dtype.
        return super()._apply(lambda x: x.to(fn(x.new_empty(0)).device), *arguments, **options)

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """The states are those of all processes, as they are while `compute` runs."""
        if self._is_synced:
            yield
        else:
            with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
                yield

    def _joined(self, name: str) -> Tensor:
        state = getattr(self, name)  # a list of tensors, or after a synchronisation one tensor
        return torch.cat([x.cpu() for x in (self._blanks()[name], *state)]) if isinstance(state, list) else state.cpu()
