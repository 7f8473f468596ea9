"""Attention maps, and attentive CutMix with them."""

import pytest

from thinned import Key

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import thinned.nn as tnn  # noqa: E402


def test_attention_map():
    features = torch.zeros(2, 3, 14, 14)
    features[0, 1, 4:6, 8:10] = -6.0  # one cell of 7 × 7; mean over three channels
    attention = tnn.attention_map(features)
    assert attention.shape == (2, 7, 7)
    assert attention[0, 2, 4] == 2.0
    assert attention.sum() == 2.0
    assert tnn.attention_map(torch.rand(3, 2, 5, 9).half(), grid=4).shape == (3, 4, 4)
    for wrong, error in ((torch.ones(2, 3, 4), ValueError), (torch.ones(2, 3, 4, 4).int(), TypeError)):
        with pytest.raises(error, match=r"^features must"):
            tnn.attention_map(wrong)
    with pytest.raises(ValueError, match=r"^grid must"):
        tnn.attention_map(features, 0)


def test_last_features_and_attentive_cutmix():
    thinned = pytest.importorskip("thinned")
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, 2), nn.Flatten(), nn.Linear(288, 2)
    )
    model[1].eval()
    images = torch.rand(5, 3, 28, 28)
    features = tnn.last_features(model, images)
    assert features.shape == (5, 8, 6, 6)
    assert not features.requires_grad
    assert [module.training for module in model] == [True, False, True, True, True]
    assert not model[2]._forward_hooks
    assert model[1].num_batches_tracked == 0
    labels = torch.tensor([0, 1, 0, 1, 1])
    mixed, target = thinned.attentive_cutmix(
        images, labels, tnn.attention_map(features), key=Key(0), classes=2
    )[:2]
    assert mixed.shape == images.shape
    torch.testing.assert_close(target.sum(1), torch.ones(5))
    with pytest.raises(ValueError, match=r"^model must run a 2d convolution"):
        tnn.last_features(nn.Linear(28, 2), images)
