"""What can be said of it all, in sentences: only what the intervals separate is put in an order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmtok.compare.axes import axis_of
from mmtok.report.html import Content, Html, tag
from mmtok.report.numbers import FIGURES, number, spread, title
from mmtok.report.sources import Comparison, Run
from mmtok.report.story import Section, Story

JUDGED = (
    "psnr", "ssim", "LPIPS-alex", "LPIPS-vgg", "FD-EffLite0", "si_sdr", "mel", "pesq", "stoi", "prior_bits_per_sample",
    "linear_accuracy", "transformer_accuracy", "active_of_expected", "step_seconds",
)  # fmt: skip
"""Figures that get a sentence, in order."""
RATES = ("tokens_per_sample", "tokens_per_image", "tokens_per_second")
"""An arm without any of these quantizes nothing: a ceiling, and no rival."""


def verdict(story: Story) -> Section:
    """The sentences of each comparison, then those of runs by themselves."""
    parts: list[Content] = []
    for one in story.comparisons:
        if len(story.comparisons) > 1:
            parts.append(tag("h3", one.name))
        parts.append(tag("ul", [tag("li", said) for said in of_comparison(one, story)], class_="sentences"))
    if story.alone:
        if story.comparisons:
            parts.append(tag("h3", "Runs"))
        said = [_of_run(run, story) for run in story.alone]
        if len(said) > 1:
            said.append("One run of each: differences may be chance, so nothing is ranked.")
        parts.append(tag("ul", [tag("li", one) for one in said], class_="sentences"))
    return Section("verdict", "Verdict", "", tag("div", parts))


def of_comparison(comparison: Comparison, story: Story) -> list[Content]:
    """What a comparison says, headline first."""
    rivals = [arm for arm in comparison.arms if any(arm in comparison.summary.get(rate, {}) for rate in RATES)]
    said: list[Content] = []
    if missing := comparison.results["missing"]:
        said.append(f"{len(missing)} cells are not measured yet: what follows is of the others.")
    bits = {
        arm: one["mean"]
        for name in ("bits_per_sample", "bits_per_pixel", "bits_per_second")
        for arm, one in comparison.summary.get(name, {}).items()
        if arm in rivals
    } if len(rivals) > 1 else {}  # fmt: skip
    for name in JUDGED:
        axis, values = axis_of(name), comparison.values(name)
        higher = axis.higher if axis else None
        if higher is not None and values:
            said += _judged(comparison, story, name, {arm: values[arm] for arm in rivals if arm in values}, higher)
            said += _ceilings(comparison, story, name, rivals) if name in ("psnr", "si_sdr") else []
    if _rates_differ(comparison, rivals) and bits:
        said.append("The arms spend different bits: read each figure beside its rate, below.")
    return said


def _rates_differ(comparison: Comparison, rivals: Sequence[str]) -> bool:
    for name in ("bits_per_sample", "bits_per_pixel", "bits_per_second"):
        rates = [one["mean"] for arm, one in comparison.summary.get(name, {}).items() if arm in rivals]
        if rates and max(rates) > 1.02 * min(rates):
            return True
    return False


def _judged(
    comparison: Comparison, story: Story, name: str, values: Mapping[str, Sequence[float]], higher: bool
) -> list[Content]:
    from mmtok.compare.statistics import ranks

    single = [arm for arm, own in values.items() if len(own) < 2]
    ranked = {arm: own for arm, own in values.items() if len(own) > 1}
    heading = tag("strong", _heading(name))
    if len(values) < 2:
        return [[heading, ": ", *_listed(comparison, story, name, values), "."]] if values else []
    if len(ranked) < 2:
        if name != next(one for one in JUDGED if comparison.values(one)):
            return []
        return ["One seed an arm: there are no intervals, so nothing is ranked. mmtok compare --seeds 3 adds some."]
    places = ranks(ranked, higher)
    best = [arm for arm, place in places.items() if place[0] == 1]
    behind = [arm for arm in ranked if arm not in best]
    order = sorted(best, key=lambda arm: (-1 if higher else 1) * sum(ranked[arm]) / len(ranked[arm]))
    names = _listed(comparison, story, name, order)
    if len(best) == 1:
        said: list[Content] = [
            heading,
            ": ",
            *names,
            ", ahead of ",
            "the other" if len(behind) == 1 else "every other",
            ".",
        ]
    elif not behind:
        said = [heading, ": the intervals separate none of ", *names, "."]
    else:
        said = [heading, ": any of ", *names, " may be best; ", *_enumerated(comparison, story, behind)]
        said.append(" falls behind." if len(behind) == 1 else " fall behind.")
    if single:
        said += [" Not ranked, with one seed: ", *_enumerated(comparison, story, single), "."]
    return [said]


def _ceilings(comparison: Comparison, story: Story, name: str, rivals: Sequence[str]) -> list[Content]:
    free = [arm for arm in comparison.summary.get(name, {}) if arm not in rivals]
    if not free:
        return []
    return [["Nothing quantized, ", *_listed(comparison, story, name, free), ": the ceiling of this network."]]


def _heading(name: str) -> str:
    written = title(name)
    return written if name in FIGURES and written[:2].isupper() else written[0].upper() + written[1:]


def _listed(
    comparison: Comparison, story: Story, name: str, arms: Sequence[str] | Mapping[str, object]
) -> list[Content]:
    """`a (1.0 ± 0.1 dB), b (...)`."""
    unit = FIGURES[name].unit if name in FIGURES else ""
    parts: list[list[Content]] = []
    for arm in arms:
        one = comparison.summary[name][arm]
        centre, half = spread(one["mean"], one["half"])
        written = centre + (f" ± {half}" if half not in ("", "0") else "") + (f" {unit}" if unit else "")
        parts.append([story.named(comparison.prefix + arm), " ", tag("span", written, class_="figure")])
    return _joined(parts)


def _enumerated(comparison: Comparison, story: Story, arms: Sequence[str]) -> list[Content]:
    return _joined([[story.named(comparison.prefix + arm)] for arm in arms])


def _joined(parts: Sequence[Sequence[Content]]) -> list[Content]:
    found: list[Content] = []
    for i, part in enumerate(parts):
        if i:
            found.append(" and " if i == len(parts) - 1 else ", ")
        found += part
    return found


def _of_run(run: Run, story: Story) -> Html:
    """State, quality, use of the codes and alarms of one run."""
    planned = run.config.get("trainer", {}).get("max_steps")
    done = run.log.last_step
    said: list[Content] = [story.named(run.series), " "]
    if done:
        said.append(f"stands at step {done:,}" + (f" of {planned:,}" if isinstance(planned, int) else ""))
    figures = [name for name in ("psnr", "si_sdr") if name in run.metrics or f"val/{name}" in run.log.columns]
    for name in figures:
        measured = run.metrics.get(name)
        reached = run.log.last(f"val/{name}") if measured is None else measured
        where = f" over {run.report['samples']:,} items" if measured is not None and "samples" in run.report else ""
        said += ["; ", tag("span", f"{title(name)} {number(reached)} dB", class_="figure"), where]
    if run.usage:
        worst = min(run.usage, key=lambda level: level["active"])
        used = " (worst level)" if len(run.usage) > 1 else ""
        said.append(f"; {worst['active']:.0%} of {worst['size']:,} codes in use{used}")
    standing = [
        name.removeprefix("alarm/") for name in run.log.columns if name.startswith("alarm/") and run.log.last(name)
    ]
    said.append(f"; alarm: {', '.join(standing)}" if standing else "; no alarm stands" if done else "")
    return tag("span", said, ".")
