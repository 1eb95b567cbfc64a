"""YAML layers merged left to right, then `key=value`: one tree, whose fields nothing has checked yet.

Names are resolved before fields are checked: a later layer that changes a block's `name` takes over the block. What
earlier layers had set and the new class lacks is dropped; whatever the same or a later layer sets stays strict.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmtok.registry import registry_of
from mmtok.resources import layer_path
from mmtok.schema import ConfigError, field_types, join


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


def interpolate(tree: dict[str, Any]) -> dict[str, Any]:
    """Resolve `${other.key}` references."""
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"a reference cannot be resolved: {error}") from error
    assert isinstance(resolved, dict)
    return typing.cast(dict[str, Any], resolved)


def prune(hint: Any, tree: Any, path: str, stale: set[str], dropped: list[str]) -> None:
    """Remove stale fields that the class now named does not have, wherever a registered block stands."""
    if not isinstance(tree, dict):
        return
    for option in typing.get_args(hint) if typing.get_origin(hint) is not dict else ():
        if dataclasses.is_dataclass(option):
            hint = option
    if typing.get_origin(hint) is dict:
        for key, item in tree.items():
            prune(typing.get_args(hint)[1], item, join(path, key), stale, dropped)
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
            prune(fields[key], tree[key], join(path, key), stale, dropped)


def flatten(tree: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as {dotted key: leaf}; lists are leaves."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    return {key: leaf for name, item in tree.items() for key, leaf in flatten(item, join(path, str(name))).items()}


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
