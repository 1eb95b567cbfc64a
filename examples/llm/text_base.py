"""A text tokenizer of the captions, for the base of `mmtok vocab merge`; elsewhere the language model brings one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from datamodules.shards import ShardSet

BEGIN, END, PAD = SPECIALS = ("<|begin|>", "<|end|>", "<|pad|>")
"""Around each document, and after the last of a row."""


def captions(shards: Path) -> Iterator[str]:
    """Of all samples of a set, in its order."""
    opened = ShardSet.open(shards)
    for shard, count in enumerate(opened.counts.tolist()):
        for sample in range(count):
            yield opened.read(shard, sample, ("txt",)).members["txt"].decode()


def write_base(shards: Path, out: Path, size: int) -> None:
    """Learn byte pairs of the captions of a shard set.

    Args:
        shards: pictures to train on.
        out: folder for `AutoTokenizer`.
        size: ids, of which 256 are bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(captions(shards), trainer)
    named = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(str(out))
