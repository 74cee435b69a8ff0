"""From stored masks or label maps to the target of a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NotRequired, Self, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainseg.checks import check_choice

Task = Literal["binary", "multilabel", "multiclass"]
Classes = Sequence[str] | Mapping[str, int | Sequence[int]]

BACKGROUND = "background"
IGNORED = 255  # of label maps on disk, and of targets with class numbers


class Target(TypedDict):
    """What `Labels.encode` gives: the mask, and where it counts if not everywhere."""

    mask: Tensor
    valid: NotRequired[Tensor]


@dataclass(frozen=True)
class Labels:
    """Which stored values make which class.

    Attributes:
        task: "binary" (one mask), "multilabel" (masks that may overlap) or "multiclass" (numbers of classes, 0 the
            background).
        class_names: of the K classes.
        sources: for each class the values of a label map that make it, or the numbers of stored masks.
        ignored: value of a label map whose pixels do not count; None where there is none.
    """

    task: Task
    class_names: tuple[str, ...]
    sources: tuple[tuple[int, ...], ...]
    ignored: int | None = None

    @classmethod
    def of_masks(cls, count: int, classes: Classes | None = None, task: Task | None = None) -> Self:
        """The classes of so many masks, one file each.

        Args:
            count: how many masks a slice has.
            classes: their names; None for "foreground", or "class_0" and so on.
            task: None for one mask "binary", for several "multilabel"; "multiclass" puts a background before them;
                "binary" joins them.

        Raises:
            ValueError: other numbers of names, or a task that does not go with them.
        """
        if isinstance(classes, Mapping):
            raise ValueError(f"values of classes belong to label maps, the masks here are a file a class: {classes}")
        names = _names(classes) if classes is not None else _default_names(count)
        if len(names) != count:
            raise ValueError(
                f"{len(names)} class(es) are named ({', '.join(names)}) and each slice has {count} mask(s)"
            )
        return cls._for_task(task or _default_task(count), dict(zip(names, [(k,) for k in range(count)], strict=True)))

    @classmethod
    def of_map(
        cls,
        present: Mapping[int, Path],
        classes: Classes | None = None,
        task: Task | None = None,
        ignored: int = IGNORED,
    ) -> Self:
        """The classes of label maps.

        Args:
            present: all values that the maps hold, and a file that holds each.
            classes: names of the values 0, 1, ...; or the value, or values, of each name. With several values for some
                name these are regions, which may overlap. None: each value is a class.
            task: None for "multilabel" where classes are regions, else "multiclass", and "binary" for a single class
                beside the background.
            ignored: value whose pixels do not count.

        Raises:
            ValueError: values that no class has, classes that cannot be, or a task that does not go with them.
        """
        found = {value for value in present if value != ignored}
        if classes is None:
            sources: dict[str, tuple[int, ...]] = {BACKGROUND: (0,)}
            sources |= {f"label_{value}": (value,) for value in sorted(found - {0})}
        elif isinstance(classes, Mapping):
            sources = {str(name): _values(name, values) for name, values in classes.items()}
            _names(list(sources))
        else:
            sources = {name: (value,) for value, name in enumerate(_names(classes))}
        background = next((name for name, values in sources.items() if 0 in values), None)
        if background is not None and sources[background] != (0,) and task != "multiclass":
            raise ValueError(f"class {background!r} has the value 0, which is the background's, and others")
        objects = {name: values for name, values in sources.items() if name != background}
        if BACKGROUND in objects:
            raise ValueError(f"the class {BACKGROUND!r} has the value {objects[BACKGROUND][0]}, expected 0")
        if not objects:
            raise ValueError("the label maps hold nothing but background; at least one class is needed")
        regions = isinstance(classes, Mapping) and not all(isinstance(value, int) for value in classes.values())
        if task is None:
            task = "binary" if len(objects) == 1 else "multilabel" if regions else "multiclass"
        zero = {background or BACKGROUND: sources[background] if background else (0,)}
        known = {value for values in (zero | objects).values() for value in values}
        unknown = sorted(found - known)
        if unknown and (not regions or task == "multiclass"):
            raise ValueError(
                f"{present[unknown[0]]} holds the value {unknown[0]}, which no class has: the classes are "
                f"{_shown(zero | objects)}, and {ignored} is ignored"
            )
        if unknown and (absent := [name for name, values in objects.items() if not found & set(values)]):
            raise ValueError(
                f"no label map holds a value of {absent[0]!r} ({', '.join(map(str, objects[absent[0]]))}), and "
                f"{unknown[0]} (in {present[unknown[0]]}) belongs to no class: give the right values"
            )
        where = ignored if ignored in present else None
        return cls._for_task(task, objects, zero=zero, ignored=where)

    @classmethod
    def _for_task(
        cls,
        task: Task,
        objects: Mapping[str, tuple[int, ...]],
        *,
        zero: Mapping[str, tuple[int, ...]] | None = None,
        ignored: int | None = None,
    ) -> Self:
        check_choice("task", task, Task)
        if task == "binary" and len(objects) > 1:
            objects = {"foreground": tuple(sorted({value for values in objects.values() for value in values}))}
        if task == "multilabel" and len(objects) == 1:
            raise ValueError(f"task 'multilabel' needs several classes, here is {', '.join(objects)}; take 'binary'")
        if task == "multiclass":
            values = [value for values in objects.values() for value in values]
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(
                    f"task 'multiclass' cannot have the value {twice[0]} in two classes; take 'multilabel'"
                )
            if BACKGROUND in objects:
                raise ValueError(f"no mask may be called {BACKGROUND!r}: it is what no mask covers")
            objects = {**(zero or {BACKGROUND: ()}), **objects}
        return cls(task, tuple(objects), tuple(objects.values()), ignored)

    @property
    def ignore_index(self) -> int | None:
        """Value of "multiclass" targets whose pixels do not count."""
        return IGNORED if self.task == "multiclass" and self.ignored is not None else None

    @property
    def values(self) -> tuple[int, ...] | None:
        """Of "multiclass", the value of each class in the label maps, the first of several; None of masks in files."""
        background, *others = self.sources
        return (0, *(source[0] for source in others)) if self.task == "multiclass" and background else None

    def encode(self, stored: NDArray[Any]) -> Target:
        """The target of stored masks (K, H, W), or of a label map (H, W).

        Returns:
            mask: (K, H, W) float32, 0 or 1; for "multiclass" (H, W) int64, numbers of classes, and 255 where ignored.
            valid: (1, H, W) bool, False where ignored; only for the other tasks, where label maps ignore something.

        Raises:
            ValueError: masks that overlap, for "multiclass".
        """
        if self.task == "multiclass":
            if stored.ndim == 2:
                return {"mask": torch.from_numpy(self._numbers[stored])}
            if (stored.sum(0) > 1).any():
                raise ValueError("masks of two classes overlap, which 'multiclass' cannot express; take 'multilabel'")
            numbers = np.arange(1, len(stored) + 1).reshape(-1, 1, 1)
            return {"mask": torch.from_numpy((stored * numbers).sum(0).astype(np.int64))}
        if stored.ndim == 3:
            masks = [stored[list(source)].any(0) if len(source) > 1 else stored[source[0]] for source in self.sources]
        else:
            masks = [np.isin(stored, source) for source in self.sources]
        target: Target = {"mask": torch.from_numpy(np.stack(masks).astype(np.float32))}
        if self.ignored is not None:
            target["valid"] = torch.from_numpy(stored != self.ignored)[None]
        return target

    def has_foreground(self, values: Sequence[int]) -> bool:
        """Whether a slice with these values (numbers of masks that are not empty) shows any class."""
        first = int(self.task == "multiclass")
        return any(value in source for source in self.sources[first:] for value in values)

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        """The number of the class for each value of a label map."""
        numbers = np.zeros(max(IGNORED, self.ignored or 0, *map(max, self.sources)) + 1, np.int64)
        for number, source in enumerate(self.sources):
            numbers[list(source)] = number
        if self.ignored is not None:
            numbers[self.ignored] = IGNORED
        return numbers


def _names(classes: Sequence[str]) -> list[str]:
    sound = not isinstance(classes, str) and len(classes) > 0
    if not sound or not all(isinstance(name, str) and name.strip() for name in classes):
        raise ValueError(f"classes must be names, or a value or values for each name, got {classes!r}")
    if twice := [name for name in classes if list(classes).count(name) > 1]:
        raise ValueError(f"classes must have different names, got {twice[0]!r} twice")
    return list(classes)


def _values(name: str, values: int | Sequence[int]) -> tuple[int, ...]:
    numbers = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    if not numbers or not all(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in numbers
    ):
        raise ValueError(f"class {name!r} must have a value, or values, of 0 and above, got {values!r}")
    return tuple(dict.fromkeys(numbers))


def _default_names(count: int) -> list[str]:
    return ["foreground"] if count == 1 else [f"class_{k}" for k in range(count)]


def _default_task(count: int) -> Task:
    return "binary" if count == 1 else "multilabel"


def _shown(sources: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} ({', '.join(map(str, values))})" for name, values in sources.items())
