"""How far the first gradient in bfloat16 is that in float32: gradients.csv beside this file.

    python -m docs.networks.gradients

Of each network of runs.csv but Mask DINO, whose criterion draws points: random weights and the slices of step 0 as in
training, the cosine of the two gradients of all parameters together.
"""

from pathlib import Path

import torch
from docs.networks.train import RECIPE, RUNS
from docs.recipe.train import build, create_parser, draw_step, load, loss_of, seen
from torch import Tensor, nn

from brainseg.report import read_rows, write_rows

HERE = Path(__file__).parent


def gradient(model: nn.Module, images: Tensor, masks: Tensor, *, float32: bool) -> Tensor:
    """All of them in a row, float64."""
    model.zero_grad()
    torch.manual_seed(0)
    loss, _ = loss_of(model, images, masks, float32=float32)
    loss.backward()
    return torch.cat([x.grad.flatten() for x in model.parameters() if x.grad is not None]).double()


def main() -> None:
    chosen = create_parser().parse_args([*RECIPE.split(), "--output", "."])
    images, masks = draw_step(chosen, load(chosen.root, seen(chosen)), 0)
    rows = []
    for row in read_rows(RUNS):
        if row["network"].startswith("mask_dino"):
            continue
        torch.manual_seed(chosen.seed)
        model = build(row["model"]).to(memory_format=torch.channels_last).train()
        both = [gradient(model, images, masks, float32=float32) for float32 in (False, True)]
        rows.append(
            {"network": row["network"], "cosine": round(float(nn.functional.cosine_similarity(*both, dim=0)), 3)}
        )
        print(rows[-1], flush=True)
    write_rows(rows, HERE / "gradients.csv")


if __name__ == "__main__":
    main()
