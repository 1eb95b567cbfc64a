"""A run's configuration: YAML layers merged left to right, then `key=value`; names first; strict; printed as resolved.

Names are resolved before fields are checked: a later layer that changes a block's `name` takes over the block. What
earlier layers had set and the new class lacks is dropped (and listed once); whatever the same or a later layer sets
stays strict.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import datamodules  # noqa: F401, these five packages register their names
from datamodules.base import DataConfig
from mmtok.losses.base import LossConfig
from mmtok.quantizers.base import QuantizerConfig
from mmtok.registry import load_plugins, registry_of
from mmtok.resources import layer_path
from mmtok.schema import ConfigError, field_types, join, parse, to_plain
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
    tree = _interpolate(tree)
    if not tree.get("run_dir"):
        tree.pop("run_dir", None)
    fitted = _is_fitted(tree)
    for key in ("tokenizer", "data") if fitted else ("tokenizer", "quantizer", "loss", "data", "optim", "trainer"):
        if key not in tree:
            raise ConfigError(f"the recipe has no block '{key}'. Start from a complete one, for example image/vqvae.")
    dropped: list[str] = []
    _prune(FitConfig if fitted else RunConfig, tree, "", stale, dropped)
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


def merge_layers(layers: Sequence[str], overrides: Sequence[str] = (), stale: set[str] | None = None) -> dict[str, Any]:
    """YAML files, left to right, then "key.path=value", as one tree; nothing is checked.

    Args:
        layers: shipped names, YAML files or run directories.
        overrides: settings laid over them.
        stale: collects fields set before their block changed its name.
    """
    tree: dict[str, Any] = {}
    stale = set() if stale is None else stale
    for name in layers:
        _merge(tree, _read(layer_path(name)), "", stale)
    for text in overrides:
        _merge(tree, _override(text), "", stale)
    return tree


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


def flatten(tree: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as {dotted key: leaf}; lists are leaves."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    return {key: leaf for name, item in tree.items() for key, leaf in flatten(item, join(path, str(name))).items()}


def _under(key: str, top: str) -> bool:
    return key == top or key.startswith(f"{top}.")


def _slug(layer: str) -> str:
    """A layer's name as a folder: 'image/vqvae' stays, a path keeps its stem."""
    path = Path(layer)
    return layer if not path.suffix and not path.is_absolute() else path.stem


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: `12:30:00` is a time and `0123` an account, not 45000 and 83; `1e-4` is a number.

    YAML 1.1 reads sexagesimal and octal integers, and `no` and `on` as booleans. Scheduler fields need the text.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise ConfigError(f"the key '{key}' stands twice{node.start_mark}.")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in entries if not re.search("bool|int|float|timestamp", tag)]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\d+[eE][-+]?\d+$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+.0123456789"),
)


def load_yaml(text: str, where: str) -> Any:
    """A value as YAML; messages say where it stands."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no valid YAML: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    tree = load_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of blocks, got {type(tree).__name__}.")
    return tree


def _override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{text}' is no key=value. Example: optim.lr=1e-4.")
    leaf: Any = load_yaml(value, f"the value of {key}") if value else None
    for part in reversed(key.split(".")):
        leaf = {part: leaf}
    return leaf


def _merge(base: dict[str, Any], layer: Mapping[str, Any], path: str, stale: set[str]) -> None:
    """Lay `layer` over `base`, in place. `stale` collects fields set before their block changed its name."""
    renamed = "name" in layer and "name" in base and layer["name"] != base["name"]
    if renamed:
        stale.update(join(path, key) for key in base if key != "name")
    for key, value in layer.items():
        where = join(path, str(key))
        stale.discard(where)
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value, where, stale)
        else:
            base[key] = _copy(value)


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _interpolate(tree: dict[str, Any]) -> dict[str, Any]:
    """Resolve `${other.key}` references."""
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"a reference cannot be resolved: {error}") from error
    assert isinstance(resolved, dict)
    return typing.cast(dict[str, Any], resolved)


def _prune(hint: Any, tree: Any, path: str, stale: set[str], dropped: list[str]) -> None:
    """Remove stale fields that the class now named does not have, wherever a registered block stands."""
    if not isinstance(tree, dict):
        return
    for option in typing.get_args(hint) if typing.get_origin(hint) is not dict else ():
        if dataclasses.is_dataclass(option):
            hint = option
    if typing.get_origin(hint) is dict:
        for key, item in tree.items():
            _prune(typing.get_args(hint)[1], item, join(path, key), stale, dropped)
        return
    if not dataclasses.is_dataclass(hint):
        return
    registry = registry_of(typing.cast(type, hint))
    if registry is not None:
        if "name" not in tree:
            return
        hint = registry.config_class(tree["name"], path)
    fields = field_types(typing.cast(type, hint))
    for key in list(tree):
        if key != "name" and key not in fields and join(path, key) in stale:
            dropped.append(join(path, key))
            del tree[key]
        elif key in fields:
            _prune(fields[key], tree[key], join(path, key), stale, dropped)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Command-line words -> (layers, overrides): what has an '=' is an override.

    Raises:
        ConfigError: an option-like word, with the way to write it.
    """
    for word in arguments:
        if word.startswith("-"):
            raise ConfigError(f"'{word}' is no option here. Settings are written key=value, without dashes.")
    overrides = [word for word in arguments if "=" in word]
    return [word for word in arguments if "=" not in word], overrides
