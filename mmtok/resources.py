"""Recipes and job templates by name, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from pathlib import Path

from mmtok.schema import ConfigError, suggest

_PACKAGE = Path(__file__).parent


def resource_root(kind: str) -> Path:
    """The folder `configs` or `slurm`, or the file `LICENSE`: in the package in a wheel, beside it in a checkout."""
    # The wheel's first: beside an installed package may lie a folder `configs` that another package left there.
    installed = _PACKAGE / "_resources" / kind
    return installed if installed.exists() else _PACKAGE.parent / kind


def recipe_names() -> tuple[str, ...]:
    """Every layer that ships with mmtok, as it is named on the command line ("image/vqvae", "hardware/ddp")."""
    root = resource_root("configs")
    names = sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    return tuple(name for name in names if not name.startswith("study/"))  # several recipes each


def study_path(name: str) -> Path:
    """The file of a study of several comparisons: a shipped name, or a path to a YAML file.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    folder = resource_root("configs") / "study"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"there is no study '{name}'.{suggest(name, [one.stem for one in folder.glob('*.yaml')])}")
    return path


def layer_path(name: str) -> Path:
    """The file of a layer: a shipped name, a path to a YAML file, or a run directory.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    given = Path(name)
    if given.is_dir():
        saved = given / "config.yaml"
        if saved.is_file():
            return saved
        raise ConfigError(f"{name} is a folder without a config.yaml, so no run. Give a recipe, a YAML file or a run.")
    if given.suffix in {".yaml", ".yml"}:
        if given.is_file():
            return given
        raise ConfigError(f"there is no file {name}.")
    shipped = resource_root("configs") / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    raise ConfigError(f"there is no recipe '{name}'.{suggest(name, recipe_names())}")
