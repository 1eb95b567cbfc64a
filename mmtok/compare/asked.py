"""What a measure may be asked: checked before anything is trained, since measures come after it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any


def check_asked(config: Any, zero: Collection[str] = ()) -> None:
    """Refuse numbers that no measure can do anything with.

    Args:
        config: a dataclass of what a measure is asked.
        zero: fields that may be 0.

    Raises:
        ValueError: names the field.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if isinstance(value, int) and value < (least := 0 if field.name in zero else 1):
            raise ValueError(f"{field.name}={value} must be {least} or more.")
        if isinstance(value, float) and not (0 < value < float("inf") or (value == 0 and field.name in zero)):
            raise ValueError(f"{field.name}={value} must be above 0 and finite.")
    width, heads = getattr(config, "width", 0), getattr(config, "heads", 1)
    if width % heads:
        raise ValueError(f"heads={heads} do not divide width={width}.")
