"""What a trained Mask DINO finds on slices with several components: python mask_dino_components.py RUN FOLDER.

Of the validation patients of the LGG slices, at the size of the network; writes components.csv and components.png
into FOLDER.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from brainseg.data import LGGSegmentation, lgg_root, read_split
from brainseg.inference import Predictor
from brainseg.metrics.functional.detection import mask_iou
from brainseg.models.mask_dino import targets_from_masks
from brainseg.transforms import Resize
from brainseg.visualization import brightened, draw_instances, draw_outlines

MIN_PIXELS = 10
COLUMNS = ("slices", "lesions", "queries", "found_by_queries", "components", "found_by_components")


def main(run: Path, folder: Path) -> None:
    predictor = Predictor.from_pretrained(run)
    size = predictor.spec.image_size
    root = lgg_root()
    slices = LGGSegmentation(root, read_split(root / "split.json")["validation"])
    table: dict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COLUMNS, 0))
    shown = []
    for i in range(len(slices)):
        image, mask = Resize(size)(slices[i]["image"][None], slices[i]["mask"][None])
        (true,) = targets_from_masks(mask, components=True, min_pixels=MIN_PIXELS)
        found = predictor.instances(image[0], min_score=0.5)
        (parts,) = targets_from_masks(predictor(image[0])[None].float(), components=True, min_pixels=MIN_PIXELS)
        row = table[len(true["masks"])]
        row["slices"] += 1
        row["lesions"] += len(true["masks"])
        for name, masks in (("queries", found.masks), ("components", parts["masks"])):
            matched = mask_iou(masks, true["masks"]) > 0.5
            row[name] += len(masks)
            row[f"found_by_{name}"] += int(matched.any(0).sum())
        if len(true["masks"]) > 1:
            shown.append((image[0], mask[0], found))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "components.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["components_of_slice", *COLUMNS], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"components_of_slice": number, **row} for number, row in sorted(table.items()))
    figure = Figure((12, 4.4), layout="constrained")
    for (above, below), (image, mask, found) in zip(
        figure.subplots(2, 6).T, shown[:: max(1, len(shown) // 6)], strict=False
    ):
        draw_outlines(above, brightened(image), mask)
        draw_instances(below, brightened(image), found, predictor.spec.class_names)
    figure.savefig(folder / "components.png", dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
