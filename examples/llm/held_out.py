"""The things that were held out, as a language model reads them, and how likely it thinks they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.shards import ShardSet
from mmtok.export.token_shards import TokenSet
from mmtok.export.vocab_map import Vocabulary

BATCH = 64


@dataclass(frozen=True)
class Item:
    """A picture or a sound with its caption."""

    key: str
    language: str
    caption: str
    text: list[int]
    """Ids of "fr: Un hibou."."""
    ids: list[int]
    """Of its codes, from start to end."""
    topic: str

    @property
    def codes(self) -> list[int]:
        """Its ids without start and end."""
        return self.ids[1:-1]


def items(codes: Path, vocabulary: Vocabulary, prefix: str, tokenizer: Any) -> list[Item]:
    """All samples of a set of codes.

    Args:
        codes: what `mmtok tokenize` wrote.
        vocabulary: of these codes.
        prefix: theirs in it.
        tokenizer: of the text.
    """
    opened = TokenSet(ShardSet.open(codes))
    classes = opened.shards.manifest.classes
    found = []
    for shard, count in enumerate(opened.shards.counts.tolist()):
        for sample in range(count):
            key, members = opened.shards.read(shard, sample)
            ids = vocabulary.to_ids(opened.codes(members, key), vocabulary.spec(prefix))[0].tolist()
            line = members["txt"].decode()
            language, _, caption = line.partition(": ")
            topic = classes[int(members["cls"])] if "cls" in members else ""
            found.append(Item(key, language, caption, tokenizer(line).input_ids, ids, topic))
    return found


@torch.inference_mode()
def log_likelihoods(model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[Tensor]:
    """log p of each id of each answer after its prompt, in nats: a tensor (n,) for each."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(answers[i]))
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        rows = [torch.tensor([*prompts[i], *answers[i]]) for i in chosen]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # at the end: what comes after is not seen
        logits = model(ids[:, :-1]).logits
        nats = -F.cross_entropy(logits.float().mT, ids[:, 1:], reduction="none")
        for i, row in zip(chosen, nats, strict=True):
            first = len(prompts[i]) - 1
            found[i] = row[first : first + len(answers[i])].clone()
    return [found[i] for i in range(len(prompts))]
