"""A run's configuration: a tree of YAML layers, checked field by field; strict; printed as resolved."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

import datamodules  # noqa: F401, these five packages register their names
from datamodules.base import DataConfig
from mmtok.layers import flatten, interpolate, merge_layers, prune
from mmtok.losses.base import LossConfig
from mmtok.quantizers.base import QuantizerConfig
from mmtok.registry import load_plugins, registry_of
from mmtok.schema import ConfigError, parse, to_plain
from mmtok.tokenizers.base import TokenizerConfig, tokenizers
from mmtok.tokenizers.fitted import FittedConfig
from mmtok.training.logs import LogConfig
from mmtok.training.settings import AdversaryConfig, CheckpointConfig, OptimConfig, TrainerConfig

C = TypeVar("C", covariant=True)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run, complete."""

    tokenizer: TokenizerConfig
    """Preprocessing and networks."""
    quantizer: QuantizerConfig
    """Latents to codes. Its `dim` is filled in from the tokenizer."""
    loss: dict[str, LossConfig | None]
    """Terms of the objective by the name they have in the log; null removes one of an earlier layer."""
    data: DataConfig
    """Where samples come from."""
    optim: OptimConfig
    """Optimiser, schedule, clipping and weight averaging."""
    trainer: TrainerConfig
    """How long, on what, in which precision."""
    adversary: AdversaryConfig | None = None
    """A discriminator beside the losses; null trains without."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When the state is saved, and how much of it is kept."""
    log: LogConfig = field(default_factory=LogConfig)
    """What a person sees."""
    run_dir: str = ""
    """Where everything is written; empty means runs/<recipe>/<hash of the configuration>."""
    seed: int = 0
    """Of the weights, the order of samples and every random draw."""
    deterministic: bool = False
    """Refuse operations without a deterministic implementation; slower."""
    plugins: tuple[str, ...] = ()
    """Modules imported first, which register quantizers, networks, losses or data modules of their own."""
    init_from: str | None = None
    """A run or an imported tokenizer to take weights from; prints what was taken, resized and skipped."""

    def __post_init__(self) -> None:
        if self.data.batch_size % self.trainer.accumulate:
            raise ConfigError(
                f"data.batch_size={self.data.batch_size} does not divide into "
                f"trainer.accumulate={self.trainer.accumulate} parts."
            )
        for name in ("sample_rate", "channels", "width"):
            # Convolutions know no rate: at another one they learn, and the codec is wrong without a word.
            check_equal(self.tokenizer, self.data, name)
        if self.adversary is not None and self.adversary.adaptive and "decoder" in self.optim.freeze:
            raise ConfigError("adversary.adaptive measures gradients at the decoder, and optim.freeze has frozen it.")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """A tokenizer fitted in one pass, complete: what there is to say where nothing is trained by gradients."""

    tokenizer: FittedConfig
    """What is fitted."""
    data: DataConfig
    """Where samples come from, and how many of them."""
    quantizer: QuantizerConfig | None = None
    """Latents to codes, where they are fitted by clustering; its `dim` is filled in. A vocabulary of text has none."""
    threads: int = 0
    """Of the engine; 0 takes one a core."""
    run_dir: str = ""
    """Where everything is written; empty means runs/<recipe>/<hash of the configuration>."""
    seed: int = 0
    """Of the sample."""
    plugins: tuple[str, ...] = ()
    """Modules imported first, which register names of their own."""

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ConfigError(f"threads={self.threads} must be at least 0; 0 takes one a core.")
        check_equal(self.tokenizer, self.data, "width")


def check_equal(tokenizer: TokenizerConfig, data: DataConfig, name: str) -> None:
    """Refuse a tokenizer and data that say different things of the signals.

    Raises:
        ConfigError: names both.
    """
    wanted, given = getattr(tokenizer, name, None), getattr(data, name, None)
    if wanted is not None and given is not None and wanted != given:
        raise ConfigError(f"data.{name}={given} is not tokenizer.{name}={wanted}. Set both to one value.")


AnyConfig = RunConfig | FitConfig


@dataclass(frozen=True)
class Loaded(Generic[C]):
    """A configuration and how it came about."""

    config: C
    dropped: tuple[str, ...]
    """Fields of earlier layers that the class a later layer chose does not have."""


# What a restart may change without being another experiment.
RESTART_KEYS = (
    "trainer.devices", "trainer.num_nodes", "trainer.max_steps", "trainer.accelerator", "trainer.agree_every",
    "data.workers", "checkpoint", "log", "run_dir", "data.cache_dir", "data.cache_gb", "threads",
)  # fmt: skip


def load_config(layers: Sequence[str], overrides: Sequence[str] = ()) -> Loaded[RunConfig]:
    """The configuration of a training: as `load_any`, which also takes what is fitted.

    Raises:
        ConfigError: as there, or the recipe's tokenizer is fitted.
    """
    loaded = load_any(layers, overrides)
    if isinstance(loaded.config, FitConfig):
        raise ConfigError(f"{layers[0]} is fitted in one pass, not trained in updates. Run: mmtok train {layers[0]}")
    return Loaded(loaded.config, loaded.dropped)


