"""What was found wrong with shards: counted in full, named up to a limit, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

MAX_NAMED = 1000
"""Findings kept by name; the rest is counted."""

Category = Literal["damaged", "mismatch", "refused", "undecodable", "not decoded"]
"""A tar that cannot be followed; a size, hash, count or index that differs; a member that is not taken; content that is
not what its extension says; an extension that is not on the whitelist, and therefore never loaded."""
HARMLESS: tuple[Category, ...] = ("not decoded",)


class Finding(NamedTuple):
    shard: str
    category: Category
    name: str
    """The member or key; empty where it is the whole shard."""
    reason: str


@dataclass
class ShardReport:
    """What looking through a shard set brought up."""

    title: str
    shards: int = 0
    samples: int = 0
    reused: int = 0
    """Shards that an earlier run had looked through already."""
    counts: Counter[Category] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, shard: str, category: Category, name: str, reason: str, count: int = 1) -> None:
        """Count a finding, and keep its name while there is room."""
        self.counts[category] += count
        if len(self.findings) < MAX_NAMED:
            self.findings.append(Finding(shard, category, name, reason))

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; members that nobody decodes are not."""
        return all(category in HARMLESS for category in self.counts)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.title,
            "ok": self.ok,
            "shards": self.shards,
            "samples": self.samples,
            "reused": self.reused,
            "counts": dict(self.counts),
            "findings": [finding._asdict() for finding in self.findings],
        }

    def text(self, most: int = 50) -> str:
        """For people: a line of sums, then the findings by name."""
        found = ", ".join(f"{count:,} {category}" for category, count in sorted(self.counts.items())) or "nothing wrong"
        lines = [f"{self.title}: {self.shards:,} shards, {self.samples:,} samples: {found}"]
        lines += [
            f"  {shard}  {category}  {name + ': ' if name else ''}{reason}"
            for shard, category, name, reason in self.findings[:most]
        ]
        hidden = sum(self.counts.values()) - min(len(self.findings), most)
        return "\n".join([*lines, f"  ... and {hidden:,} more"] if hidden > 0 else lines)
