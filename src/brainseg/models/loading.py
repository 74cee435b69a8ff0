"""Weights from wherever they lie, into a network."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from brainseg.models import hub
from brainseg.models.adaptation import load_adapted
from brainseg.models.base import SegmentationModel
from brainseg.models.convert import convert_state_dict
from brainseg.models.files import WEIGHTS, find_folder, read_config, read_file, read_state_dict, without_prefix
from brainseg.models.shipped import list_weights


def load_weights(model: SegmentationModel, path: str | Path, *, source: str | None = None) -> list[str]:
    """Loads weights into a network, whole or not at all.

    Where the file was made for another number of input channels or classes the stem's kernels are summed or repeated,
    and heads stay as the model has them; what was adapted is returned, and logged as a warning.

    Args:
        model: the network; it stays as it was if anything is wrong.
        path: a folder that `save_pretrained` wrote, that of a run for its best weights, its `last.ckpt`, one of
            `list_weights()`, "hf-hub:org/name" or "local-dir:folder" (the spec is taken over); a `.safetensors`,
            `.pt`, `.pth` or `.ckpt` file with a state dict, whatever wrappers put before its keys.
        source: the official code that the file comes from, as for `convert_state_dict`; None for our own keys.

    Returns:
        what was adapted, a sentence each.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: a truncated, foreign or unsafe file, or weights of another network.
    """
    path = Path(path).expanduser()
    if path.is_dir() or path.as_posix() in list_weights() or hub.is_prefixed(path):
        folder = find_folder(path)
        config, given, spec = read_config(folder), read_state_dict(folder / WEIGHTS), None
    else:
        config, (given, spec) = None, read_file(path)
    given = without_prefix(given)
    found = _of_network(given, model, path) if source is None else convert_state_dict(given, source)
    adapted = load_adapted(model, found, path, config)
    if spec is not None:
        model.take_spec(spec)
    return adapted


def _of_network(given: Mapping[str, Tensor], model: SegmentationModel, path: Path) -> Mapping[str, Tensor]:
    """The tensors of the network, where they stand below a prefix, beside a loss's or a metric's."""
    own = model.state_dict().keys()
    if own & given.keys():
        return given
    ends = ((key, key.split(".", depth)[-1]) for key in given for depth in range(1, key.count(".") + 1))
    prefixes = Counter(key.removesuffix(end) for key, end in ends if end in own)
    found = [(prefix, count) for prefix, count in prefixes.most_common(2) if count > len(own) / 2]
    if len(found) == 2:
        raise ValueError(
            f"{path} holds weights for this {type(model).__name__} below {found[0][0]!r} and below {found[1][0]!r}; "
            "save those that you mean alone"
        )
    prefix = found[0][0] if found else ""
    return {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}
