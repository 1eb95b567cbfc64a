"""Recipes and job templates are found by name: in a checkout, in a wheel, as files and as runs."""

import tomllib
from pathlib import Path

import pytest

from mmtok import resources
from mmtok.resources import layer_path, recipe_names, resource_root
from mmtok.schema import ConfigError

ROOT = Path(__file__).parents[2]


def test_a_checkout_has_them_beside_the_package():
    assert resource_root("configs") == ROOT / "configs"
    assert (resource_root("slurm") / "one_node.sbatch").is_file()
    assert {"image/vqvae", "quantizer/10bit/vq", "hardware/ddp", "logger/wandb"} <= {*recipe_names()}
    assert layer_path("image/vqvae") == ROOT / "configs" / "image" / "vqvae.yaml"


def test_an_installed_package_takes_its_own_and_not_a_folder_that_lies_beside_it(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "mmtok"
    for folder in (package / "_resources" / "configs" / "image", tmp_path / "site-packages" / "configs"):
        folder.mkdir(parents=True)
    (package / "_resources" / "configs" / "image" / "one.yaml").write_text("{}")
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert recipe_names() == ("image/one",)
    assert layer_path("image/one").is_file()


def test_the_wheel_carries_what_a_checkout_has():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["packages"] == ["mmtok", "datamodules"]
    for source, target in build["force-include"].items():
        assert (ROOT / source).exists()
        assert target == f"mmtok/_resources/{source}"


def test_a_layer_may_be_a_file_or_a_run(tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    assert layer_path(str(tmp_path)) == tmp_path / "config.yaml"
    assert layer_path(str(tmp_path / "config.yaml")) == tmp_path / "config.yaml"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image/vqvea", r"no recipe 'image/vqvea'\. Did you mean image/vqvae\?"),
        ("nowhere.yaml", r"no file nowhere\.yaml"),
        (".", r"a folder without a config\.yaml"),
    ],
)
def test_a_layer_that_is_not_there_is_named(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        layer_path(name)
