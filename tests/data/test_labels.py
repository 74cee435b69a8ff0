"""Which stored values make which class, for each task."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainseg.data.labels import Classes, Labels

MAP = np.array([[0, 1, 2], [4, 255, 1]], np.uint8)
STACK = np.array([[[1, 0, 0]], [[0, 0, 1]]], np.uint8)


def present(*values: int) -> dict[int, Path]:
    return {value: Path(f"{value}.png") for value in values}


def of_map(classes: Classes | None = None, task: Any = None, values: tuple[int, ...] = (0, 1, 2, 4, 255)) -> Labels:
    return Labels.of_map(present(*values), classes, task)


def test_every_value_of_a_map_is_a_class_in_its_order() -> None:
    labels = of_map()
    assert (labels.task, labels.class_names) == ("multiclass", ("background", "label_1", "label_2", "label_4"))
    target = labels.encode(MAP)
    assert list(target) == ["mask"]
    assert target["mask"].dtype == torch.int64
    assert target["mask"].tolist() == [[0, 1, 2], [3, 255, 1]]
    assert labels.ignore_index == 255


def test_names_stand_for_values_from_0_on() -> None:
    labels = of_map(["background", "a", "b", "c"], values=(0, 1, 3))
    assert labels.encode(np.array([[0, 1, 3]], np.uint8))["mask"].tolist() == [[0, 1, 3]]
    assert labels.ignore_index is None


def test_values_of_names_may_have_gaps_and_need_no_background() -> None:
    labels = of_map({"enhancing": 4, "oedema": 2, "necrosis": 1})
    assert labels.class_names == ("background", "enhancing", "oedema", "necrosis")
    assert labels.encode(MAP)["mask"].tolist() == [[0, 3, 2], [1, 255, 3]]


def test_the_background_comes_first_wherever_it_is_named() -> None:
    labels = of_map({"a": 1, "nothing": 0, "b": 2, "c": 4})
    assert labels.class_names == ("nothing", "a", "b", "c")


def test_regions_overlap_and_leave_out_what_is_ignored() -> None:
    labels = of_map({"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]})
    assert (labels.task, labels.class_names) == ("multilabel", ("whole", "core", "enhancing"))
    target = labels.encode(MAP)
    assert target["mask"].dtype == torch.float32
    assert target["mask"].tolist() == [
        [[0, 1, 1], [1, 0, 1]],
        [[0, 1, 0], [1, 0, 1]],
        [[0, 0, 0], [1, 0, 0]],
    ]
    assert target["valid"].tolist() == [[[True, True, True], [True, False, True]]]
    assert labels.ignore_index is None


def test_one_class_beside_the_background_is_one_mask() -> None:
    named = of_map(["background", "tumour"], values=(0, 1))
    for labels in (of_map(values=(0, 1)), of_map({"whole": [1, 2, 4]}), named):
        assert (labels.task, len(labels.class_names)) == ("binary", 1)
    assert of_map(values=(0, 1)).encode(np.array([[0, 1]], np.uint8))["mask"].tolist() == [[[0, 1]]]
    two = of_map(["background", "tumour"], "multiclass", values=(0, 1))
    assert two.class_names == ("background", "tumour")


def test_classes_keep_the_values_that_they_have_in_the_maps() -> None:
    assert of_map().values == (0, 1, 2, 4)
    assert of_map({"core": 4, "oedema": 2, "rest": 1}).values == (0, 4, 2, 1)
    assert of_map({"core": [1, 4], "oedema": [2]}, "multiclass").values == (0, 1, 2)
    assert of_map({"none": [2, 0], "core": [1, 4]}, "multiclass").values == (0, 1)
    assert of_map(task="multilabel").values is None
    assert Labels.of_masks(2, task="multiclass").values is None


def test_a_task_makes_what_it_says_of_the_same_map() -> None:
    assert of_map(task="binary").encode(MAP)["mask"].tolist() == [[[0, 1, 1], [1, 0, 1]]]
    several = of_map(task="multilabel")
    assert several.class_names == ("label_1", "label_2", "label_4")
    assert several.encode(MAP)["mask"].sum((1, 2)).tolist() == [2, 1, 1]
    merged = of_map({"core": [1, 4], "oedema": [2]}, "multiclass")
    assert merged.encode(MAP)["mask"].tolist() == [[0, 1, 2], [1, 255, 1]]


def test_masks_stay_as_they_are_or_become_what_the_task_says() -> None:
    plain = Labels.of_masks(2)
    assert (plain.task, plain.class_names) == ("multilabel", ("class_0", "class_1"))
    assert plain.encode(STACK)["mask"].tolist() == STACK.tolist()
    assert (Labels.of_masks(1).task, Labels.of_masks(1).class_names) == ("binary", ("foreground",))
    joined = Labels.of_masks(2, task="binary")
    assert joined.encode(STACK)["mask"].tolist() == [[[1, 0, 1]]]
    classes = Labels.of_masks(2, ["a", "b"], "multiclass")
    assert classes.class_names == ("background", "a", "b")
    assert classes.encode(STACK)["mask"].tolist() == [[1, 0, 2]]
    with pytest.raises(ValueError, match="masks of two classes overlap, which 'multiclass' cannot express"):
        classes.encode(np.ones_like(STACK))


@pytest.mark.parametrize(
    ("labels", "values", "shows"),
    [
        (of_map(), [0], False),
        (of_map(), [0, 255], False),
        (of_map(), [0, 4], True),
        (of_map({"core": [1, 4]}), [0, 2], False),
        (of_map({"core": [1, 4]}), [0, 1], True),
        (Labels.of_masks(2), [], False),
        (Labels.of_masks(2), [0], True),
        (Labels.of_masks(2, task="multiclass"), [0], True),
        (Labels.of_masks(2, task="multiclass"), [], False),
    ],
)
def test_foreground_is_told_from_the_values(labels: Labels, values: list[int], shows: bool) -> None:
    assert labels.has_foreground(values) == shows


def test_values_beyond_8_bits_are_classes_too() -> None:
    labels = of_map({"cortex": 1035}, values=(0, 1035))
    assert labels.encode(np.array([[0, 1035]], np.uint16))["mask"].tolist() == [[[0, 1]]]
    several = of_map({"a": 1035, "b": 2035}, values=(0, 1035, 2035))
    assert several.encode(np.array([[0, 1035, 2035]], np.uint16))["mask"].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("classes", "task", "message"),
    [
        (["background", "a"], None, r"2\.png holds the value 2, which no class has: .* background \(0\), a \(1\)"),
        ({"a": 1, "b": 2}, None, r"4\.png holds the value 4, which no class has"),
        (
            {"core": [1], "new": [3]},
            None,
            r"no label map holds a value of 'new' \(3\), and 2 \(in 2\.png\) belongs to no",
        ),
        ({"whole": [1, 2, 4], "core": [1]}, "multiclass", "cannot have the value 1 in two classes"),
        ({"all": [0, 1], "b": [2, 4]}, None, "class 'all' has the value 0, which is the background's, and others"),
        ({"a": -1}, None, "class 'a' must have a value, or values, of 0 and above, got -1"),
        ({"a": []}, None, r"class 'a' must have a value, or values, of 0 and above, got \[\]"),
        ({"a": "1"}, None, "class 'a' must have a value, or values, of 0 and above, got '1'"),
        ({"background": 1, "b": 2, "c": 4}, None, "the class 'background' has the value 1, expected 0"),
        (["a", "a"], None, "classes must have different names, got 'a' twice"),
        (["a", ""], None, "classes must be names"),
        ("ab", None, "classes must be names"),
        ({"whole": [1, 2, 4]}, "multilabel", "task 'multilabel' needs several classes, here is whole; take 'binary'"),
        (None, "softmax", "task must be one of 'binary', 'multilabel', 'multiclass', got 'softmax'"),
        ({"background": 0}, "binary", "nothing but background"),
    ],
)
def test_classes_that_do_not_fit_are_named(classes: Classes | None, task: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_map(classes, task)


@pytest.mark.parametrize(
    ("count", "classes", "task", "message"),
    [
        (2, ["a"], None, r"1 class\(es\) are named \(a\) and each slice has 2 mask\(s\)"),
        (1, None, "multilabel", "take 'binary'"),
        (2, ["background", "a"], "multiclass", "no mask may be called 'background'"),
        (2, {"a": 1, "b": 2}, None, "values of classes belong to label maps"),
    ],
)
def test_classes_that_do_not_fit_masks_are_named(count: int, classes: Any, task: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Labels.of_masks(count, classes, task)
