"""From a table to training and test data: labels, classes, split, what was understood."""

import numpy as np
import pytest
from helpers.data import check, line, npz

pytest.importorskip("pandas")
from thinned.key import Key
from thinned.lab.data.registry import load
from thinned.lab.data.table import stratified


def csv(tmp_path, rows, name="mine.csv"):
    path = tmp_path / name
    path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return path


def labelled(tmp_path, labels):
    return csv(tmp_path, [("a", "b", "y"), *((i * i, i % 7, label) for i, label in enumerate(labels))])


def test_a_table_of_numbers_is_as_npz(tmp_path):
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(60, 4)), rng.integers(8, 12, 60)
    rows = [(*map(repr, row.tolist()), label) for row, label in zip(x, y, strict=True)]
    dataset = check(load(csv(tmp_path, ["abcdy", *rows]), label="y"))
    arrays = load(npz(tmp_path, x=x, y=y))
    assert dataset.classes == arrays.classes == ("8", "9", "10", "11")
    np.testing.assert_array_equal(dataset.y_train, arrays.y_train)
    for name in ("x_train", "x_test"):
        np.testing.assert_allclose(getattr(dataset, name), getattr(arrays, name), rtol=1e-5, atol=1e-6)


DAYS = [f"2024-01-{i + 1:02}" for i in range(28)]


def test_what_was_understood(tmp_path):
    rows = [("", "size", "sex", "when", "remark", "kind")]
    rows += [
        (
            i,
            i % 9 if i % 3 else "NA",
            "fm"[i % 2],
            f"2024-01-{i % 28 + 1:02}",
            f"the {i}th bird seen",
            "ab"[i % 2],
        )
        for i in range(60)
    ]
    dataset = check(load(csv(tmp_path, rows), label="kind"))
    assert {one.name: str(one) for one in dataset.columns} == {
        "kind": "label, 2 classes: 'a', 'b'",
        "unnamed 0": "row number, left out, --numeric 'unnamed 0' takes it",
        "size": "number, 20 missing",
        "sex": "category, 2 values",
        "when": "date",
        "remark": "text, left out",
    }
    assert dataset.x_train.shape == (48, 2 + 2 + 6)  # size and its indicator, two sexes, a date's parts
    assert "3 of 5 columns as 10 numbers" in dataset.note


def test_only_training_data_is_fitted(tmp_path):
    """What test rows hold changes nothing in the training rows."""
    x, y = np.random.default_rng(3).normal(size=(50, 2)), np.arange(50) % 2

    def loaded():
        rows = ((*row, label) for row, label in zip(x.tolist(), y, strict=True))
        return load(csv(tmp_path, [("a", "b", "y"), *rows]), label="y")

    first = loaded()
    x[stratified(y, 0.2, Key(0))[1]] *= 1000
    second = loaded()
    np.testing.assert_array_equal(first.x_train, second.x_train)
    np.testing.assert_array_less(np.abs(first.x_test).max(axis=0), np.abs(second.x_test).max(axis=0))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["007", "7", "02134", "2134"], ("007", "02134", "2134", "7")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["1.0", "2.0"], ("1.0", "2.0")),
        (["True", "False"], ("False", "True")),
        (["None", "mild"], ("None", "mild")),
        (["größer", "als"], ("als", "größer")),
    ],
)
def test_labels_keep_their_text(tmp_path, labels, classes):
    assert check(load(labelled(tmp_path, labels * 10), label="y")).classes == classes


@pytest.mark.parametrize("cell", ["", "NA", "?", "nan"])
def test_rows_without_a_label_are_dropped_and_counted(tmp_path, cell):
    dataset = check(load(labelled(tmp_path, ["a", "b", "a", "b", cell] * 8), label="y"))
    assert dataset.classes == ("a", "b")
    assert len(dataset.x_train) + len(dataset.x_test) == 32
    assert "8 rows without a label were dropped." in dataset.note
    assert str(dataset.columns[0]) == "label, 2 classes: 'a', 'b', 8 rows without one dropped"


