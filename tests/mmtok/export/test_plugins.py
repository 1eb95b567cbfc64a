"""What a folder names as its plugins, and when that is run."""

import json
import sys

import pytest
import torch

import mmtok
from mmtok.cli import main
from mmtok.export.bundle import manifest, write_bundle
from mmtok.export.plugins import load_trusted
from mmtok.export.token_spec import TokenSpec
from mmtok.export.verify import verify
from mmtok.tokenizers import build_tokenizer

CONV = {"name": "conv2d", "channels": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4}
RAN = "import builtins\nbuiltins.bundle_ran = True\n"


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """With a plugin beside its config.json, in the working directory and on the path."""
    torch.manual_seed(0)
    image = build_tokenizer({"name": "image", "image_size": 16, "dim": 8, "encoder": CONV}, "vq").eval()
    folder = write_bundle(image, tmp_path / "bundle")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    return folder


def name(bundle, plugin, file="evilmod.py"):
    (bundle / file).parent.mkdir(exist_ok=True)
    (bundle / file).write_text(RAN)
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps(config | {"plugins": [plugin]}))
    (bundle / "bundle.json").write_text(json.dumps(manifest(bundle, TokenSpec.read(bundle))))


def ran():
    return hasattr(__import__("builtins"), "bundle_ran")


@pytest.mark.parametrize(
    ("plugin", "file"),
    [("evilmod", "evilmod.py"), ("evilspace.inner", "evilspace/inner.py"), ("evilpack.x", "evilpack/__init__.py")],
)
def test_a_module_beside_the_config_is_not_run(bundle, plugin, file, capsys):
    name(bundle, plugin, file)
    with pytest.raises(ValueError, match=f"'{plugin}' would be imported from .*evil.* Install it as a package"):
        mmtok.load(".")
    assert main(["export", ".", str(bundle.parent / "again")]) == 2
    assert "was not run" in capsys.readouterr().err
    assert not ran()


def test_the_folder_is_no_place_for_plugins_from_elsewhere_either(bundle, monkeypatch, tmp_path):
    name(bundle, "evilmod")
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.syspath_prepend(str(bundle))
    with pytest.raises(ValueError, match="would be imported from"):
        mmtok.load(bundle)
    assert not ran()


def test_verify_without_code_imports_no_plugin_at_all(bundle, tmp_path, monkeypatch):
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "evilmod.py").write_text(RAN)
    name(bundle, "evilmod")
    (bundle / "evilmod.py").unlink()
    (bundle / "bundle.json").write_text(json.dumps(manifest(bundle, TokenSpec.read(bundle))))
    monkeypatch.syspath_prepend(str(outside))
    broken = verify(bundle, run_code=False)
    assert "needs the plugin 'evilmod', and no code is to be run" in broken[0].reason
    assert not ran()


def test_plugins_elsewhere_and_those_imported_are_loaded(tmp_path, monkeypatch):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder, module in ((outside, "fine_plugin_a"), (inside, "fine_plugin_b")):
        folder.mkdir()
        (folder / f"{module}.py").write_text("")
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(inside)
    load_trusted(["fine_plugin_a"], inside)
    assert "fine_plugin_a" in sys.modules
    with pytest.raises(ValueError, match="'fine_plugin_b' would be imported"):
        load_trusted(["fine_plugin_b"], inside)
    __import__("fine_plugin_b")
    load_trusted(["fine_plugin_b"], inside)
    for module in ("fine_plugin_a", "fine_plugin_b"):
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize("plugin", ["", ".evil", "a b", 3, "no_such_plugin_at_all"])
def test_what_is_no_plugin(plugin, tmp_path):
    with pytest.raises(ValueError, match="plugins: "):
        load_trusted([plugin], tmp_path)
