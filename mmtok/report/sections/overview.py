"""What ran on what: data, network, quantizer, length and machine of each run, and the settings that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmtok.report.html import Content, tag
from mmtok.report.sources import Run
from mmtok.report.story import Section, Story
from mmtok.report.tables import Cell, Column, table

UNTOLD = ("run_dir", "seed", "log.", "checkpoint.", "data.workers", "trainer.threads")
"""Settings that say nothing of what was learned, or stand elsewhere."""
SHOWN = 40
"""Settings at most."""


def overview(story: Story) -> Section:
    """Two tables, and how figures were measured."""
    columns = [
        Column("run", numeric=False), Column("seed"), Column("signal", numeric=False), Column("network", numeric=False),
        Column("quantizer", numeric=False), Column("trained on", numeric=False), Column("measured on", numeric=False),
        Column("steps"), Column("batch"), Column("precision", numeric=False),
    ]  # fmt: skip
    parts: list[Content] = [table("What ran on what", columns, [_row(run, story) for run in story.runs])]
    if differing := _differing(story):
        parts.append(differing)
    parts += [_definitions(story)]
    return Section("setup", "What ran on what", "Read off each run's resolved configuration.", tag("div", parts))


def _row(run: Run, story: Story) -> list[Cell]:
    tokenizer, quantizer = run.config.get("tokenizer", {}), run.config.get("quantizer") or {}
    data, trainer = run.config.get("data", {}), run.config.get("trainer", {})
    encoder = tokenizer.get("encoder") or {}
    measured = run.report.get("choices", {}).get("data", {})
    count = (
        f" ({run.report['samples']:,} of {measured['of']:,})" if "of" in measured and "samples" in run.report else ""
    )
    return [
        Cell(tag("span", story.swatch(run.series), run.name, class_="named"), run.name, run.name),
        Cell(run.seed if run.seed is not None else "–", run.seed),
        Cell(run.modality, run.modality),
        Cell(str(encoder.get("name") or tokenizer.get("model", "–"))),
        Cell(_quantizer(quantizer)),
        Cell(_short(data.get("shards"))),
        Cell(_short(measured.get("set")) + count),
        Cell(f"{run.log.last_step:,}" if run.log.last_step else "–", run.log.last_step),
        Cell(str(data.get("batch_size", "–")), data.get("batch_size")),
        Cell(str(trainer.get("precision", "–"))),
    ]


def _quantizer(block: Mapping[str, Any]) -> str:
    """Its name, and what its size is given by."""
    said = [
        f"{key.replace('_', ' ')} {block[key]}"
        for key in ("codebook_size", "levels", "bits", "depth", "groups")
        if block.get(key)
    ]
    return " · ".join([str(block.get("name", "–")), *said])


def _short(sets: Any) -> str:
    if isinstance(sets, list | tuple):
        return " + ".join(_short(one.get("path") if isinstance(one, Mapping) else one) for one in sets)
    return "/".join(str(sets).rstrip("/").split("/")[-3:]) if sets else "–"


def _differing(story: Story) -> Content:
    """One row a setting that is not the same in all runs, one column a series."""
    from mmtok.layers import flatten

    first = {run.series: run for run in reversed(story.runs) if run.config}
    names = [one for one in story.series if one in first]
    if len(names) < 2:
        return None
    flat = {name: flatten(first[name].config) for name in names}
    keys = [key for key in dict.fromkeys(key for one in flat.values() for key in one) if not key.startswith(UNTOLD)]
    other = [key for key in keys if len({repr(flat[name].get(key)) for name in names}) > 1][:SHOWN]
    if not other:
        return None
    columns = [Column("setting", numeric=False), *(Column(name, numeric=False) for name in names)]
    rows = [
        [Cell(tag("code", key), key, key), *(Cell(str(flat[name].get(key, "–"))) for name in names)] for key in other
    ]
    summary = tag("summary", f"Settings that differ ({len(rows)})")
    return tag("details", summary, tag("div", table("Settings that differ", columns, rows), class_="folded"))


def _definitions(story: Story) -> Content:
    """How each figure is made, as the evaluations say it."""
    told: dict[str, str] = {}
    for run in story.runs:
        told |= run.report.get("choices", {}).get("definitions", {})
    for one in story.comparisons:
        told |= {name: axis["what"] for name, axis in one.results.get("axes", {}).items() if name not in told}
        told["intervals"] = one.results.get("confidence", "")
    if not told:
        return None
    listed = [[tag("dt", name), tag("dd", str(text))] for name, text in told.items() if text]
    return tag("details", tag("summary", "How each figure is made"), tag("dl", listed))
