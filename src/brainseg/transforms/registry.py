"""Transforms by name."""

import inspect
from collections.abc import Mapping
from typing import Any

from brainseg._names import no_such
from brainseg.transforms.base import Transform


def create_transform(config: Mapping[str, Any]) -> Transform:
    """Builds the transform that a `Transform.config` describes.

    Args:
        config: ``{"name": ..., "arguments": {...}}``; arguments may be, or list, such descriptions themselves.

    Raises:
        ValueError: no such description, an unknown name, or arguments that the transform does not take.

    >>> create_transform({"name": "RandomFlip", "arguments": {"axes": ["horizontal"]}})
    RandomFlip(axes=['horizontal'], p=0.5)
    """
    if not _is_config(config):
        raise ValueError(f'a transform is described by {{"name": ..., "arguments": {{...}}}}, got {config!r}')
    name = config["name"]
    if name not in Transform.classes:
        raise ValueError(no_such("transform", name, sorted(Transform.classes)))
    transform = Transform.classes[name]
    arguments = {key: _build(value) for key, value in config["arguments"].items()}
    try:
        return transform(**arguments)
    except (TypeError, ValueError) as error:
        takes = f"{name}{inspect.signature(transform)}"
        raise ValueError(f"{name} cannot be built with {config['arguments']}: {error}; it is {takes}") from error


def _is_config(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == {"name", "arguments"}
        and isinstance(value["name"], str)
        and isinstance(value["arguments"], Mapping)
    )


def _build(value: Any) -> Any:
    """An argument, with the descriptions in it built."""
    if isinstance(value, list):
        return [_build(item) for item in value]
    return create_transform(value) if _is_config(value) else value
