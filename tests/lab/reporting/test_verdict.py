"""The sentences of a verdict: what is decided, what is not, ties, and what to do next."""

import dataclasses

import pytest

from thinned.lab.reporting.from_runs import Row
from thinned.lab.reporting.measure import HELD_OUT, rmse
from thinned.lab.reporting.paired import Difference
from thinned.lab.reporting.summary import summarise
from thinned.lab.reporting.verdict import Rate, Verdict


def row(label, test, train=0.0, measure=None):
    made = Row(label, [test] * 3, [train] * 3, [1.0], 10)
    return summarise(dataclasses.replace(made, measure=measure) if measure else made)


def difference(label, mean, half, p=0.5, seeds=3, by_seeds=0.1, same=False):
    return Difference(label, "none", mean, mean - half, mean + half, p, p, seeds, 359, by_seeds, same)


def verdict(*found, errors=(0.02, 0.015), what="images"):
    rows = {"none": row("none", errors[0])} | {
        one.label: row(one.label, error) for one, error in zip(found, errors[1:], strict=True)
    }
    return Verdict(found, "none", rows, what, True)


def test_what_is_decided():
    v = verdict(difference("dropout", -0.005, 0.004, p=0.01))
    assert v.headline() == (
        "dropout makes fewer errors than none: 1.50 % against 2.00 %, 1.8 of 359 images fewer "
        "(95 % interval 0.4 to 3.2)."
    )
    assert v.next().startswith("Take dropout.")


def test_what_is_worse():
    v = verdict(difference("dropout", 0.005, 0.004, p=0.01), errors=(0.02, 0.025))
    assert v.headline() == (
        "No method makes fewer errors than none: dropout comes closest with 2.50 % against 2.00 %, 1.8 of "
        "359 images more (95 % interval 0.4 to 3.2)."
    )
    assert v.next().startswith("Take none.")


def test_what_is_not_decided():
    v = verdict(difference("dropout", -0.005, 0.01))
    assert v.headline() == (
        "The data cannot decide whether dropout or none makes fewer errors: 1.50 % against 2.00 %, a "
        "difference of 1.8 of 359 images (95 % interval −1.8 to 5.4)."
    )
    assert "about 1,700 are needed" in v.next()  # 1.2 · (0.01/0.005)² · 359


def test_ties_are_ties():
    v = verdict(difference("dropout", 0.0, 0.01), errors=(0.1667, 0.1667))
    assert v.headline().startswith("dropout and none tie: 16.67 % each, a difference of 0.0 of 359 images")
    assert "hardly matters" in v.next()
    v = verdict(difference("dropout", 0.0, 0.0, p=1.0, same=True), errors=(0.1, 0.1))
    assert v.headline() == "dropout and none err alike on all test images: 10.00 % each."
    assert v.next() == "Keep none: dropout changes no answer. More test data may show a difference."


def test_one_seed_is_not_enough():
    v = verdict(difference("dropout", -0.05, 0.01, p=0.0001, seeds=1))
    assert v.headline().startswith("The data cannot decide")
    assert v.headline().endswith("with one seed each, another seed may turn this around.")
    assert "--seeds 5" in v.next()


def test_seeds_that_would_decide():
    assert "run --seeds 15" in verdict(difference("dropout", -0.005, 0.01, by_seeds=0.9)).next()


def test_others_are_named():
    found = (
        difference("a", -0.01, 0.004, p=0.001),
        difference("b", -0.008, 0.004, p=0.002),
        difference("c", 0.01, 0.004, p=0.001),
        difference("d", 0.0, 0.004),
    )
    v = verdict(*found, errors=(0.02, 0.01, 0.012, 0.03, 0.02))
    assert v.first.label == "a"
    words = "b is better than none too; c is worse than none; d is not clearly different from none."
    assert v.others() == words


def test_numbers_are_in_their_units():
    measure = rmse([23000.0])
    rows = {
        "none": row("none", 24000.0, measure=measure),
        "dropout": row("dropout", 23000.0, measure=measure),
    }
    v = Verdict([difference("dropout", -1000.0, 300.0, p=0.01)], "none", rows, "rows", False)
    assert v.headline() == (
        "dropout has a lower test RMSE than none: 23,000 against 24,000, 1,000 lower (95 % interval 700 to "
        "1,300)."
    )


@pytest.mark.parametrize(("p", "first"), [(0.01, "Take none."), (0.5, "Try a smaller --p")])
def test_numbers_of_few_rows_need_small_rates(p, first):
    rows = {
        "none": row("none", 3.0, measure=rmse([3.0])),
        "dropout": row("dropout", 5.0, 4.0, measure=rmse([3.0])),
    }
    found = difference("dropout", 2.0, 1.0, p=p)
    text = Verdict([found], "none", rows, "rows", False).next()
    assert text.startswith(first)
    assert text.endswith("try --p 0.05,0.1,0.2, or --tune.")
    many = dataclasses.replace(found, examples=1_001)
    assert "--tune" not in Verdict([many], "none", rows, "rows", False).next()


@pytest.mark.parametrize(("smallest", "advised"), [(0.05, False), (0.2, False), (0.3, True)])
def test_small_rates_are_advised_only_where_none_was_tried(smallest, advised):
    rows = {
        "none": row("none", 3.0, measure=rmse([3.0])),
        "dropout": row("dropout", 5.0, 4.0, measure=rmse([3.0])),
    }
    rates = {"dropout": Rate(0.5, smallest, 0.5)}
    text = Verdict([difference("dropout", 2.0, 1.0)], "none", rows, "rows", False, rates).next()
    assert ("--p 0.05,0.1,0.2" in text) == advised
    assert "Try a smaller --p" not in text  # a smaller one was tried


def test_a_rate_between_those_that_were_tried_is_kept():
    found = [difference("dropout", -0.005, 0.004, p=0.01)]
    for train, advice in ((0.05, "smaller --p"), (0.001, "larger --p")):
        rows = {"none": row("none", 0.02), "dropout": row("dropout", 0.015, train)}
        for rate, advised in ((Rate(0.3, 0.3, 0.3), True), (Rate(0.3, 0.1, 0.5), False)):
            text = Verdict(found, "none", rows, "images", True, {"dropout": rate}).next()
            assert (advice in text) == advised


def test_held_out_errors_are_named_so():
    held = dataclasses.replace(rmse([3.0]), of=HELD_OUT)
    rows = {"none": row("none", 3.0, measure=held), "dropout": row("dropout", 2.0, 4.0, measure=held)}
    v = Verdict([difference("dropout", -1.0, 0.5, p=0.01)], "none", rows, "rows", False)
    assert v.headline().startswith("dropout has a lower held-out RMSE than none: ")
    assert "than none on held-out data" in v.next()
    assert "test" not in v.headline() + v.next()


def test_examples_that_each_seed_holds_out_are_named_so():
    found = dataclasses.replace(difference("dropout", -0.005, 0.004, p=0.01), own=True)
    assert "1.8 of each seed's 359 images fewer" in verdict(found).headline()


@pytest.mark.parametrize(
    ("train", "advice"), [(0.05, "smaller --p"), (0.001, "a larger --p"), (0.014, "a larger network")]
)
def test_the_next_rate_follows_from_the_training_error(train, advice):
    rows = {"none": row("none", 0.02), "dropout": row("dropout", 0.015, train)}
    v = Verdict([difference("dropout", -0.005, 0.004, p=0.01)], "none", rows, "images", True)
    assert advice in v.next()
