"""The graph of a torch model in two parts."""

from thinned import Key, uncertainty


def test_what_comes_before_the_first_random_layer_runs_once(torch):
    class Counted(torch.nn.Linear):
        calls = 0

        def forward(self, x):
            Counted.calls += len(x)
            return super().forward(x)

    model = torch.nn.Sequential(Counted(4, 4), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(4, 3))
    few, many = [], []
    for seen, samples in ((few, 2), (many, 200)):
        Counted.calls = 0
        uncertainty.predict(model, torch.randn(50, 4), samples, key=Key(0))
        seen.append(Counted.calls)
    assert few == many


def test_a_change_in_place_is_not_seen_by_the_next_sample(torch):
    import thinned.nn as tnn

    class InPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(4, 4)
            self.drop = tnn.DropPath(0.5, mode="batch")  # samples run one by one

        def forward(self, x):
            h = self.first(x)
            h += self.drop(h)
            return h

    model, x = InPlace(), torch.randn(3, 4)
    result = uncertainty.predict(model, x, 64, key=Key(0), outputs="numbers", quantiles=(0.0, 1.0))
    with torch.no_grad():
        h = model.first(x)
    each = torch.stack([h, h + 2 * h])  # the branch is dropped, or doubled
    assert torch.allclose(result.quantiles[0], each.min(0).values, atol=1e-5)
    assert torch.allclose(result.quantiles[1], each.max(0).values, atol=1e-5)
