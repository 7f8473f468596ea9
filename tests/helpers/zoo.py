"""Small networks of other libraries, built without weights: each with an input, and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

IMAGE, TOKENS = (4, 3, 32, 32), 50
RATES = {"drop_rate": 0.3, "drop_path_rate": 0.3}


def library(name):
    return pytest.importorskip(
        name, reason=f"{name} is not installed: make peers installs it", exc_type=ImportError
    )


@dataclass
class Animal:
    """A network and one batch for it."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def batch(self) -> Any:
        """The batch as `predict` takes it."""
        return self.kwargs or (self.args[0] if len(self.args) == 1 else self.args)

    def run(self, model: nn.Module | None = None) -> Tensor:
        """The output: its first floating-point tensor."""
        return first_tensor((self.model if model is None else model)(*self.args, **self.kwargs))


def first_tensor(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    values = output.values() if hasattr(output, "values") else output
    return next(first_tensor(value) for value in values if value is not None)


def timm(name: str, **options: Any) -> Callable[[], Animal]:
    def build() -> Animal:
        model = library("timm").create_model(name, pretrained=False, num_classes=5, **options)
        return Animal(model, (torch.randn(IMAGE),))

    return build


def mixer() -> Animal:
    build = library("timm.models.mlp_mixer").MlpMixer
    sizes = {"img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 16, "num_classes": 5}
    model = build(**sizes, proj_drop_rate=0.2, **RATES)
    nn.init.normal_(model.head.weight)  # which begins at 0
    return Animal(model, (torch.randn(IMAGE),))


def transformers(
    kind: str, config: str, *, audio: bool = False, image: bool = False, **sizes: Any
) -> Callable:
    def build() -> Animal:
        found = library("transformers")
        model = getattr(found, kind)(getattr(found, config)(**sizes))
        if audio:
            return Animal(model, (), {"input_values": torch.randn(2, 800)})
        if image:
            return Animal(model, (), {"pixel_values": torch.randn(IMAGE)})
        tokens = torch.arange(24).reshape(4, 6) % TOKENS
        more = {"decoder_input_ids": tokens} if kind.startswith("T5") else {}
        return Animal(model, (), {"input_ids": tokens, **more})

    return build


def bare(build: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]) -> Callable[[], Animal]:
    return lambda: Animal(*build())


class Attention(nn.Module):
    """Self-attention of torch, whose weights are dropped, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, dropout=0.3, batch_first=True)
        self.drop, self.line = nn.Dropout(0.3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(self.drop(self.attention(x, x, x, need_weights=False)[0]))


class Recurrent(nn.Module):
    """Three recurrent layers of torch with dropout between them, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, num_layers=3, dropout=0.3, batch_first=True)
        self.drop, self.line = nn.Dropout(0.3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(self.drop(self.lstm(x)[0][:, -1]))


def transformer() -> tuple[nn.Module, tuple[Tensor, ...]]:
    model = nn.Transformer(16, 4, 2, 2, 32, dropout=0.3, batch_first=True)
    return model, (torch.randn(4, 6, 16), torch.randn(4, 6, 16))


TEXT = {"vocab_size": TOKENS}
ZOO: dict[str, Callable[[], Animal]] = {
    "resnet": timm("resnet10t", drop_block_rate=0.1, drop_path_rate=0.3),
    "vit": timm(
        "vit_tiny_patch16_224", img_size=32, depth=2, proj_drop_rate=0.2, attn_drop_rate=0.2, **RATES
    ),
    "convnext": timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), **RATES),
    "swin": timm(
        "swin_tiny_patch4_window7_224",
        **{"img_size": 32, "window_size": 4, "depths": (2, 2), "num_heads": (2, 4), "embed_dim": 16},
        **{"attn_drop_rate": 0.2, **RATES},
    ),
    "efficientnet": timm("test_efficientnet", **RATES),
    "densenet": timm("densenet121", growth_rate=4, block_config=(2, 2), drop_rate=0.3),
    "mixer": mixer,
    "bert": transformers(
        "BertForSequenceClassification",
        "BertConfig",
        **{
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            **TEXT,
        },
    ),
    "gpt2": transformers(
        "GPT2LMHeadModel",
        "GPT2Config",
        **{"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32, **TEXT},
        **{"bos_token_id": 0, "eos_token_id": 1, "use_cache": False},
    ),
    "llama": transformers(
        "LlamaForCausalLM",
        "LlamaConfig",
        **{
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            **TEXT,
        },
        **{"attention_dropout": 0.3, "use_cache": False},
    ),
    "t5": transformers(
        "T5ForConditionalGeneration",
        "T5Config",
        **{"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, **TEXT},
        **{"dropout_rate": 0.3, "decoder_start_token_id": 0, "use_cache": False},
    ),
    "hf-vit": transformers(
        "ViTForImageClassification",
        "ViTConfig",
        image=True,
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
        **{"image_size": 32, "patch_size": 8},
        **{"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3},
    ),
    "wav2vec2": transformers(
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        audio=True,
        **{
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            **TEXT,
        },
        **{"conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2},
        **{"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "apply_spec_augment": False},
    ),
    "transformer": bare(transformer),
    "attention": bare(lambda: (Attention(), (torch.randn(4, 6, 16),))),
    "lstm": bare(lambda: (Recurrent(), (torch.randn(4, 6, 8),))),
}
