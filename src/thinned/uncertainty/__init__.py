"""Predictions with error bars, computed from samples of thinned networks or from moments.

>>> import numpy as np, thinned
>>> from thinned import scratch, uncertainty
>>> net = scratch.mlp((4, 32, 3), key=thinned.Key(0), drop=scratch.Dropout)
>>> prediction = uncertainty.predict(net, np.ones((5, 4), np.float32), samples=50, key=thinned.Key(1))
>>> prediction.mean.shape, prediction.entropy.shape
((5, 3), (5,))
"""

from thinned.uncertainty.all_subnetworks import Averages, average, subnetworks
from thinned.uncertainty.calibration import (
    Reliability,
    Scores,
    calibration_error,
    rejection,
    reliability,
    scores,
)
from thinned.uncertainty.moments import moments
from thinned.uncertainty.predict import predict, sample, weight_scaling
from thinned.uncertainty.prediction import Prediction

__all__ = [
    "Averages",
    "Prediction",
    "Reliability",
    "Scores",
    "average",
    "calibration_error",
    "moments",
    "predict",
    "rejection",
    "reliability",
    "sample",
    "scores",
    "subnetworks",
    "weight_scaling",
]
