"""The callback for transformers: rates, keys and thinning in a real training run of a tiny model."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from thinned import Key  # noqa: E402
from thinned.trainers.transformers import DropoutCallback  # noqa: E402


def fit(tmp_path, callback, accumulated=1):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=8, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    words = torch.randint(20, (16, 6), generator=torch.Generator().manual_seed(2))
    data = [{"input_ids": row, "labels": int(row[0] > 9)} for row in words]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=4, report_to=[], use_cpu=True,
        gradient_accumulation_steps=accumulated, logging_steps=1, save_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=data, callbacks=[callback])
    trainer.train()
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_rates_fall_and_are_logged(tmp_path):
    callback = DropoutCallback("early", until=1.0)
    trainer = fit(tmp_path, callback)
    logged = [row["dropout_p"] for row in trainer.state.log_history if "loss" in row]
    assert logged == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert "bert.embeddings.dropout" in callback.dropping.swapped.replaced


@pytest.mark.filterwarnings("ignore")
def test_the_key_decides_the_run(tmp_path):
    losses = []
    for seed, accumulated in ((1, 1), (1, 1), (2, 1), (1, 2)):
        trainer = fit(tmp_path, DropoutCallback(key=Key(seed)), accumulated)
        torch.manual_seed(seed)
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert len(losses[3]) == 4
