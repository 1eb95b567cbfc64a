"""Usage of large codebooks, over tokens enough to tell: a code that was never drawn is not yet a dead one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from mmtok.compare.asked import check_asked
from mmtok.compare.subject import Subject
from mmtok.evaluation.audio_quality import groups_of
from mmtok.evaluation.heldout import HeldOut, Signals
from mmtok.quantizers.usage import measure
from mmtok.tokenizers.base import evaluating


@dataclass(frozen=True)
class UsageConfig:
    """What `usage` is asked."""

    tokens_per_code: float = 32.0
    """Of the largest codebook: held-out items first, then training items, until there are so many."""

    def __post_init__(self) -> None:
        check_asked(self)


@torch.inference_mode()
def usage(subject: Subject, asked: UsageConfig) -> dict[str, Any]:
    """Share of codes in use over the share that uniform use of as many tokens would touch, least of the levels."""
    if not subject.sizes:
        return {"figures": {}, "absent": "nothing is quantized"}
    wanted = asked.tokens_per_code * max(subject.sizes)
    counts = [torch.zeros(size, dtype=torch.long) for size in subject.sizes]
    items = {"held-out": _count(subject, subject.held_out(1 << 40), counts, wanted)}
    if int(counts[0].sum()) < wanted:
        items["training"] = _count(subject, subject.training(1 << 40), counts, wanted)
    levels = [measure(one) for one in counts]
    found = {
        "tokens_per_code": min(level.tokens_per_code for level in levels),
        "usage_active": min(level.active for level in levels),
        "usage_of_expected": min(level.active_expected for level in levels),
        "usage_perplexity_norm": min(level.perplexity_norm for level in levels),
    }
    plain = [asdict(level) | {"state": str(level.state())} for level in levels]
    return {"figures": found, "levels": plain, "items": items}


def _count(subject: Subject, source: HeldOut, counts: list[torch.Tensor], wanted: float) -> int:
    """Add codes of items until a level has as many as wanted; how many items that took."""
    tokenizer, items = subject.tokenizer.to(subject.device), 0
    with evaluating(tokenizer):
        for group in groups_of(Signals(source), subject.device):
            latents = tokenizer.embed(group.x)
            ids = tokenizer.quantizer.encode(latents.z, latents.mask, grid=latents.grid).cpu()
            for level, one in enumerate(counts):
                used = ids[:, level].flatten()
                one += torch.bincount(used[used >= 0], minlength=len(one))
            items += len(group.x)
            if int(counts[0].sum()) >= wanted:
                break
    return items
