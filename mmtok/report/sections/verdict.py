"""What can be said of it all, in sentences: only what the intervals separate is put in an order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mmtok.compare.axes import axis_of
from mmtok.report.html import Content, Html, tag
from mmtok.report.numbers import FIGURES, spread, title
from mmtok.report.sources import Comparison, Run
from mmtok.report.story import Section, Story

JUDGED = (
    "psnr", "ssim", "LPIPS-alex", "LPIPS-vgg", "FD-EffLite0", "si_sdr", "mel", "pesq", "stoi", "prior_bits_per_sample",
    "linear_accuracy", "transformer_accuracy", "bits_lost_to_dependence", "active_of_expected", "usage_of_expected",
    "step_seconds",
)  # fmt: skip
"""Figures that get a sentence, in order."""
HEADLINES = ("psnr", "si_sdr", "bytes_per_token")
"""Of a run by itself: the figure of its kind of signals."""
RATES = ("tokens_per_sample", "tokens_per_image", "tokens_per_second")
"""An arm without any of these quantizes nothing: a ceiling, and no rival."""


def verdict(story: Story) -> Section:
    """The sentences of each comparison, then those of runs by themselves."""
    parts: list[Content] = []
    for heading, asks, said in sentences(story):
        parts.append(
            tag("div", tag("h3", heading) if heading else None, tag("p", asks, class_="asks") if asks else None)
        )
        parts.append(tag("ul", [tag("li", one) for one in said], class_="sentences"))
    return Section("verdict", "Verdict", "", tag("div", parts))


def sentences(story: Story) -> Iterator[tuple[str, str, list[Content]]]:
    """Heading, question and sentences of each part; a heading where there are several."""
    for one in story.comparisons:
        yield one.name if len(story.comparisons) > 1 else "", one.asks, of_comparison(one, story)
    if story.alone:
        yield "Runs" if story.comparisons else "", "", _of_runs(story.alone, story)


def of_comparison(comparison: Comparison, story: Story) -> list[Content]:
    """What a comparison says, headline first."""
    rivals = [arm for arm in comparison.arms if any(arm in comparison.summary.get(rate, {}) for rate in RATES)]
    said: list[Content] = []
    if missing := comparison.results["missing"]:
        said.append(f"{len(missing)} cells are not measured yet: what follows is of the others.")
    alike: list[str] = []
    for name in JUDGED:
        axis, values = axis_of(name), comparison.values(name)
        own = {arm: values[arm] for arm in rivals if arm in values}
        if axis is None or axis.higher is None or not own:
            continue
        said_of = _judged(comparison, story, name, own, axis.higher, headline=not said)
        said += said_of or []
        if said_of is None:
            alike.append(title(name))
        if name in ("psnr", "si_sdr"):
            said += _ceilings(comparison, story, name, rivals)
    if alike:
        said.append(f"The intervals separate nothing in {', '.join(alike)}.")
    if _rates_differ(comparison, rivals):
        said.append("The arms spend different bits: read each figure beside its rate, below.")
    return said


def _rates_differ(comparison: Comparison, rivals: Sequence[str]) -> bool:
    for name in ("bits_per_sample", "bits_per_pixel", "bits_per_second"):
        rates = [one["mean"] for arm, one in comparison.summary.get(name, {}).items() if arm in rivals]
        if rates and max(rates) > 1.02 * min(rates):
            return True
    return False


def _judged(
    comparison: Comparison, story: Story, name: str, values: Mapping[str, Sequence[float]], higher: bool, headline: bool
) -> list[Content] | None:
    """A sentence on one figure, or none; None where nothing is separated, unless it is the headline."""
    from mmtok.compare.statistics import ranks

    heading = tag("strong", _heading(name))
    ranked = {arm: own for arm, own in values.items() if len(own) > 1}
    if len(values) < 2:
        return [[heading, ": ", *_listed(comparison, story, name, list(values)), "."]]
    if len(ranked) < 2:
        return ["One seed an arm: there are no intervals, so nothing is ranked (mmtok compare --seeds 3)."] * headline
    places = ranks(ranked, higher)
    best = [arm for arm, place in places.items() if place[0] == 1]
    behind = [arm for arm in ranked if arm not in best]
    names = _listed(
        comparison,
        story,
        name,
        sorted(best, key=lambda arm: (-1 if higher else 1) * comparison.summary[name][arm]["mean"]),
    )
    if not behind:
        if not headline:
            return None
        said: list[Content] = [heading, ": the intervals separate none of ", *names, "."]
    elif len(best) == 1:
        said = [heading, ": ", *names, ", ahead of ", *_enumerated(comparison, story, behind), "."]
    else:
        said = [heading, ": any of ", *names, " may be best; ", *_enumerated(comparison, story, behind)]
        said.append(" falls behind." if len(behind) == 1 else " fall behind.")
    if single := [arm for arm in values if arm not in ranked]:
        said += [" Not ranked, with one seed: ", *_enumerated(comparison, story, single), "."]
    return [said]


def _ceilings(comparison: Comparison, story: Story, name: str, rivals: Sequence[str]) -> list[Content]:
    free = [arm for arm in comparison.summary.get(name, {}) if arm not in rivals]
    if not free:
        return []
    return [
        [
            "Nothing quantized, ",
            *_listed(comparison, story, name, free),
            ": the ceiling of this network, and no rival below.",
        ]
    ]


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
        written = centre + (f" ± {half}" if half else "") + (f" {unit}" if unit else "")
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


def _of_runs(runs: Sequence[Run], story: Story) -> list[Content]:
    """What they are as a whole, then each."""
    alarmed = {run.name: _alarms(run) for run in runs}
    said: list[Content] = []
    if len(runs) > 1:
        said.append(f"{len(runs)} runs, one of each: differences may be chance, so nothing is ranked.")
    said += [_of_run(run, story, alarmed[run.name]) for run in runs]
    if not any(alarmed.values()) and any(name.startswith("alarm/") for run in runs for name in run.log.columns):
        said.append("No alarm stands.")
    return said


def _alarms(run: Run) -> list[str]:
    names = [name for name in run.log.columns if name.startswith("alarm/") and run.log.last(name)]
    return [name.removeprefix("alarm/") for name in names]


def _of_run(run: Run, story: Story, alarmed: Sequence[str]) -> Html:
    """Length, quality, use of the codes and alarms of one run."""
    parts: list[list[Content]] = []
    planned, done = run.config.get("trainer", {}).get("max_steps"), run.log.last_step
    if run.fitted:
        parts.append(["fitted in one pass"])
    elif done:
        parts.append([f"{done:,}" + (f" of {planned:,}" if isinstance(planned, int) else "") + " steps"])
    for name in HEADLINES:
        measured = run.metrics.get(name)
        reached = run.log.last(f"val/{name}") if measured is None else measured
        if reached is not None:
            over = f" over {run.report['samples']:,} items" if measured is not None and "samples" in run.report else ""
            unit = f" {FIGURES[name].unit}" if FIGURES[name].unit else ""
            parts.append([tag("span", f"{title(name)} {reached:.2f}{unit}", class_="figure"), over])
    if run.usage:
        worst = min(run.usage, key=lambda level: level["active"])
        level = " on its worst level" if len(run.usage) > 1 else ""
        parts.append([f"{100 * worst['active']:.0f} % of {worst['size']:,} codes in use{level}"])
    if alarmed:
        parts.append([tag("strong", f"alarm: {', '.join(alarmed)}")])
    return tag("span", story.named(run.series), ": ", [["; " if i else "", *part] for i, part in enumerate(parts)], ".")
