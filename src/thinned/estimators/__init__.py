"""Scikit-learn's multi-layer perceptrons, with dropout.

>>> from sklearn.datasets import load_digits
>>> from sklearn.model_selection import train_test_split
>>> from sklearn.pipeline import make_pipeline
>>> from sklearn.preprocessing import MinMaxScaler
>>> from thinned.estimators import DropoutMLPClassifier
>>> X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
>>> net = DropoutMLPClassifier((256, 256), batch_size=32, early_stopping=True, random_state=0)
>>> make_pipeline(MinMaxScaler(), net).fit(X, y).score(X_test, y_test) > 0.95
True
"""

from thinned.estimators.models import DropoutMLPClassifier, DropoutMLPRegressor

__all__ = ["DropoutMLPClassifier", "DropoutMLPRegressor"]
