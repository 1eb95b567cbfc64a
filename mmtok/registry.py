"""Names to classes: one small registry for quantizers, networks, losses, tokenizers and data modules.

A registry holds pairs (config dataclass, class). The config class says which fields a name takes, so that a recipe is
checked before anything is built; two names never share a config class, so that a config knows its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

from mmtok.schema import ConfigError, field_types, parse, suggest

C = TypeVar("C")
"""The config base class of a registry."""
M = TypeVar("M")
"""What a registry builds."""

_REGISTRIES: list[Registry[Any, Any]] = []


class Registry(Generic[C, M]):
    """Names of one kind, with the config and the class behind each."""

    def __init__(self, kind: str, base: type[C]) -> None:
        self.kind = kind
        self.base = base
        self._entries: dict[str, tuple[type[C], Callable[[Any], M]]] = {}
        _REGISTRIES.append(self)

    def register(self, name: str, config: type[C]) -> Callable[[type], type]:
        """Class decorator: `name` in a recipe builds the class from a `config`."""

        def add(cls: type) -> type:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered already, by {self._entries[name][1]}.")
            if any(known is config for known, _ in self._entries.values()):
                raise ValueError(f"{config.__name__} names another {self.kind} already: give '{name}' its own config.")
            self._entries[name] = (config, cls)
            return cls

        return add

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        return tuple(sorted(self._entries))

    def config_class(self, name: str, path: str = "") -> type[C]:
        """The config dataclass of a name.

        Raises:
            ConfigError: the name is not registered; names the nearest.
        """
        if not isinstance(name, str) or name not in self._entries:
            where = f"{path}.name: " if path else ""
            raise ConfigError(f"{where}there is no {self.kind} '{name}'.{suggest(str(name), self._entries)}")
        return self._entries[name][0]

    def parse(self, block: str | Mapping[str, Any] | C, path: str = "", **fill: Any) -> C:
        """A name, a mapping with a `name`, or a config -> the checked config.

        Args:
            block: what a recipe or a caller gives.
            path: where it stands in the configuration, for messages.
            fill: fields set where the class has them and the block leaves them out (dimensions, say).
        """
        if isinstance(block, self.base):
            return block
        if isinstance(block, str):
            block = {"name": block}
        if not isinstance(block, Mapping) or "name" not in block:
            raise ConfigError(f"{path or self.kind} needs a name. Known: {', '.join(self.names())}.")
        name = block["name"]
        config = self.config_class(name, path)
        known = field_types(config)
        fields = {key: value for key, value in fill.items() if key in known}
        fields |= {key: value for key, value in block.items() if key != "name"}
        return parse(config, fields, path, label=name)

    def build(self, block: str | Mapping[str, Any] | C, **fields: Any) -> M:
        """The object a config, a mapping or a name with its fields describes.

        Raises:
            ConfigError: unknown name or field, or a value the class refuses.
        """
        if fields and not isinstance(block, self.base):
            given = {"name": block} if isinstance(block, str) else cast(Mapping[str, Any], block)
            block = {**given, **fields}
        config = self.parse(block, self.kind)
        return self.class_of(config)(config)

    def class_of(self, config: C) -> Callable[..., M]:
        """The class behind a config, for those that are built with more than it."""
        return self._entries[self.name_of(config)][1]

    def name_of(self, config: C) -> str:
        """The name a config belongs to."""
        for name, (known, _) in self._entries.items():
            if known is type(config):
                return name
        raise ConfigError(f"{type(config).__name__} belongs to no {self.kind}. Known: {', '.join(self.names())}.")


def registry_of(config: type) -> Registry[Any, Any] | None:
    """The registry a config class belongs to, by its base class; None for a plain dataclass."""
    return next((registry for registry in _REGISTRIES if issubclass(config, registry.base)), None)


def load_plugins(modules: Iterable[str]) -> None:
    """Import the modules of `plugins: [...]`, which register what they bring.

    Raises:
        ConfigError: a module that cannot be found, or that raises.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise ConfigError(
                f"plugins: no module '{name}' on the Python path. Install it as a package, set PYTHONPATH, or, "
                "for a run, start from its folder."
            ) from error
        except Exception as error:
            raise ConfigError(
                f"plugins: '{name}' raised {type(error).__name__}: {error}. MMTOK_DEBUG=1 shows where."
            ) from error
