"""Moments of torch's layers against samples."""

from helpers.ensembles import assert_means

from thinned import Key, uncertainty


def test_moments_through_torch_layers(torch):
    import thinned.nn as tnn

    nn = torch.nn
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    norm.running_mean += torch.randn(3)
    norm.running_var += torch.rand(3)
    linear = [nn.Conv2d(2, 3, 2), norm, nn.Flatten(), tnn.DropConnectLinear(12, 4, p=0.3), nn.Linear(4, 2)]
    model, x, samples = nn.Sequential(nn.Dropout(0.5), *linear), torch.randn(4, 2, 3, 3), 20_000
    result = uncertainty.moments(model, x, outputs="numbers")
    drawn = uncertainty.predict(model, x, samples, key=Key(0), outputs="numbers")
    assert_means(drawn.mean, result.mean.numpy(), result.std, samples)
    assert (result.std > 0).all()
