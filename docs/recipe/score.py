"""Scores the folds on the patients that they have not seen: patients.csv and summary.csv beside this file.

    python docs/recipe/score.py runs/fold0 runs/fold1 ...
    python docs/recipe/score.py --together runs/e runs/g0 --output snapshots   # of their mean probabilities
    python docs/recipe/score.py --half ...      # of parameters as they are stored in the package, float16

Each run predicts the patients of its fold, slices at full size, and Dice is that of a patient, over all slices pooled.
Probabilities are kept in the run's folder, so that what comes after them is scored again in seconds.

Columns: "slice", each slice by itself, of which the network sees the part around the head as the spec that ships says;
"smoothed", these probabilities averaged with those of both neighbours; "largest" and "likeliest", of these the largest
component of the volume alone, or those that no other exceeds both in voxels and in mean probability; "whole", each
slice by itself, all of which the network sees.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from docs.recipe.ship import SPEC
from docs.recipe.train import chosen_of, neighbours, read_averaged

from brainseg._whole import written_whole
from brainseg.data import LGGSegmentation, institution, lgg_root
from brainseg.inference import Predictor, postprocess
from brainseg.metrics import confidence_interval
from brainseg.models import ModelSpec, Postprocessing, SegmentationModel, load_weights
from brainseg.report import write_rows

Volume = NDArray[np.float32]  # probabilities (S, H, W)

HERE = Path(__file__).parent
AT_ONCE = 16


VARIANTS = {
    "slice": Postprocessing(),
    "smoothed": Postprocessing(smooth=True),
    "largest": Postprocessing(smooth=True, components="largest"),
    "likeliest": Postprocessing(smooth=True, components="likeliest"),
}


def masks(volume: Volume, steps: Postprocessing) -> NDArray[np.bool_]:
    """(S, H, W) of probabilities, above 1/2."""
    found: NDArray[np.bool_] = postprocess(torch.from_numpy(volume)[:, None], SPEC, steps=steps)[:, 0].numpy()
    return found


def dice(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    """Of a patient; every patient here has a tumour."""
    return 2 * int((prediction & target).sum()) / int(prediction.sum() + target.sum())


def read_network(run: Path) -> tuple[nn.Module, ModelSpec]:
    """With its averaged weights, or with the last ones of a run of `brainseg train`, and what they mean."""
    if (run / "last.pt").exists():
        return read_averaged(run), SPEC
    model = SegmentationModel.from_pretrained(run / "best")
    load_weights(model, run / "last.ckpt")
    return model.eval(), model.spec


def slices_of(run: Path) -> int:
    """How many slices the network of a run sees."""
    number: int = chosen_of(run).get("slices", 1) if (run / "last.pt").exists() else 1
    return number


def fold_of(run: Path, folds: list[list[str]]) -> int:
    """The fold that a run has not seen."""
    if (run / "last.pt").exists():
        number: int = chosen_of(run)["fold"]
        return number
    unseen = json.loads((run / "split.json").read_text())["validation"]
    return [sorted(fold) for fold in folds].index(sorted(unseen))


def out_of_fold(run: Path, patient: str, slices: Tensor, *, whole: bool, half: bool) -> Volume:
    """The probabilities of a run for a patient, from its folder if they are there."""
    path = run / f"probabilities{'_whole' * whole}{'_half' * half}" / f"{patient}.npz"
    last = next(run.glob("last.*"))
    if not path.exists() or path.stat().st_mtime < last.stat().st_mtime:
        path.parent.mkdir(exist_ok=True)
        model, spec = read_network(run)
        if half:
            for parameter in model.parameters():
                parameter.data = parameter.data.half().float()
        with written_whole(path) as partial, partial.open("wb") as file:
            spec = replace(spec, channel_names=None, crop=None if whole else spec.crop)
            predictor = Predictor(model, spec=spec)
            seen = slices[neighbours(torch.arange(len(slices)), slices_of(run), len(slices))].flatten(1, 2)
            found = [predictor.probabilities(few)[:, 0] for few in seen.split(AT_ONCE)]
            np.savez_compressed(file, torch.cat(found).half().numpy())
    with np.load(path) as content:
        volume: Volume = content["arr_0"].astype(np.float32)
    return volume


def predict(
    runs: list[Path], patient: str, root: Path, *, half: bool = False
) -> tuple[NDArray[np.bool_], Volume, Volume]:
    """The true mask (S, H, W), and the mean probabilities of the part around the head and of whole slices."""
    data = LGGSegmentation(root, [patient])
    slices = torch.stack([data[i]["image"] for i in range(len(data))])
    target = torch.stack([data[i]["mask"] for i in range(len(data))])[:, 0].bool().numpy()
    found, found_whole = (
        np.mean([out_of_fold(run, patient, slices, whole=whole, half=half) for run in runs], axis=0)
        for whole in (False, True)
    )
    return target, found, found_whole


def score_patient(runs: list[Path], patient: str, root: Path, *, half: bool) -> dict[str, float | int | str]:
    target, found, found_whole = predict(runs, patient, root, half=half)
    row: dict[str, float | int | str] = {"slices": len(target), "tumour": int(target.sum())}
    for name, steps in VARIANTS.items():
        row[name] = round(dice(masks(found, steps), target), 5)
    row["whole"] = round(dice(masks(found_whole, VARIANTS["slice"]), target), 5)
    return row


def summarise(rows: list[dict[str, float | int | str]], columns: list[str]) -> list[dict[str, float | int | str]]:
    """Mean with its interval over patients, and median, of all and of each institution."""
    groups = {"all": rows}
    for row in rows:
        groups.setdefault(str(row["institution"]), []).append(row)
        groups.setdefault(f"missing: {row['missing']}", []).append(row)
    table = []
    for group, members in groups.items():
        for column in columns:
            values = {str(row["patient"]): float(row[column]) for row in members}
            line: dict[str, float | int | str] = {"patients of": group, "prediction": column, "patients": len(values)}
            line["mean"] = round(fmean(values.values()), 4)
            if len(values) > 1:
                interval = confidence_interval(values, seed=0)
                line["lower"], line["upper"] = round(interval.lower, 4), round(interval.upper, 4)
            line["median"] = round(median(values.values()), 4)
            table.append(line)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="folders of train.py, or of `brainseg train`, each of a fold"
    )
    parser.add_argument("--root", type=Path, default=lgg_root(), help="folder of the patients' folders")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the tables")
    parser.add_argument("--together", action="store_true", help="the mean probabilities of runs of one fold")
    parser.add_argument("--half", action="store_true", help="parameters rounded to float16")
    arguments = parser.parse_args()

    described = json.loads((HERE / "folds.json").read_text())
    rows: list[dict[str, float | int | str]] = []
    for runs in [arguments.runs] if arguments.together else [[run] for run in arguments.runs]:
        (fold,) = {fold_of(run, described["folds"]) for run in runs}
        for patient in described["folds"][fold]:
            about = {"patient": patient, "fold": fold, "institution": institution(patient)}
            missing = {"missing": described["missing"].get(patient, "nothing")}
            rows.append(about | missing | score_patient(runs, patient, arguments.root, half=arguments.half))
            print(rows[-1], flush=True)
    rows.sort(key=lambda row: row["patient"])
    write_rows(rows, arguments.output / "patients.csv")
    summary = summarise(rows, [*VARIANTS, "whole"])
    write_rows(summary, arguments.output / "summary.csv")
    for line in summary:
        if line["patients of"] == "all":
            print(line)


if __name__ == "__main__":
    main()
