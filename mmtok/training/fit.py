"""A tokenizer that is fitted: a sample of the training set, one pass, one checkpoint. No Lightning, and one process."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from datamodules.base import DataConfig, datamodules
from mmtok.config import FitConfig, differences, dump_yaml, load_any, parse_any
from mmtok.loading import LAST, newest_whole
from mmtok.schema import ConfigError, to_plain
from mmtok.seal import seal
from mmtok.tokenizers.base import build_tokenizer
from mmtok.tokenizers.fitted import FittedTokenizer
from mmtok.training.checkpoint import remove_partial
from mmtok.training.lease import holding
from mmtok.training.objective import check_data

Say = Callable[[str], None]


def fit(config: FitConfig, say: Say = print) -> Path:
    """Fit, or say that it is done.

    Args:
        config: the checked configuration.
        say: where messages to the person go.

    Returns:
        The run directory, with what a training leaves: config.yaml, checkpoints/last.ckpt, metrics.csv.

    Raises:
        ConfigError: the directory holds another experiment, or several processes were started.
        ValueError: the data cannot be used.
        OSError: something could not be written; what stood before stands.
    """
    run_dir = Path(config.run_dir)
    refuse_ranks(os.environ)
    if run_dir.exists() and not run_dir.is_dir():
        raise ConfigError(f"run_dir={run_dir} is a file. Give a folder.")
    with holding(run_dir, True):
        if not is_done(config, run_dir, say):
            _fit(config, run_dir, say)
    return run_dir


def refuse_ranks(environment: Mapping[str, str]) -> None:
    """A vocabulary is counted by one process, with a thread a core: more of them would each count all of it.

    Raises:
        ConfigError: the environment is that of several.
    """
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        if environment.get(name, "1") not in ("", "1"):
            raise ConfigError(
                f"{name}={environment[name]}: a tokenizer that is fitted takes one process, which uses all cores. "
                "Start one: --ntasks=1, without torchrun."
            )


def is_done(config: FitConfig, run_dir: Path, say: Say) -> bool:
    """Whether the run directory holds this fit already.

    Raises:
        ConfigError: it holds another experiment.
    """
    found = newest_whole(run_dir / "checkpoints")
    if found is None:
        return False
    saved = run_dir / "config.yaml"
    before = load_any([str(saved)]).config if saved.is_file() else parse_any(found.content["mmtok"]["config"])
    if changed := differences(before, config):
        lines = "\n  ".join(changed)
        raise ConfigError(
            f"{run_dir} holds another experiment, which differs in\n  {lines}\nGive run_dir=ANOTHER for a new run."
        )
    say(f"{run_dir} is complete: it was fitted.")
    return True


def _fit(config: FitConfig, run_dir: Path, say: Say) -> None:
    if config.threads:
        os.environ["RAYON_NUM_THREADS"] = str(config.threads)  # read when the engine of text first counts
        torch.set_num_threads(config.threads)
    quantizer = None if config.quantizer is None else to_plain(config.quantizer)
    tokenizer = build_tokenizer(to_plain(config.tokenizer), quantizer)
    assert isinstance(tokenizer, FittedTokenizer)
    facts: dict[str, Any] = {}
    sample: Any = ()
    if tokenizer.learns:
        check_data(config.data, tokenizer.learns_of)
        for line in weights_ignored(config.data):
            say(line)
        data: Any = datamodules.build(config.data)
        sample = data.sample(config.seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    figures = tokenizer.fit(sample)
    seconds = time.perf_counter() - began
    if tokenizer.learns:
        facts = sample.facts()
        for line in sample.told():
            say(line)
    say(" | ".join(f"{name} {value:,}" for name, value in figures.items()) + f" | {seconds:.1f} s")
    wanted = tokenizer.spec.codebook_sizes[0]
    if tokenizer.learns and (asked := getattr(config.tokenizer, "vocab_size", wanted)) > wanted:
        say(
            f"WARNING: the sample has words for {wanted:,} tokens only, of tokenizer.vocab_size={asked:,}. "
            "Give it more text, or lower tokenizer.min_frequency or tokenizer.vocab_size."
        )
    codes = max(tokenizer.spec.codebook_sizes)
    if facts.get("items", codes) < codes:
        say(f"WARNING: {facts['items']:,} items for {codes:,} codes, which are copies of them. Use fewer codes.")
    save(config, run_dir, tokenizer, facts, figures | {"seconds": seconds})


def weights_ignored(data: DataConfig) -> list[str]:
    """A line where sets have weights, which a sample of them does not know."""
    if isinstance(data.shards, str) or len({one.weight for one in data.shards}) == 1:
        return []
    return ["WARNING: the weights of data.shards have no effect on what is fitted or standardised: every item is one."]


def save(
    config: FitConfig,
    run_dir: Path,
    tokenizer: FittedTokenizer,
    facts: Mapping[str, Any],
    figures: Mapping[str, float],
) -> None:
    """Write configuration, figures and checkpoint, the last by a rename: it says that the rest is whole."""
    from mmtok import __version__

    content = {
        "mmtok": {"version": __version__, "config": to_plain(config), "world": 1, "sample": dict(facts)},
        "state_dict": {f"tokenizer.{name}": value for name, value in tokenizer.state_dict().items()},
        "global_step": 1,
    }
    draft = run_dir / "config.yaml.tmp"
    draft.write_text(dump_yaml(config), encoding="utf-8")
    os.replace(draft, run_dir / "config.yaml")
    with (run_dir / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        row = {"step": 1} | {f"fit/{name}": value for name, value in figures.items()}
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    folder = run_dir / "checkpoints"
    folder.mkdir(exist_ok=True)
    remove_partial(folder)
    partial = folder / f"{LAST}.partial"
    try:
        with partial.open("wb+") as file:
            torch.save(content, file)
            seal(file)
        os.replace(partial, folder / LAST)
    except RuntimeError as error:  # how torch reports that its file could not be finished
        cause = error.__context__
        raise cause if isinstance(cause, OSError) else OSError(5, str(error).splitlines()[0], str(folder)) from error
    finally:
        partial.unlink(missing_ok=True)
