"""A small Llama, trained from nothing by the stock `Trainer` on what `mmtok pack --to parquet` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from mmtok.export.embed_init import install
from mmtok.export.vocab_map import Vocabulary

IGNORED = -100
"""What the loss of transformers leaves out."""


@dataclass(frozen=True)
class Shape:
    """Of the model and its training."""

    hidden: int
    """Width, a multiple of 32."""
    layers: int
    steps: int
    """Of 16 rows each."""
    threads: int


class Packed(Dataset):
    """Rows of documents. Positions begin anew with each, by which transformers keeps attention inside a document."""

    def __init__(self, folder: Path) -> None:
        """Read all parquet files of a folder."""
        tables = [pq.read_table(file, columns=["input_ids", "lengths"]) for file in sorted(folder.glob("*.parquet"))]
        self.rows = [row for table in tables for row in table.to_pylist()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids, lengths = torch.tensor(self.rows[index]["input_ids"]), self.rows[index]["lengths"]
        lengths = [*lengths, len(ids) - sum(lengths)]  # the padding, as a document without labels
        positions = torch.cat([torch.arange(length) for length in lengths])
        labels = ids.masked_fill(positions == 0, IGNORED)  # no document tells how the next one begins
        labels[len(ids) - lengths[-1] :] = IGNORED
        return {"input_ids": ids, "position_ids": positions, "labels": labels}


def new_model(vocab: Path, shape: Shape) -> LlamaForCausalLM:
    """A model of the text alone, widened to the whole vocabulary by the rows of `embed_init.safetensors`."""
    text = AutoTokenizer.from_pretrained(vocab)
    config = LlamaConfig(
        vocab_size=Vocabulary.read(vocab).text,
        hidden_size=shape.hidden,
        intermediate_size=shape.hidden * 8 // 3 // 32 * 32,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 32,
        max_position_embeddings=1024,
        attention_dropout=0.1,
        tie_word_embeddings=True,
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    install(model, vocab)
    return model


def train(packed: Path, vocab: Path, out: Path, shape: Shape) -> None:
    """Train on packed/train; keep what does best on packed/val; go on from the last checkpoint, if there is one."""
    torch.set_num_threads(shape.threads)
    often = max(1, shape.steps // 10)
    arguments = TrainingArguments(
        output_dir=str(out / "checkpoints"),
        max_steps=shape.steps,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=16,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=shape.steps // 20,
        weight_decay=0.1,
        adam_beta2=0.95,
        eval_strategy="steps",
        eval_steps=often,
        save_steps=often,
        save_total_limit=2,
        load_best_model_at_end=True,
        logging_steps=max(1, shape.steps // 50),
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    model = new_model(vocab, shape)
    print(f"{model.num_parameters() / 1e6:.2f} M parameters, {model.config.vocab_size:,} ids", flush=True)
    trainer = Trainer(model, arguments, train_dataset=Packed(packed / "train"), eval_dataset=Packed(packed / "val"))
    found = get_last_checkpoint(arguments.output_dir) if (out / "checkpoints").is_dir() else None
    trainer.train(resume_from_checkpoint=found)
    trainer.save_model(str(out))
    AutoTokenizer.from_pretrained(vocab).save_pretrained(str(out))
