"""Figures in tables: means with intervals and places of comparisons, evaluations of runs, codecs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmtok.compare.axes import GROUPS, axis_of, columns_of
from mmtok.report.html import Content, tag
from mmtok.report.numbers import title, titled
from mmtok.report.sections.widgets import by_group
from mmtok.report.sources import Comparison
from mmtok.report.story import Section, Story
from mmtok.report.tables import Cell, Column, interval, table, value

RUN_FIGURES = (
    "psnr", "ssim", "LPIPS-alex", "LPIPS-vgg", "FD-EffLite0", "KID-EffLite0", "si_sdr", "mel", "stft", "pesq", "stoi",
    "dnsmos", "high_frequency_ratio", "quantization_gap", "bits_per_pixel", "tokens_per_image", "bits_per_second",
    "tokens_per_second", "bytes_per_token", "characters_per_token", "exact", "bits_per_byte", "fallback_share",
    "worst_language", "worst_parity", "vocabulary", "vocabulary_used", "unreached", "renyi_efficiency",
    "encode_mb_per_second",
    "mse", "collision_rate", "collisions_beyond_duplicates", "max_group", "slots_per_item", "knn_recall", "stability",
)  # fmt: skip
"""Of an evaluation, in this order where it has them."""


def results(story: Story) -> Section | None:
    """A table a group of figures."""
    blocks: list[tuple[str, Content]] = []
    for one in story.comparisons:
        before = one.prefix
        parts = _groups(one, story, before) + _codecs(one, before)
        for heading in ("Notes", "Missing"):
            if lines := one.results.get(heading.lower()):
                listed = tag("ul", [tag("li", line) for line in lines])
                parts.append(tag("div", tag("h3", f"{before}{heading}"), listed))
        blocks.append((one.prefix + one.arms[0], tag("div", parts, class_="tables")))
    if evaluated := _evaluations(story):
        blocks.append((story.alone[0].series, tag("div", evaluated, class_="tables")))
    lead = (
        "Means over seeds ± half a 95 % interval. The number behind is the places an arm may have: where intervals of "
        "the differences do not separate two arms, they share places." if story.comparisons else ""
    )  # fmt: skip
    return Section("tables", "Figures", lead, tag("div", by_group(story, blocks))) if blocks else None


def _evaluations(story: Story) -> list[Content]:
    """A table a kind of signal, of runs by themselves."""
    evaluated = [run for run in story.alone if run.metrics]
    kinds = list(dict.fromkeys(run.modality for run in evaluated))
    found: list[Content] = []
    for kind in kinds:
        own = [run for run in evaluated if run.modality == kind]
        names = [name for name in RUN_FIGURES if any(name in run.metrics for run in own)]
        columns = [Column(titled(name), title(name), _higher(name)) for name in names]
        rows = [
            [Cell(story.named(run.series), run.name, run.name), *(value(run.metrics.get(name)) for name in names)]
            for run in own
        ]
        name = f"Evaluation: {kind}" if len(kinds) > 1 else "Evaluation"
        found.append(table(name, [Column("run", numeric=False), *columns], rows))
    return found


def _groups(comparison: Comparison, story: Story, before: str) -> list[Content]:
    summary = comparison.summary
    found: list[Content] = []
    for group in GROUPS:
        shown = columns_of(group, summary)
        if not shown:
            continue
        columns = [Column(titled(name), _what(name), _higher(name)) for name in shown]
        rows = []
        for arm in comparison.arms:
            series = comparison.prefix + arm
            row = [Cell(story.named(series), arm, arm)]
            for name in shown:
                one = summary[name].get(arm)
                place = tuple(one["place"]) if one and one["place"] else None
                ranked = sum(1 for other in summary[name].values() if other["place"])
                row.append(Cell("–") if one is None else interval(one["mean"], one["half"], place, ranked))
            rows.append(row)
        found.append(table(before + group, [Column("arm", numeric=False), *columns], rows))
    return found


def _codecs(comparison: Comparison, before: str) -> list[Content]:
    rows = comparison.results.get("codecs", [])
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"] if axis_of(name)))
    columns = [Column("codec", numeric=False), Column("beside arms at"), Column(f"rate ({rows[0]['unit']})")]
    columns += [Column(titled(name), _what(name), _higher(name)) for name in names]
    body = [
        [
            Cell(row["codec"], row["codec"]),
            value(row.get("beside")),
            _rate(row),
            *(value(row["metrics"].get(name)) for name in names),
        ]
        for row in rows
    ]
    return [table(f"{before}Codecs at these rates", columns, body)]


def _rate(row: Mapping[str, Any]) -> Cell:
    """Of a codec; marked where it is the least it has, and above the arms'."""
    plain = value(row["rate"])
    return plain if row.get("reached", True) else plain._replace(content=[plain.content, ", least"])


def _what(name: str) -> str:
    axis = axis_of(name)
    return axis.what if axis else ""


def _higher(name: str) -> bool | None:
    axis = axis_of(name)
    return axis.higher if axis else None
