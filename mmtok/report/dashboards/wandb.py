"""The page and its figures as one W&B run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtok.report.dashboards.exhibits import (
    figures_of,
    gallery,
    members,
    ranked_shares,
    rates_of,
    sounds,
    strips,
    verdict_text,
)
from mmtok.report.numbers import LEVELS, thin, titled
from mmtok.report.sections.curves import ELSEWHERE
from mmtok.report.sections.verdict import JUDGED
from mmtok.report.story import Story
from mmtok.training.logs import WandbConfig
from mmtok.training.wandb_sink import wandb_mode

POINTS = 200
"""Of a line."""


def to_wandb(story: Story, page: Path, title: str, project: str, say: Callable[[str], None]) -> None:
    """Log everything to a new run of the project, which W&B writes beside the page.

    Args:
        story: what the page tells.
        page: the file, logged whole.
        title: name of the run.
        project: of W&B. WANDB_MODE=offline in the environment writes it to disk, to be uploaded by `wandb sync`.
        say: what hears where it is.

    Raises:
        ValueError: the server does not take it.
    """
    config = WandbConfig(project=project)
    import wandb

    try:
        run = wandb.init(
            project=project, name=title, job_type="report", dir=str(page.parent), mode=wandb_mode(config),  # type: ignore[arg-type]
            settings=wandb.Settings(init_timeout=config.timeout, quiet=True),
        )  # fmt: skip
        with run:
            for name, value in _logged(story, wandb).items():
                run.log({name: value})
            run.log({"page": wandb.Html(page.read_text(encoding="utf-8"), inject=False)})
            run.summary["verdict"] = verdict_text(story)
            where = run.url or f"{Path(run.dir).parent}. To upload it: wandb sync {Path(run.dir).parent}"
    except (wandb.Error, OSError) as error:
        raise ValueError(
            f"W&B took no report ({' '.join(str(error).split())[:200]}). The page is written; WANDB_MODE=offline "
            "writes what W&B would get to disk."
        ) from error
    say(f"W&B: {where}")


def _logged(story: Story, wandb: Any) -> dict[str, Any]:
    """Name -> a W&B object."""
    found: dict[str, Any] = {"figures": _figures(story, wandb)}
    found |= _rates(story, wandb)
    found |= _levels(story, wandb)
    found |= _curves(story, wandb)
    found |= _shares(story, wandb)
    pictures = wandb.Table(columns=["run", "item", "input, output, codes"])
    heard = wandb.Table(columns=["run", "item", "input", "output", "input's spectrum", "output's spectrum"])
    for look in story.looks:
        for item, strip in enumerate(strips(look)):
            pictures.add_data(look.run.name, item, wandb.Image(strip))
        for item, pair in enumerate(sounds(look)):
            played = [wandb.Audio(one.samples, sample_rate=one.rate) for one in pair]
            heard.add_data(look.run.name, item, *played, *(wandb.Image(one.spectrum) for one in pair))
        if (patches := gallery(look)) is not None:
            found[f"patches_by_code/{look.run.name}"] = wandb.Image(patches)
    return found | {name: one for name, one in (("pictures", pictures), ("sounds", heard)) if one.data}


def _figures(story: Story, wandb: Any) -> Any:
    """A row a seed, for panels of the reader's own."""
    rows = [(run, figures_of(run, comparison)) for run, comparison in members(story)]
    names = list(dict.fromkeys(name for _, figures in rows for name in figures))
    columns = ["run", "arm", "seed", *names]
    data = [[run.name, run.series, run.seed or 0, *(own.get(name) for name in names)] for run, own in rows]
    return wandb.Table(columns=columns, data=data)


def _rates(story: Story, wandb: Any) -> dict[str, Any]:
    """A scatter of each judged figure against bits, and against tokens."""
    rows = [(run, figures_of(run, comparison)) for run, comparison in members(story)]
    charts = {}
    for name in JUDGED:
        for rate in dict.fromkeys(rate for _, own in rows if name in own for rate in rates_of(own)):
            columns = ["arm", titled(rate), titled(name)]
            data = [[run.series, own[rate], own[name]] for run, own in rows if rate in own and name in own]
            table = wandb.Table(columns=columns, data=data)
            charts[f"tradeoff/{name}_by_{rate}"] = wandb.plot.scatter(table, *columns[1:], title=titled(name))
    return charts


def _levels(story: Story, wandb: Any) -> dict[str, Any]:
    lines = {}
    for one in story.comparisons:
        names = sorted(
            (name for name in one.summary if name.startswith(LEVELS)), key=lambda name: int(name.removeprefix(LEVELS))
        )
        for arm in one.arms:
            own = [
                (int(name.removeprefix(LEVELS)), one.summary[name][arm]["mean"])
                for name in names
                if arm in one.summary[name]
            ]
            if own:
                lines[one.prefix + arm] = own
    return {"levels/snr": _chart(wandb, lines, "SNR (dB)", "levels decoded")} if lines else {}


def _curves(story: Story, wandb: Any) -> dict[str, Any]:
    """Each column of the logs that the page's charts offer, a line a run."""
    names = dict.fromkeys(name for run in story.runs for name in run.log.columns)
    return {
        f"curves/{name}": _chart(
            wandb, {run.name: run.log.columns[name] for run in story.runs if name in run.log.columns}, name, "step"
        )
        for name in names
        if not ELSEWHERE.match(name)  # of levels one by one, the page has choices and W&B would have a hundred panels
    }


def _shares(story: Story, wandb: Any) -> dict[str, Any]:
    levels: dict[int, dict[str, list[tuple[int, float]]]] = {}
    for look in story.looks:
        for level, counts in enumerate(look.counts):
            if shares := ranked_shares(counts):
                levels.setdefault(level, {})[look.run.series] = shares
    return {
        f"usage/share_by_rank/level-{level + 1}": _chart(wandb, lines, "share over an even one", "rank")
        for level, lines in levels.items()
    }


def _chart(wandb: Any, lines: Mapping[str, Sequence[tuple[int, float]]], title: str, across: str) -> Any:
    thinned = {name: thin(list(points), POINTS) for name, points in lines.items()}
    return wandb.plot.line_series(
        xs=[[x for x, _ in points] for points in thinned.values()],
        ys=[[y for _, y in points] for points in thinned.values()],
        keys=list(thinned), title=title, xname=across,
    )  # fmt: skip
