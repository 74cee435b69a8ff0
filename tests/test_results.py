"""The page of results: every number of it follows from the committed tables, and these agree with each other."""

import re

import pytest
from docs.results import HERE, RUNS, Run, page, published

from brainseg.training.experiments import EXPERIMENTS

KEPT = [name for name in EXPERIMENTS if (RUNS / name / "losses.csv").is_file()]


def test_the_page_is_what_the_tables_say() -> None:
    assert (HERE / "results.md").read_text() == page(), "run python docs/results.py"


def test_no_number_is_typed_into_the_page() -> None:
    prose = re.sub(r"{{.*?}}|{%.*?%}", "", (HERE / "results.in.md").read_text(), flags=re.DOTALL)
    assert re.findall(r"\d\.\d{2,}", prose) == []


def test_what_was_reported_is_said_once() -> None:
    named = published()
    for number in (1, 2):
        reported = f"{named[f'course-{number} iou']:.4f} / {named[f'course-{number} dice']:.4f}"
        assert EXPERIMENTS[f"course-{number}"].reported == reported


def test_the_score_of_nothing_is_the_published_one() -> None:
    """Two batches of 8 among 786 slices."""
    assert f"{16 / 786:.4f}" == f"{published()['course-2 nothing']:.4f}"


@pytest.mark.parametrize("name", KEPT)
def test_the_scores_follow_from_the_pixels_of_the_slices(name: str) -> None:
    """What the page computes is what the run logged and its evaluation wrote."""
    run = Run(name)
    iou, dice = run.batch(str(run.batch_size))
    assert (iou, dice) == pytest.approx((run.best["val_iou_batch"], run.best["val_dice_batch"]), abs=1e-5)
    for measured, column in ((run.dice_patient, "patient"), (run.dice_slice, "slice"), (run.dice_dataset, "dataset")):
        assert measured.value == pytest.approx(run.best[f"val_dice_{column}"], abs=1e-5)
        assert measured.interval is not None
        assert measured.interval.lower <= measured.value <= measured.interval.upper
    assert run.dice_patient.interval == pytest.approx(
        (run.summary["its 95 % interval, from"], run.summary["its 95 % interval, to"]), abs=1e-6
    )
    assert run.batch("all")[1] == pytest.approx(run.dice_dataset.value, abs=1e-6)


@pytest.mark.parametrize("name", KEPT)
def test_the_losses_of_the_slices_are_the_logged_one(name: str) -> None:
    run = Run(name)
    assert run.losses.keys() == run.pixels.keys()
    assert run.mean_dice_loss == pytest.approx(run.best["val_loss_dice"], abs=1e-5)
    share = run.empty.mean()
    together = share * run.dice_loss(empty=True) + (1 - share) * run.dice_loss(empty=False)
    assert together == pytest.approx(run.mean_dice_loss, abs=1e-9)


@pytest.mark.parametrize("name", ["course-1-patients", "course-fixed", "default"])
def test_older_runs_agree_with_themselves(name: str) -> None:
    run = Run(name)
    assert run.dice_patient.value == pytest.approx(run.best["val_dice_patient"], abs=1e-5)
    assert run.dice_slice.value == pytest.approx(run.best["val_dice_slice"], abs=1e-5)
    assert run.batch("8")[0] == pytest.approx(run.best["val_iou_batch"], abs=1e-5)


def test_what_was_not_run_says_so() -> None:
    lines = (HERE / "results.md").read_text().splitlines()
    for name in EXPERIMENTS:
        (line,) = [line for line in lines if line.startswith(f"| `{name}` | batch")]
        assert ("not run" in line) is not bool(Run(name))
