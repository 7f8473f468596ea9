"""Judges: what timm, torchvision and transformers do, and what becomes of their networks under surgery."""

import math

import pytest
import torch
from helpers.examples import load
from torch import nn

import thinned
import thinned.nn as tnn
from thinned import Key


def peer(name):
    return pytest.importorskip(
        name, reason=f"{name} is not installed: make peers installs it", exc_type=ImportError
    )


# Realised rates of DropBlock, where 10 % was asked.

N, C, P = 400, 16, 0.1


def dropped(y):
    """The mean share of zeros, and 6 standard errors of it, over N·C maps."""
    shares = y.eq(0).double().flatten(2).mean(2).flatten()
    return shares.mean().item(), 6 * shares.std().item() / math.sqrt(len(shares))


def ours(size, block, exact):
    return dropped(thinned.drop_block(torch.ones(N, C, size, size), P, block, key=Key(5), exact_rate=exact))


@pytest.mark.parametrize(("size", "block"), [(14, 7), (7, 7), (9, 3), (28, 5)])
def test_exact_rate_is_what_was_asked(size, block):
    share, error = ours(size, block, exact=True)
    assert abs(share - P) <= error


@pytest.mark.parametrize(("size", "block"), [(14, 7), (7, 7), (9, 3), (28, 5), (5, 7)])
def test_the_papers_formula_is_torchvisions(size, block):
    ops = peer("torchvision.ops")
    torch.manual_seed(0)
    theirs, their_error = dropped(ops.drop_block2d(torch.ones(N, C, size, size), P, block))
    share, error = ours(size, block, exact=False)
    assert abs(share - theirs) <= math.hypot(error, their_error)


@pytest.mark.parametrize(("size", "least", "most"), [(14, 0.17, 0.23), (7, 0.90, 0.96)])
def test_timm_realises_more_than_was_asked(size, least, most):
    """Seeds fall on all places there, edges too, at a rate made for those where a whole block fits."""
    drop = peer("timm.layers.drop")
    torch.manual_seed(0)
    theirs, error = dropped(drop.drop_block_2d(torch.ones(N, C, size, size), P, 7, couple_channels=False))
    print(f"timm's drop_block_2d, {size}×{size}, block 7, 10 % asked: {theirs:.1%} ± {error:.1%}")
    assert least < theirs < most
    share, error = ours(size, 7, exact=True)
    assert abs(share - P) <= error


# DropPath.


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_drop_path_is_theirs(p):
    drop, ops = peer("timm.layers.drop"), peer("torchvision.ops")
    n = 20_000
    x = torch.ones(n, 3)
    torch.manual_seed(0)
    results = {
        "thinned": tnn.DropPath(p)(x),
        "timm": drop.drop_path(x, p, True),
        "torchvision": ops.stochastic_depth(x, p, "row"),
    }
    for name, y in results.items():
        kept = y[:, 0].ne(0)
        assert torch.equal(y.ne(0).all(1), kept), name
        torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / (1 - p)))
        assert abs(kept.double().mean().item() - (1 - p)) <= 6 * math.sqrt(p * (1 - p) / n), name
    batches = torch.stack([tnn.DropPath(p, "batch")(x[:4]) for _ in range(400)])
    assert torch.equal(batches.ne(0).flatten(1).any(1), batches.ne(0).flatten(1).all(1))
    assert abs(batches[:, 0, 0].ne(0).double().mean().item() - (1 - p)) <= 6 * math.sqrt(p * (1 - p) / 400)


# Surgery on their networks, built without weights.


def vit():
    build = peer("timm").create_model
    rates = {"drop_rate": 0.1, "proj_drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.1}
    model = build("vit_tiny_patch16_224", pretrained=False, img_size=32, num_classes=10, depth=2, **rates)
    return model, (torch.randn(4, 3, 32, 32),), {}


def efficientnet():
    model = peer("torchvision.models").efficientnet_b0(weights=None, num_classes=10)
    return model, (torch.randn(4, 3, 32, 32),), {}


def bert():
    library = peer("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = library.BertForSequenceClassification(library.BertConfig(vocab_size=50, **sizes))
    return model, (), {"input_ids": torch.arange(20).reshape(4, 5), "labels": torch.tensor([0, 1, 0, 1])}


def gpt2():
    library = peer("transformers")
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
    tokens = {"bos_token_id": 0, "eos_token_id": 1}
    model = library.GPT2LMHeadModel(library.GPT2Config(vocab_size=50, **sizes, **tokens))
    x = torch.arange(20).reshape(4, 5)
    return model, (), {"input_ids": x, "labels": x}


CASES = {  # how many are replaced, and what the report says of the rest
    vit: (12, {"blocks.0.attn": "fused attention"}),
    efficientnet: (1 + 16, {}),
    bert: (8, {"bert.encoder.layer.0.attention.self": "torch.nn.functional.dropout"}),
    gpt2: (7, {"transformer.h.1.attn": "torch.nn.functional.dropout"}),
}


def loss_of(output):
    return output.square().mean() if isinstance(output, torch.Tensor) else output.loss


@pytest.mark.parametrize("build", CASES, ids=lambda build: build.__name__)
def test_surgery(build):
    torch.manual_seed(0)
    model, args, kwargs = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        plain = loss_of(model(*args, **kwargs))
    count, reasons = CASES[build]
    report = tnn.swap_dropout(model)
    assert len(report.replaced) == count
    assert not [m for m in model.modules() if type(m) in (nn.Dropout, nn.Dropout2d)]
    for name, why in reasons.items():
        assert why in report.unreached[name]
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    with torch.no_grad():
        assert torch.equal(loss_of(model(*args, **kwargs)), plain), "evaluation is as it was"

    model.train()
    tnn.set_rate(model, 0.25)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(2):
        with tnn.keyed(model, Key(0), step):
            loss = loss_of(model(*args, **kwargs))
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert math.isfinite(loss.item())
    assert not torch.equal(next(iter(model.parameters())), next(iter(before.values())))
    tnn.swap_dropout(model, back=True)
    assert loss_of(model(*args, **kwargs)).isfinite()


def test_a_swapped_vit_compiles_whole():
    model, args, _ = vit()
    tnn.swap_dropout(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(*args).sum().backward()
    assert all(w.grad is not None for w in model.parameters())


def test_the_example_of_timm_trains(capsys):
    """By timm's conventions: its rates along the depth, its factories; guessing would err on 90 %."""
    peer("timm")
    example = load("timm_digits")
    model = example.build()
    rates = [module.drop_prob for module in model.modules() if type(module).__name__ == "DropPath"]
    error = example.main(["--epochs", "5"])
    shown = capsys.readouterr().out
    assert "rates along the depth: " + " ".join(f"{rate:.3f}" for rate in rates) in shown
    assert error < 0.5
