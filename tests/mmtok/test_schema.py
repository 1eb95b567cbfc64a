from dataclasses import dataclass, field
from typing import Literal

import pytest

from mmtok.schema import ConfigError, parse, to_plain


@dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclass(frozen=True)
class Outer:
    rate: float
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[int, ...] = ()
    maybe: int | None = None
    devices: int | Literal["auto"] = 1
    inner: Inner = field(default_factory=Inner)
    table: dict[str, Inner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError("rate must not be negative")


@dataclass(frozen=True)
class Mixed:
    sets: str | tuple[Inner, ...] = ""


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["a", "b"], r"sets\[0\] must be a mapping, got 'a'"),
        ([{"siez": 1}], r"sets\[0\].siez is no field.*Did you mean size"),
        ([{"size": 1}, {"size": "x"}], r"sets\[1\].size must be an int"),
        (3, "sets must be a str, got 3"),
    ],
)
def test_of_a_union_the_alternative_that_was_meant_is_spoken_of(sets, message):
    with pytest.raises(ConfigError, match=message):
        parse(Mixed, {"sets": sets})


def test_values_take_the_types_their_fields_declare():
    out = parse(Outer, {"rate": 1, "many": [1, 2], "pair": [1, 2.5], "devices": "auto", "table": {"x": {"size": 4}}})
    assert out == Outer(1.0, many=(1, 2), pair=(1.0, 2.5), devices="auto", table={"x": Inner(4)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"rat": 1.0}, "rat is no field of the configuration. Did you mean rate?"),
        ({"rate": "fast"}, "rate must be a float, got 'fast'."),
        ({"rate": True}, "rate must be a float, got True."),
        ({"rate": 1.0, "kind": "c"}, "kind cannot be 'c'."),
        ({"rate": 1.0, "pair": [1.0]}, "pair must have 2 items, got 1: [1.0]."),
        ({"rate": 1.0, "many": "12"}, "many must be a list, got '12'."),
        ({"rate": 1.0, "many": [1, "x"]}, "many[1] must be an int, got 'x'."),
        ({"rate": 1.0, "maybe": 3.5}, "maybe must be an int, got 3.5."),
        ({"rate": 1.0, "inner": {"sizes": 3}}, "inner.sizes is no field of inner. Did you mean size?"),
        ({"rate": 1.0, "table": {"x": {"sizes": 3}}}, "table.x.sizes is no field of table.x. Did you mean size?"),
        ({}, "rate is required by the configuration and has no default."),
        ({"rate": -1.0}, "rate must not be negative"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(data, message):
    with pytest.raises(ConfigError) as error:
        parse(Outer, data)
    assert message in str(error.value)


def test_plain_is_the_inverse_of_parse():
    config = Outer(0.5, "b", (1.0, 2.0), (3, 4), 5, "auto", Inner(6), {"x": Inner(7)})
    assert parse(Outer, to_plain(config)) == config
