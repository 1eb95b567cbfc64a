"""What a comparison compares: arms, from `--over GROUP=PATTERN,...` and from tokenizers that stand already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

from mmtok.quantizers.base import quantizers
from mmtok.resources import recipe_names
from mmtok.schema import ConfigError, suggest


@dataclass(frozen=True)
class Arm:
    """One row of the tables."""

    name: str
    """Of the row and of its folder."""
    words: tuple[str, ...] = ()
    """Layers and settings after the recipe's."""
    path: str = ""
    """A run, a bundle, an import, or an adapter's `module:function` instead: measured, not trained."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.+@=,-]+", self.name) or self.name.startswith("."):
            raise ConfigError(
                f"'{self.name}' cannot be the name of an arm, which is a folder's too: use letters, digits, - _ ."
            )


def arms_over(overs: Sequence[str]) -> tuple[Arm, ...]:
    """Every combination of the values of several `--over`.

    Args:
        overs: `quantizer=none,10bit/*` takes layers of configs/quantizer by pattern, and registered names;
            `KEY=a,b` with a dot in the key takes settings. Commas in brackets belong to a value.

    Raises:
        ConfigError: a pattern that matches nothing, one key twice, or two arms of one name.
    """
    keys = [over.partition("=")[0] for over in overs]
    if again := next((key for key in keys if keys.count(key) > 1), None):
        values = ",".join(over.partition("=")[2] for over in overs if over.partition("=")[0] == again)
        raise ConfigError(
            f"--over {again}=... stands twice, and an arm has one of them. Write --over {again}={values}."
        )
    axes = [_axis(over) for over in overs]
    arms = tuple(
        Arm("+".join(name for name, _ in chosen), tuple(word for _, word in chosen)) for chosen in product(*axes)
    )
    names = [arm.name for arm in arms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--over gives two arms of the name {', '.join(twice)}. Compare them in two calls.")
    return arms


def _axis(over: str) -> list[tuple[str, str]]:
    """(name, word of the configuration) of each value."""
    key, _, rest = over.partition("=")
    values = [value.strip() for value in re.split(r",(?![^\[{]*[\]}])", rest) if value.strip()]
    if not key or not values:
        raise ConfigError(f"--over {over}: write quantizer=10bit/*, or KEY=a,b,c.")
    if key == "seed":
        raise ConfigError(f"--over {over}: a seed is no arm but one run of each. Use --seeds {len(values)}.")
    if "." in key:
        return [(f"{key.rpartition('.')[2]}={_slug(value)}", f"{key}={value}") for value in values]
    found = dict.fromkeys(pair for value in values for pair in _layers(key, value))
    short = {word.rpartition("/")[2] for _, word in found}
    # 10bit/vq is called vq, unless 14bit/vq is compared too.
    return [
        (word.rpartition("/")[2] if len(short) == len(found) and "/" in word else name, word) for name, word in found
    ]


def _layers(group: str, value: str) -> list[tuple[str, str]]:
    layers = [name for name in recipe_names() if fnmatch(name, f"{group}/{value}")]
    if layers:
        return [(_slug(layer.removeprefix(f"{group}/")), layer) for layer in layers]
    if group == "quantizer" and value in quantizers.names():
        return [(value, f"quantizer.name={value}")]
    known = [name.removeprefix(f"{group}/") for name in recipe_names() if name.startswith(f"{group}/")]
    names = [*known, *(quantizers.names() if group == "quantizer" else ())]
    if not names:
        raise ConfigError(
            f"--over {group}=...: there are no layers '{group}/'. A setting has a dot: quantizer.bits=8,10."
        )
    raise ConfigError(f"--over {group}={value}: there is no such layer.{suggest(value, names)}")


def arm_with(text: str) -> Arm:
    """`NAME=PATH` of a tokenizer that stands already.

    Raises:
        ConfigError: it is not written so, or there is nothing at the path.
    """
    name, _, path = text.partition("=")
    if not name or not path:
        raise ConfigError(f"--with {text}: write NAME=PATH, of a run, a bundle or an import, or NAME=module:function.")
    if ":" not in path and not Path(path).exists():
        raise ConfigError(f"--with {text}: there is nothing at {path}.")
    return Arm(name, path=path)


def _slug(value: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", value).strip("_") or "empty"
