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


def test_layers_called_by_keyword(torch):
    """As other libraries call them; with the chain found, too."""
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.d, self.b = nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)

        def forward(self, x):
            return self.b(input=self.d(input=torch.relu(self.a(input=x))))

    torch.manual_seed(0)
    net, x = Net(), torch.randn(5, 6)
    plain = nn.Sequential(net.a, nn.ReLU(), net.d, net.b)
    given, expected = (uncertainty.moments(model, x) for model in (net, plain))
    assert torch.allclose(given.mean, expected.mean)
    assert torch.allclose(given.std, expected.std)
    drawn = uncertainty.predict(net, x, 4, key=Key(0))
    assert drawn.random == {"d": "0.5 of the 8 units of a → b, drawn once a sample"}
    assert torch.allclose(uncertainty.weight_scaling(net, x), plain.eval()(x).softmax(1))
