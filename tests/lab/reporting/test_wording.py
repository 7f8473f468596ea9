"""What a comparison found, in sentences."""

import math

from helpers.pages import row

from thinned.lab.reporting.summary import summarise
from thinned.lab.reporting.wording import finding, gap_finding, time_text


def test_finding_larger_than_the_spread() -> None:
    rows = [
        row("none", [0.018, 0.020, 0.022]),
        row("dropout", [0.013, 0.015, 0.017]),
        row("other", [0.03] * 3),
    ]
    assert finding(rows) == (
        "dropout has the lowest test error: 1.50 % against 2.00 % for none, which is 0.50 points or, in "
        "relative terms, 25 % lower; the difference is larger than the spread over seeds (standard deviation "
        "up to 0.20 points)."
    )


def test_finding_within_the_spread_says_so() -> None:
    rows = [row("none", [0.016, 0.020, 0.024]), row("dropout", [0.017, 0.019, 0.021])]
    assert finding(rows) == (
        "dropout has the lowest test error: 1.90 % against 2.00 % for none, which is 0.10 points or, in "
        "relative terms, 5 % lower; the difference is not larger than the spread over seeds (standard "
        "deviation up to 0.40 points), so it may be chance."
    )


def test_finding_when_nothing_is_better() -> None:
    rows = [row("none", [0.02, 0.02]), row("dropout", [0.025, 0.025])]
    assert finding(rows) == (
        "No method has a lower test error than none, 2.00 %: dropout comes closest with 2.50 %, 0.50 points "
        "or, in relative terms, 25 % higher; the difference is larger than the spread over seeds (standard "
        "deviation under 0.01 points)."
    )
    assert finding([row("none", [0.02]), row("dropout", [0.02])]) == (
        "No method has a lower test error than none, 2.00 %: dropout has the same."
    )
    zero = finding([row("none", [0.0]), row("dropout", [0.01])])
    assert "1.00 points higher" in zero
    assert "relative" not in zero


def test_finding_with_one_seed_one_method_no_baseline_no_rows() -> None:
    one_seed = finding([row("none", [0.02]), row("dropout", [0.015])])
    assert one_seed.endswith("25 % lower; with one seed each, this may be chance.")
    assert finding([row("dropout", [0.02, 0.03])]) == (
        "dropout has a test error of 2.50 ± 0.71 %, with nothing to compare it with."
    )
    assert "1.50 % against 2.00 % for B, the next best," in finding(
        [row("B", [0.02]), row("A", [0.015]), row("C", [0.3])]
    )
    assert "for A, which" in finding([row("A", [0.02]), row("B", [0.01]), row("C", [0.015])], baseline="A")
    assert finding([row("A", [0.02]), row("B", [0.02])]) == "A and B share the lowest test error, 2.00 %."
    assert finding([]) == "There are no runs to compare."


def test_finding_names_what_did_not_finish() -> None:
    rows = [
        row("none", [0.02, 0.02, math.nan], status=("done", "done", "diverged")),
        row("dropout", [0.01, 0.01, 0.9], status=("done", "done", "diverged")),
        row("gaussian", [0.001, 0.001], status=("stopped", "stopped")),
    ]
    text = finding(rows)
    assert text.startswith("dropout has the lowest test error: 1.00 % against 2.00 % for none")
    assert text.endswith(
        "; not counted: none (1 of 3 seeds diverged), dropout (1 of 3 seeds diverged), gaussian (stopped)."
    )
    assert finding([row("none", [math.nan], status=("diverged",))]) == "No run finished: none diverged."
    assert summarise(row("x", [math.inf, 0.1])).note == "1 of 2 seeds diverged"


def test_gap_finding() -> None:
    rows = [row("none", [0.05], [0.0]), row("dropout", [0.04], [0.03]), row("other", [0.04], [0.0])]
    assert gap_finding(rows) == (
        "The gap between training and test error is smallest for dropout: 1.00 points against 5.00 for none."
    )
    assert gap_finding(rows[:1]) == ""
    rows = [row("none", [0.05, 0.06], [0.0, 0.0]), row("dropout", [0.05, 0.059], [0.0, 0.0])]
    assert gap_finding(rows).endswith("5.45 points against 5.50 for none, within the spread over seeds.")


def test_time_is_written_in_words():
    assert [time_text(s) for s in (0.2, 40, 700, 3600 * 5)] == ["1 s", "40 s", "12 min", "5.0 h"]
