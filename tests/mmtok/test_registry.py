from dataclasses import dataclass

import pytest

from mmtok.registry import Registry, load_plugins, registry_of
from mmtok.schema import ConfigError, parse, to_plain


@dataclass(frozen=True)
class ShapeConfig:
    side: float = 1.0


@dataclass(frozen=True)
class SquareConfig(ShapeConfig):
    pass


@dataclass(frozen=True)
class BoxConfig(ShapeConfig):
    height: float = 2.0


@dataclass(frozen=True)
class Room:
    shape: ShapeConfig


@pytest.fixture(scope="module")
def shapes():
    registry = Registry("shape", ShapeConfig)

    @registry.register("square", SquareConfig)
    class Square:
        def __init__(self, config):
            self.config = config

    registry.register("box", BoxConfig)(type("Box", (Square,), {}))
    return registry


def test_a_name_with_fields_builds_its_class(shapes):
    assert shapes.build("box", height=3).config == BoxConfig(height=3.0)
    assert shapes.build({"name": "box", "side": 2}).config == BoxConfig(side=2.0)
    assert shapes.build(BoxConfig(4.0)).config == BoxConfig(4.0)


def test_an_unknown_name_or_field_names_the_nearest(shapes):
    with pytest.raises(ConfigError, match=r"there is no shape 'sqare'. Did you mean square\?"):
        shapes.build("sqare")
    with pytest.raises(ConfigError, match=r"shape.heigth is no field of 'box'. Did you mean height\?"):
        shapes.build("box", heigth=1)
    with pytest.raises(ConfigError, match=r"shape needs a name. Known: box, square"):
        shapes.build({"side": 1})


def test_a_field_of_the_base_type_takes_any_registered_name(shapes):
    room = parse(Room, {"shape": {"name": "box", "height": 5}})
    assert room == Room(BoxConfig(height=5.0))
    assert to_plain(room) == {"shape": {"name": "box", "side": 1.0, "height": 5.0}}
    assert registry_of(BoxConfig) is shapes


def test_names_and_configs_belong_together(shapes):
    with pytest.raises(ValueError, match="registered already"):
        shapes.register("box", type("Other", (ShapeConfig,), {}))(object)
    with pytest.raises(ValueError, match="give 'cube' its own config"):
        shapes.register("cube", BoxConfig)(object)


def test_fill_goes_only_where_the_class_has_the_field(shapes):
    assert shapes.parse("box", height=7) == BoxConfig(height=7.0)
    assert shapes.parse("square", height=7) == SquareConfig()
    assert shapes.parse({"name": "box", "height": 1}, height=7) == BoxConfig(height=1.0)


def test_plugins_are_imported_and_a_missing_one_is_named(tmp_path, monkeypatch):
    (tmp_path / "my_plugin.py").write_text("LOADED = True\n")
    (tmp_path / "broken_plugin.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins(["my_plugin"])
    with pytest.raises(ConfigError, match="no module 'my_plugin_two'"):
        load_plugins(["my_plugin_two"])
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_plugins(["broken_plugin"])
    (tmp_path / "absent_plugin.py").write_text("import absent\n")
    with pytest.raises(ModuleNotFoundError, match="'absent'"):  # the plugin is there, and what it needs is not
        load_plugins(["absent_plugin"])
    (tmp_path / "raising_plugin.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="'raising_plugin' raised ZeroDivisionError: division by zero"):
        load_plugins(["raising_plugin"])