REAL = [f"{i * 1.37:.2f}" for i in range(10)] * 4


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (["", "a", "b"] * 10, "10 of 30 rows have no label (an empty cell, NA, ?)"),
        (
            [f"n{i}" for i in range(20)],
            "got 20 different labels in 20 rows; name another",
        ),
        (["a"] * 10, "examples must be of two or more classes, got 'a' alone"),
        (["a", "b", *["c"] * 8], "each class must have two or more examples, got one of 'a', 'b'"),
        (["a", "b"], "no class has two examples"),
        ([], "no examples"),
    ],
)
def test_labels_that_cannot_be_learnt(tmp_path, labels, fault):
    path = labelled(tmp_path, labels)
    answer = line(load, path, label="y")
    assert answer.startswith(str(path))
    assert fault in answer


@pytest.mark.parametrize(
    ("labels", "described"),
    [
        (REAL, "label, numbers from 0 to 12.33"),
        (list(range(25)) * 4, "label, numbers from 0 to 24"),
        ([*range(15)], "label, numbers from 0 to 14"),
        (["", *REAL], "label, numbers from 0 to 12.33, 1 rows without one dropped"),
        (
            list(range(20)) * 4,
            f"label, 20 classes: {', '.join(repr(str(i)) for i in range(12))}, …, fewer than",
        ),
        (["a"] * 10 + ["b"] * 9, "label, 2 classes: 'a', 'b', fewer than 10 examples of 'b'"),
    ],
)
def test_the_task_is_found(tmp_path, labels, described):
    dataset = load(labelled(tmp_path, labels), label="y")
    assert str(dataset.columns[0]).startswith(described)
    assert (dataset.classes == ()) == ("numbers" in described)
    assert dataset.y_train.dtype == (np.int64 if dataset.classes else np.float64)


def test_the_task_can_be_given(tmp_path):
    assert len(check(load(labelled(tmp_path, REAL), label="y", task="classes")).classes) == 10
    numbers = load(labelled(tmp_path, [*range(8)] * 5), label="y", task="numbers")
    assert sorted([*numbers.y_train, *numbers.y_test]) == sorted([*range(8)] * 5)
    words = line(load, labelled(tmp_path, ["a", "b"] * 5), label="y", task="numbers")
    assert "column 'y' must be numbers for --task numbers, got 'a'" in words
    assert "must be finite numbers, got 'inf'" in line(load, labelled(tmp_path, [*REAL, "inf"]), label="y")
    assert "two or more different numbers, got 1.5 alone" in line(
        load, labelled(tmp_path, ["1.5"] * 9), label="y"
    )


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        (None, "--label must be the name of one column: 'a', 'b', 'y', got none"),
        ("Y", "got 'Y' (did you mean 'y'?)"),
        ("sort", "'a', 'b', 'y', got 'sort'"),
    ],
)
def test_a_label_that_is_no_column(tmp_path, label, fault):
    assert fault in line(load, labelled(tmp_path, "ab" * 5), label=label)


def test_labels_of_two_columns(tmp_path):
    assert "which several columns have" in line(load, csv(tmp_path, ["aa", "12", "34"]), label="a")


def test_without_names(tmp_path):
    path = csv(tmp_path, [(i % 2, i * 3 + 7, i * 5 % 41) for i in range(20)])
    assert "--no-header" in line(load, path, label="0")
    path.write_text("red,3,8\n" + "red,5,1\nblue,6,2\n" * 9)  # the first row is taken for names
    assert line(load, path, label="kind").endswith(
        "if the first line has no names, add one, or give --no-header"
    )
    path = csv(tmp_path, [(i % 2, i * 3 + 7, i * 5 % 41) for i in range(20)])
    dataset = check(load(path, label="0", header=False))
    assert len(dataset.x_train) + len(dataset.x_test) == 20
    assert [one.name for one in dataset.columns] == ["0", "1", "2"]


def test_only_the_label(tmp_path):
    assert "only the label column is there" in line(load, csv(tmp_path, ["y", *"abab"]), label="y")
