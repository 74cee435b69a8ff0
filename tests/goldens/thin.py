"""Makes the thinned copies of the goldens beside this file.

    python tests/goldens/thin.py ../shared/goldens

A copy keeps the recipe, the output, the gradients and about ten stages, with fewer samples of each.
"""

import json
import sys
from pathlib import Path
from typing import Any

UNEXT_STAGES = [
    "stage1.bn",
    "stage2",
    "stage3",
    "stage4.embed",
    "stage4.block.shift_h",
    "stage5.block.dwconv",
    "stage5",
    "up1.sum",
    "up1.block.shift_w",
    "up2",
    "up3.bn",
    "up5",
]
UNET_STAGES = [
    "enc1.conv1",
    "enc1",
    "enc2",
    "enc4",
    "bottleneck",
    "upconv4",
    "dec4",
    "upconv3",
    "dec3",
    "dec1",
    "logits",
]
RESUNET_STAGES = ["enc1", "enc2", "enc3", "bridge", "up1", "dec1", "up2", "dec2", "up3", "dec3"]
STAGES = {
    "unext_eval_256": UNEXT_STAGES,
    "unext_s_eval_128x96": UNEXT_STAGES,
    "unext_train_64": UNEXT_STAGES,
    "unet_buda_probabilities": UNET_STAGES,
    "resunet_stride_eval_64x48": RESUNET_STAGES,
}


def thin_samples(tensor: dict[str, Any], most: int) -> dict[str, Any]:
    if "indices" not in tensor:  # a gradient that is zero by construction
        return tensor
    step = max(1, len(tensor["indices"]) // most)
    return {**tensor, "indices": tensor["indices"][::step], "values": tensor["values"][::step]}


def thin(golden: dict[str, Any], stages: list[str]) -> dict[str, Any]:
    kept = {key: value for key, value in golden.items() if key not in ("stages", "bn_after_one_forward")}
    kept["input"] = thin_samples(golden["input"], 20)
    kept["output"] = thin_samples(golden["output"], 400)
    kept["stages"] = {name: thin_samples(golden["stages"][name], 40) for name in stages}
    if "gradients" in golden:
        kept["gradients"] = {key: thin_samples(value, 4) for key, value in golden["gradients"].items()}
        statistics = golden["bn_after_one_forward"]
        kept["bn_after_one_forward"] = {key: statistics[key] for key in list(statistics)[:6]}
    return kept


def thin_mask_dino(case: dict[str, Any]) -> dict[str, Any]:
    """Everything but the gradients of most weights, with fewer samples."""
    kept = {key: value for key, value in case.items() if key not in ("title", "quantities")}
    kept["quantities"] = {}
    for number, (name, found) in enumerate(case["quantities"].items()):
        if name.startswith("grad/") and number % 8:
            continue
        step = max(1, len(found["index"]) // (30 if found["tol"] == "exact" else 8))
        samples = {key: found[key][::step] for key in ("index", "value")}
        kept["quantities"][name] = {**samples, **{key: found[key] for key in ("shape", "tol", "scale")}}
    return kept


if __name__ == "__main__":
    source = Path(sys.argv[1])
    case = json.loads((source / "mask_dino" / "train_small_width.json").read_text())
    target = Path(__file__).with_name("mask_dino_small_width.json")
    target.write_text(json.dumps(thin_mask_dino(case), separators=(",", ":")) + "\n")
    print(target.name, target.stat().st_size, "bytes")
    for name, stages in STAGES.items():
        golden = json.loads((source / f"{name}.json").read_text())
        target = Path(__file__).with_name(f"{name}.json")
        target.write_text(json.dumps(thin(golden, stages), separators=(",", ":")) + "\n")
        print(target.name, target.stat().st_size, "bytes")