def load_any(layers: Sequence[str], overrides: Sequence[str] = ()) -> Loaded[AnyConfig]:
    """Merge, resolve and check.

    Args:
        layers: shipped names ("image/vqvae"), YAML files or run directories, left to right.
        overrides: "key.path=value" strings, values in YAML.

    Raises:
        ConfigError: with the key, the value and what would be right.
    """
    if not layers:
        raise ConfigError("give at least one recipe, for example image/vqvae.")
    stale: set[str] = set()
    tree = merge_layers(layers, overrides, stale)
    load_plugins(tree.get("plugins") or ())  # they may register the names that follow
    tree = interpolate(tree)
    if not tree.get("run_dir"):
        tree.pop("run_dir", None)
    fitted = _is_fitted(tree)
    for key in ("tokenizer", "data") if fitted else ("tokenizer", "quantizer", "loss", "data", "optim", "trainer"):
        if key not in tree:
            raise ConfigError(f"the recipe has no block '{key}'. Start from a complete one, for example image/vqvae.")
    dropped: list[str] = []
    prune(FitConfig if fitted else RunConfig, tree, "", stale, dropped)
    config = parse_any(tree)
    if not config.run_dir:
        config = dataclasses.replace(config, run_dir=f"runs/{_slug(layers[0])}/{fingerprint(config)}")
    return Loaded(config, tuple(dropped))


def parse_any(tree: Mapping[str, Any]) -> AnyConfig:
    """A resolved tree -> the checked configuration of a training or of a fit."""
    load_plugins(tree.get("plugins") or ())
    if not _is_fitted(tree):
        return parse_config(tree)
    tokenizer = convert_block(TokenizerConfig, tree["tokenizer"], "tokenizer")
    filled = {"tokenizer": tokenizer}
    if tree.get("quantizer") is not None:
        filled["quantizer"] = convert_block(QuantizerConfig, tree["quantizer"], "quantizer", dim=tokenizer.dim)
    return parse(FitConfig, {**tree, **filled}, label="a fitted recipe")


def _is_fitted(tree: Mapping[str, Any]) -> bool:
    """Whether the tokenizer of a recipe is fitted; False where it names none that is known."""
    block = tree.get("tokenizer")
    name = block.get("name") if isinstance(block, Mapping) else block
    return name in tokenizers.names() and issubclass(tokenizers.config_class(str(name)), FittedConfig)


def parse_config(tree: Mapping[str, Any]) -> RunConfig:
    """A resolved tree (a config.yaml, a checkpoint's) -> the checked configuration, `dim`s filled in."""
    load_plugins(tree.get("plugins") or ())
    tokenizer = convert_block(TokenizerConfig, tree["tokenizer"], "tokenizer")
    quantizer = tree["quantizer"]
    if isinstance(quantizer, Mapping) and quantizer.get("dim", tokenizer.dim) != tokenizer.dim:
        raise ConfigError(
            f"quantizer.dim={quantizer['dim']} does not fit tokenizer.dim={tokenizer.dim}. Leave quantizer.dim out."
        )
    filled = convert_block(QuantizerConfig, quantizer, "quantizer", dim=tokenizer.dim)
    config = parse(RunConfig, {**tree, "tokenizer": tokenizer, "quantizer": filled})
    loss: dict[str, LossConfig | None] = {name: term for name, term in config.loss.items() if term is not None}
    for name, term in loss.items():
        if term is not None and not term.weight >= 0:
            raise ConfigError(
                f"loss.{name}.weight={term.weight} must be at least 0: below it, the error would be sought."
            )
    if not any(term.weight for term in loss.values() if term is not None):
        # The quantizer's own terms would be all: a run that looks alive, and whose decoder learns nothing.
        raise ConfigError("loss has no term left, so nothing would train the decoder. Example: loss.pixel.name=l2.")
    return dataclasses.replace(config, loss=loss)


def convert_block(base: type, block: Any, path: str, **fill: Any) -> Any:
    """One registered block, checked by its registry."""
    registry = registry_of(base)
    assert registry is not None, base
    return registry.parse(block, path, **fill)


def dump_yaml(config: AnyConfig) -> str:
    """The resolved configuration as YAML that `load_config` reads back to the same."""
    return yaml.safe_dump(to_plain(config), sort_keys=False, width=120, default_flow_style=None)


def fingerprint(config: AnyConfig) -> str:
    """Ten hex digits of everything that makes this another experiment: all but what a restart may change."""
    text = json.dumps(comparable(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def comparable(config: AnyConfig) -> dict[str, Any]:
    """Flat {dotted key: value} of what must not change over the life of a run."""
    flat = flatten(to_plain(config))
    return {key: value for key, value in flat.items() if not any(_under(key, top) for top in RESTART_KEYS)}


def differences(old: AnyConfig, new: AnyConfig) -> list[str]:
    """Lines 'key: old -> new' for each setting a restart may not change."""
    before, after = comparable(old), comparable(new)
    keys = sorted(before.keys() | after.keys())
    return [f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in keys if before.get(key) != after.get(key)]


def _under(key: str, top: str) -> bool:
    return key == top or key.startswith(f"{top}.")


def _slug(layer: str) -> str:
    """A layer's name as a folder: 'image/vqvae' stays, a path keeps its stem."""
    path = Path(layer)
    return layer if not path.suffix and not path.is_absolute() else path.stem
