"""What `mmtok evaluate` measures and shows of a tokenizer of vectors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.base import DataConfig
    from mmtok.cli.subject import Job
    from mmtok.codes import CodeSpec
    from mmtok.evaluation import EvaluationReport
    from mmtok.tokenizers.base import Tokenizer
    from mmtok.tokenizers.vector import VectorTokenizer

OPTIONS: dict[str, dict[str, Any]] = {
    "--against": {
        "metavar": "RUN", "help": "of vectors: another seed of the recipe, and how much of the codes they share",
    }
}  # fmt: skip
EXAMPLES = 1


def takes(tokenizer: Tokenizer) -> bool:
    """Whether this is a tokenizer of vectors."""
    from mmtok.tokenizers.vector import VectorTokenizer

    return isinstance(tokenizer, VectorTokenizer)


def data_of(spec: CodeSpec, common: Mapping[str, Any]) -> DataConfig:
    """The data of a tokenizer without a run."""
    from datamodules.vectors import VectorsConfig

    return VectorsConfig(width=spec.channels, **common)


def adjust(data: DataConfig, args: argparse.Namespace) -> DataConfig:
    """The whole corpus where no set is named: how codes collide depends on how many items there are."""
    from dataclasses import replace

    from datamodules.base import datamodules
    from datamodules.remote import shown

    if args.shards is None:
        module: Any = datamodules.build(data)
        homes = dict.fromkeys(shown(one.home) for one in (*module.training_sets(), *module.validation_sets()))
        data = replace(data, val_shards=tuple(homes))
    return data if args.samples is not None else replace(data, val_samples=sys.maxsize)


def measure(job: Job) -> None:
    """Measure, write, and tell."""
    from mmtok.evaluation.vector import evaluate_vectors
    from mmtok.tokenizers.vector import VectorTokenizer

    assert isinstance(job.tokenizer, VectorTokenizer)
    notes = job.notes if job.args.against is None else {**job.notes, "against": job.args.against}
    report = evaluate_vectors(
        job.tokenizer, job.held_out, against=other(job.args.against), device=job.device, notes=notes
    )
    report.save(job.target)
    print(summary(report))
    print(table(report))


def other(path: str | None) -> VectorTokenizer | None:
    """The tokenizer that `--against` names.

    Raises:
        ValueError: it is none of vectors.
    """
    from mmtok.loading import load
    from mmtok.tokenizers.vector import VectorTokenizer

    if path is None:
        return None
    tokenizer = load(path)
    if not isinstance(tokenizer, VectorTokenizer):
        raise ValueError(f"--against={path} is of modality '{tokenizer.spec.modality}', and this run is of vectors.")
    return tokenizer


def summary(report: EvaluationReport) -> str:
    """The figures a person looks for first."""
    m, usage = report.metrics, report.usage
    near, by_chance = (_share(one) for one in (m["knn_recall"], report.choices["shuffled"]["metrics"]["knn_recall"]))
    used = ", ".join(f"{level['active']:.1%} {level['state']}" for level in usage)
    lines = [
        f"{report.samples:,} vectors: {m['collision_rate']:.2%} collide, {m['collisions_beyond_duplicates']:.2%} "
        f"beyond equal vectors ({m['duplicates']:.2%}); the largest group has {m['max_group']:.0f}",
        f"codes in use: {used}; {m['slots_per_item']:,.0f} slots an item, {m['joint_active']:.1%} of the names there "
        "could be",
        f"mse {m['mse']:.3f} (1 is the mean vector); {near} of the 10 nearest neighbours are nearest by codes "
        f"({by_chance} shuffled)",
    ]
    if "stability" in m:
        lines.append(
            f"against {report.choices['against']}: {m['stability']:.1%} of the nearest by codes are the same; adjusted "
            f"Rand index of the first level {m['first_level_rand']:.3f}"
        )
    return "\n".join(lines)


def _share(value: float) -> str:
    return "n/a" if value != value else f"{value:.1%}"


def table(report: EvaluationReport) -> str:
    """A row for each length of a shared prefix."""
    own, shuffled = report.choices["coherence"], report.choices["shuffled"]["coherence"]
    if not own:
        return "no two different vectors to compare: what shared codes mean cannot be told"
    names = [name for name in ("cosine", "purity") if name in own[0]]
    lines = ["shared codes  " + "  ".join(f"{name:>8}  {'shuffled':>8}" for name in names)]
    beside = {row["prefix"]: row for row in shuffled}
    for row in own:
        cells = []
        for name in names:
            there = beside.get(row["prefix"])
            cells += [f"{row[name]:8.3f}", f"{there[name]:8.3f}" if there else f"{'-':>8}"]
        lines.append(f"{row['prefix']:12.0f}  " + "  ".join(cells))
    return "\n".join(lines)
