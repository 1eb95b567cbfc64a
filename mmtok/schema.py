"""Plain mappings to frozen dataclasses and back: strict, typed, with the nearest name in every refusal.

Standard library only: an exported tokenizer rebuilds itself from its `config.json` with nothing but torch installed.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")


class ConfigError(ValueError):
    """A mistake in a configuration: names the key, and what would be right."""


def read_json(path: Path, remedy: str = "") -> dict[str, Any]:
    """A mapping in a file.

    Args:
        path: of the file.
        remedy: what to do where there is none, as a sentence.

    Raises:
        ValueError: there is none, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"there is no {path}." + (f" {remedy}" if remedy else "")) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(content).__name__}.")
    return content


def suggest(word: str, known: Iterable[str]) -> str:
    """' Did you mean x?' for the nearest known name, or the list of them where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f" Did you mean {near[0]}?"
    return f" Known: {', '.join(names)}." if names else ""


def parse(cls: type[T], data: Mapping[str, Any], path: str = "", label: str = "") -> T:
    """Build the dataclass `cls` from a mapping, refusing unknown keys and wrong types.

    Args:
        cls: a dataclass; nested dataclasses, registered blocks, tuples, literals and unions are followed.
        data: the mapping; a key that is absent takes the field's default.
        path: where the mapping stands in the configuration, for messages ("quantizer.inner").
        label: what to call the class in messages; by default its name.

    Raises:
        ConfigError: an unknown key, a missing one, or a value of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path or cls.__name__} must be a mapping, got {data!r}.")
    hints = field_types(cls)
    what = f"'{label}'" if label else f"{path or 'the configuration'}"
    for key in data:
        if key not in hints:
            raise ConfigError(f"{join(path, str(key))} is no field of {what}.{suggest(str(key), hints)}")
    values = {key: convert(hints[key], value, join(path, key)) for key, value in data.items()}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise ConfigError(f"{join(path, field.name)} is required by {what} and has no default.")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:  # a check in __post_init__: say where
        raise ConfigError(f"{path}: {error}" if path else str(error)) from error


def field_types(cls: type) -> dict[str, Any]:
    """The resolved type of every field of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def convert(hint: Any, value: Any, path: str) -> Any:
    """One value to the type its field declares."""
    from mmtok.registry import registry_of

    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, path)
    if origin is Literal:
        if value not in args and str(value) in args:
            return str(value)  # precision=32 on a command line is a number, and means "32"
        if value not in args:
            near = suggest(str(value), map(str, args)) if isinstance(value, str) else f" Use one of {args}."
            raise ConfigError(f"{path} cannot be {value!r}.{near}")
        return value
    if origin in (tuple, list):
        return _convert_sequence(origin, args, value, path)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a mapping, got {value!r}.")
        return {str(key): convert(args[1], item, join(path, str(key))) for key, item in value.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        registry = registry_of(hint)
        return registry.parse(value, path) if registry else parse(hint, value, path)
    return _convert_scalar(hint, value, path)


def _convert_union(args: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in args:
        return None
    options = [arg for arg in args if arg is not type(None)]
    failures = []
    for option in options:
        try:
            return convert(option, value, path)
        except ConfigError as error:
            failures.append((not _same_shape(option, value), error))
    # What is wrong inside a list that may be a list, rather than that it is no string.
    raise min(failures, key=lambda failure: failure[0])[1]


def _same_shape(hint: Any, value: Any) -> bool:
    """Whether a list stands where a list may, or a mapping where one may."""
    if typing.get_origin(hint) in (tuple, list):
        return isinstance(value, list | tuple)
    return isinstance(value, Mapping) and (dataclasses.is_dataclass(hint) or typing.get_origin(hint) is dict)


def _convert_sequence(origin: type, args: tuple[Any, ...], value: Any, path: str) -> Any:
    if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise ConfigError(f"{path} must be a list, got {value!r}.")
    items = list(value)
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(items) != len(args):
            raise ConfigError(f"{path} must have {len(args)} items, got {len(items)}: {items}.")
        return tuple(convert(arg, item, f"{path}[{i}]") for i, (arg, item) in enumerate(zip(args, items, strict=True)))
    inner = args[0] if args else Any
    return origin(convert(inner, item, f"{path}[{i}]") for i, item in enumerate(items))


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrong_bool = isinstance(value, bool) and hint is not bool
    if not isinstance(value, hint) or wrong_bool:
        article = "an" if hint.__name__[0] in "aeiou" else "a"
        raise ConfigError(f"{path} must be {article} {hint.__name__}, got {value!r}.")
    return value


def to_plain(value: Any) -> Any:
    """A configuration as dicts, lists and scalars, with the `name` of registered blocks; the inverse of `parse`."""
    from mmtok.registry import registry_of

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        registry = registry_of(type(value))
        named = {"name": registry.name_of(value)} if registry else {}
        return named | {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def join(path: str, key: str) -> str:
    """Dotted path of a key."""
    return f"{path}.{key}" if path else key
