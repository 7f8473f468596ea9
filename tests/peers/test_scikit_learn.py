"""scikit-learn's own tests of its networks, on the estimators with dropout=0 in place of its own."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

from thinned.estimators import DropoutMLPClassifier, DropoutMLPRegressor

pytestmark = pytest.mark.filterwarnings("default")  # theirs says itself where a warning is an error


# Its words -> ours: a private name, and messages of the same errors.
WORDS = {
    "._optimizer.learning_rate": "._optimizer.lr",
    "partial_fit does not support early_stopping=True": "early_stopping must be False for partial_fit",
    "The validation set is too small": "validation_fraction must leave 2 samples or more on either side of 2",
    "Solver produced non-finite parameter weights. The input data may contain large": "training diverged in "
    "epoch 1: scale X and y, or lower",
    " values and need to be preprocessed.": " learning_rate_init",
    '"Iteration"': '"epoch"',
}

# What differs on purpose; docs/estimators.md says it to users.
PRIVATE, LBFGS = "its private names", "lbfgs needs the same loss at each call, and dropout changes it"
DIFFERENT = {
    "test_fit": PRIVATE,
    "test_gradient": PRIVATE,
    "test_n_iter_no_change": PRIVATE,
    "test_n_iter_no_change_inf": PRIVATE,
    "test_lbfgs_regression": LBFGS + ": adam does not come as near",
    "test_lbfgs_classification_maxfun": LBFGS,
    "test_lbfgs_regression_maxfun": LBFGS,
    "test_partial_fit_errors": LBFGS,
    "test_warm_start": "a later y may lack classes of the first; only new ones are errors",
    "test_early_stopping_stratified": "a class of one example is trained on and never held out",
    "test_mlp_diverging_loss": "divergence is an error with early_stopping too, not a model of NaN",
}


def classifier(*args, **settings):
    return DropoutMLPClassifier(*args, **theirs(settings))


def regressor(*args, **settings):
    return DropoutMLPRegressor(*args, **theirs(settings))


def theirs(settings):
    """Settings with scikit-learn's defaults. Adam, with a rate and epochs to suit it, stands for lbfgs."""
    settings = {"dropout": 0.0, "learning_rate_init": 0.001, **settings}
    settings.pop("max_fun", None)
    if settings.get("solver") == "lbfgs":
        settings |= {"solver": "adam", "learning_rate_init": 0.02}
        if settings.get("max_iter", 200) >= 100:
            settings |= {"max_iter": 2_000, "n_iter_no_change": 200}
    return settings


def their_tests():
    spec = importlib.util.find_spec("sklearn.neural_network")
    path = Path(spec.origin).parent / "tests" / "test_mlp.py"
    line = "from sklearn.neural_network import MLPClassifier, MLPRegressor\n"
    source = path.read_text(encoding="utf-8")
    assert source.count(line) == 1
    found = {"MLPClassifier": classifier, "MLPRegressor": regressor, "__name__": "test_mlp"}
    source = source.replace(line, "")
    for its, ours in WORDS.items():
        assert its in source, its
        source = source.replace(its, ours)
    exec(compile(source, path, "exec"), found)
    assert DIFFERENT.keys() <= found.keys()
    return {
        name: pytest.mark.xfail(reason=DIFFERENT[name], strict=True)(test) if name in DIFFERENT else test
        for name, test in found.items()
        if name.startswith("test_")
    }


@pytest.fixture
def global_random_seed():
    return 0


globals().update(their_tests())
