"""What was learned, on held-out things: each modality against the unigram of its codes, captions against chance."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from math import log, log2
from pathlib import Path
from typing import Any

import torch
from held_out import Item, items, log_likelihoods
from transformers import AutoTokenizer, LlamaForCausalLM

from mmtok.export.vocab_map import Vocabulary

MODALITIES = {"img": "image", "aud": "audio"}
BITS = 1 / log(2)


def write_report(out: Path, threads: int) -> dict[str, Any]:
    """Measure the model in out/lm; write out/report.json and print it as tables."""
    torch.set_num_threads(threads)
    vocabulary, text = Vocabulary.read(out / "vocab"), AutoTokenizer.from_pretrained(out / "vocab")
    judge = Judge(LlamaForCausalLM.from_pretrained(out / "lm").eval(), text.bos_token_id, text.eos_token_id)
    report: dict[str, Any] = {}
    for prefix, name in MODALITIES.items():
        if not (out / "codes" / f"{name}-val").is_dir():
            continue
        seen, new = (items(out / "codes" / f"{name}-{split}", vocabulary, prefix, text) for split in ("train", "val"))
        spec = vocabulary.spec(prefix)
        learned = [code for item in seen for code in item.codes]
        price, entropy = unigram(learned, vocabulary.find(spec).blocks, spec.codebook_sizes)
        report[name] = {
            "codes": {"unigram_entropy": entropy} | judge.codes(new, price),
            "lengths": lengths(new),
            "captions": {
                language: judge.captions(
                    *([item for item in each if item.language == language] for each in (new, seen))
                )
                for language in sorted({item.language for item in new})
            },
        }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(tables(report))
    return report


def lengths(items: Sequence[Item]) -> dict[str, float]:
    """Codes of an item: mean, fewest and most."""
    counts = [len(item.codes) for item in items]
    return {"mean": sum(counts) / len(counts), "fewest": min(counts), "most": max(counts)}


def unigram(codes: Sequence[int], blocks: Sequence[int], sizes: Sequence[int]) -> tuple[dict[int, float], float]:
    """Bits of each id by how often it occurs among those of its level, each counted once more; and their mean.

    Level by level: which level comes next is layout, and no news to the model either.
    """
    counts = Counter(codes)
    price: dict[int, float] = {}
    for start, size in zip(blocks, sizes, strict=True):
        level = range(start, start + size)
        total = sum(counts[code] + 1 for code in level)
        price |= {code: -log2((counts[code] + 1) / total) for code in level}
    return price, sum(price[code] for code in codes) / len(codes)


def rank(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(things, captions) scores, (things,) the right ones -> how many captions are before them; equals count half."""
    own = scores.gather(1, right[:, None])
    return (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2


def pairs_as_long(scores: torch.Tensor, right: torch.Tensor, names: Sequence[str]) -> float:
    """How often the right caption's score is above a wrong one's of about as many letters; equal ones count half."""
    letters = torch.tensor([len(name) for name in names])
    alike = (letters[right][:, None] - letters).abs() <= 2
    alike[torch.arange(len(right)), right] = False
    own = scores.gather(1, right[:, None])
    won = (own > scores) + (own == scores) / 2
    return won[alike].mean().item() if alike.any() else 0.5


def by_length(new: Sequence[Item], names: Sequence[str], seen: Sequence[Item]) -> torch.Tensor:
    """(things, captions) scores of who has only learned how long a signal is for a caption of some length."""
    if not seen:
        return torch.zeros(len(new), len(names))
    letters = torch.tensor([[len(item.caption), 1.0] for item in seen])
    slope = torch.linalg.lstsq(letters, torch.tensor([[float(len(item.ids))] for item in seen])).solution
    expected = torch.tensor([[len(name), 1.0] for name in names]) @ slope
    # Rounded: signals of one length, such as pictures, shall say nothing.
    return -(torch.tensor([[float(len(item.ids))] for item in new]) - expected.mT).abs().round(decimals=3)


class Judge:
    """How well a language model knows things that it has not met."""

    def __init__(self, model: Any, begin: int, end: int) -> None:
        self.model, self.begin, self.end = model, [begin], [end]

    def codes(self, new: Sequence[Item], price: dict[int, float]) -> dict[str, float]:
        """Bits a code: under the unigram of training, and under the model with, without and with a wrong caption."""
        others = [new[(place + len(new) // 2) % len(new)] for place in range(len(new))]

        def bits(captions: Sequence[list[int]]) -> float:
            prompts = [[*self.begin, *caption, item.ids[0]] for caption, item in zip(captions, new, strict=True)]
            nats = log_likelihoods(self.model, prompts, [item.codes for item in new])
            return -torch.cat(nats).mean().item() * BITS

        all_codes = [code for item in new for code in item.codes]
        return {
            "samples": len(new),
            "codes": len(all_codes),
            "unigram": sum(price[code] for code in all_codes) / len(all_codes),
            "model": bits([item.text for item in new]),
            "model_without_caption": bits([[] for _ in new]),
            "model_with_wrong_caption": bits([item.text for item in others]),
        }

    def captions(self, new: Sequence[Item], seen: Sequence[Item]) -> dict[str, float]:
        """How often the right caption is found among all different ones of some samples.

        A caption is judged by how much likelier it is after the signal than without one, or "The letter a." would
        always win. `pairs` is how often the right one beats a wrong one, of which chance is a half, and `pairs_as_long`
        a wrong one with as many letters, give or take two: long names take long to say, and `pairs_by_length` is for
        who knows nothing of a signal but how long it is.
        """
        texts = {item.caption: item.text for item in new}
        names = list(texts)
        scores = self._likelihoods([item.ids for item in new], list(texts.values()))
        scores = scores - self._likelihoods([[]], list(texts.values()))
        right = torch.tensor([names.index(item.caption) for item in new])
        ranks = rank(scores, right)
        topics = {item.caption: item.topic for item in new}
        best = [topics[names[place]] for place in scores.argmax(1).tolist()]
        shares = Counter(topics.values())
        return {
            "samples": len(new),
            "choices": len(names),
            "topics": len(shares),
            "right": (ranks < 1).float().mean().item(),
            "chance": 1 / len(names),
            "among_five": (ranks < 5).float().mean().item(),
            "chance_of_five": min(1.0, 5 / len(names)),
            "pairs": 1 - ranks.mean().item() / max(1, len(names) - 1),
            "pairs_as_long": pairs_as_long(scores, right, names),
            "pairs_by_length": 1 - rank(by_length(new, names, seen), right).mean().item() / max(1, len(names) - 1),
            "topic": sum(topic == item.topic for topic, item in zip(best, new, strict=True)) / len(new),
            "chance_of_topic": sum(shares[item.topic] / len(names) for item in new) / len(new),
        }

    def _likelihoods(self, signals: Sequence[list[int]], texts: Sequence[list[int]]) -> torch.Tensor:
        """(signals, texts) log p of each whole text after each signal."""
        prompts = [[*self.begin, *signal] for signal in signals for _ in texts]
        nats = log_likelihoods(self.model, prompts, [text + self.end for _ in signals for text in texts])
        return torch.stack([one.sum() for one in nats]).reshape(len(signals), len(texts))


def tables(report: dict[str, Any]) -> str:
    """The figures as two tables of Markdown; what chance gives is in brackets."""
    keys = ("unigram", "model", "model_without_caption", "model_with_wrong_caption")
    heading = "| bits a code | samples | codes of each | unigram | model | without caption | wrong caption |"
    lines = [heading, "|---|" + "---:|" * 6]
    for name, found in report.items():
        code, size = found["codes"], found["lengths"]
        each = f"{size['mean']:.1f} ({size['fewest']} to {size['most']})"
        lines.append(_row(name, code["samples"], each, *(f"{code[key]:.2f}" for key in keys)))
    wins = "beats a wrong one | that is as long | by length alone"
    lines += [
        "",
        f"| caption of | samples | choices | right | among five | {wins} | right topic |",
        "|---|" + "---:|" * 8,
    ]
    for name, found in report.items():
        for language, one in found["captions"].items():
            right = f"{one['right']:.1%} ({one['chance']:.1%})"
            five = f"{one['among_five']:.1%} ({one['chance_of_five']:.1%})"
            topic = f"{one['topic']:.1%} ({one['chance_of_topic']:.1%})" if one["topics"] > 1 else ""
            pairs = f"{one['pairs']:.1%} (50 %)"
            alike, length = f"{one['pairs_as_long']:.1%}", f"{one['pairs_by_length']:.1%}"
            lines.append(
                _row(f"{name}, {language}", one["samples"], one["choices"], right, five, pairs, alike, length, topic)
            )
    return "\n".join(lines)


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
