"""With what the results in a folder were made, so that a later call adds none that were made with something else."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brainseg._whole import written_whole
from brainseg.inference.predictor import Ensemble, Predictor

NOTE = "settings.json"


def settings_of(predictor: Predictor, **options: Any) -> dict[str, Any]:
    """What masks follow from, beside the images: checksums of weights, the spec, and options, as JSON values."""
    members = predictor.members if isinstance(predictor, Ensemble) else [predictor]
    spec = predictor.spec.to_json()
    del spec["shown_channel"]  # of pictures alone
    first = members[0]
    found = {"weights": [_checksum(member.model) for member in members], "tta": first.tta, "windows": first.windows}
    settings: dict[str, Any] = json.loads(json.dumps({**found, **spec, **options}))
    return settings


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """ValueError unless the results of the folder were made with these settings."""
    known = _read(folder)
    if known == settings:
        return
    if known is None:
        what = f"with what is not known: {folder / NOTE} is not there, or was removed as they were begun anew"
    else:
        what = f"with other {', '.join(name for name in settings if known.get(name) != settings[name])}"
    raise ValueError(
        f"{folder} holds results that were made {what}; predict without --skip-existing, or to another folder"
    )


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Notes the settings beside the results, in one move, unless they are noted."""
    if _read(folder) != settings:
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / NOTE) as partial:
            partial.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _checksum(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        stored = values.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\0".encode())
        digest.update(stored.numpy())
    return digest.hexdigest()
