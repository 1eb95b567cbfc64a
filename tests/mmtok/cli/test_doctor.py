import json
from importlib import metadata

import pytest

from mmtok.cli import checks, main


@pytest.fixture(autouse=True)
def no_recipes(monkeypatch, tmp_path):
    monkeypatch.setattr("mmtok.resources.recipe_names", lambda: ())
    monkeypatch.setenv("MMTOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def versions(monkeypatch):
    """versions(lightning=None) -> what the machine seems to have installed; None is absent."""

    def pretend(**given):
        real = metadata.version

        def version(name):
            if name in given:
                if given[name] is None:
                    raise metadata.PackageNotFoundError(name)
                return given[name]
            return real(name)

        monkeypatch.setattr(metadata, "version", version)

    return pretend


def test_a_complete_machine_passes(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "All that is required is here." in out
    assert "mmtok doctor --fetch lpips" in out


def test_json_is_a_list_of_checks(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"section", "name", "status", "detail", "remedy", "required"} == found[0].keys()
    assert "torch" in {check["name"] for check in found}


def test_a_missing_package_fails_with_the_remedy(versions, capsys):
    versions(webdataset=None)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "pip install 'mmtok[train]'" in out
    assert "Required and missing: webdataset." in out


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_the_poisoned_versions_of_lightning_are_refused(versions, capsys, version):
    versions(lightning=version)
    assert main(["doctor"]) == 1
    assert f"{version} was published by an attacker" in capsys.readouterr().out


def test_a_poisoned_version_keeps_recipes_from_importing_it(versions, monkeypatch):
    versions(lightning="2.6.3")
    monkeypatch.setattr(checks, "recipes", lambda: pytest.fail("recipes import lightning"))
    checks.examine()


def test_what_is_optional_is_noted_and_does_not_fail(versions, capsys):
    versions(wandb=None, soundfile=None)
    assert main(["doctor"]) == 0
    assert "pip install 'wandb'" in capsys.readouterr().out


def test_packages_for_sounds_say_what_they_are_for(versions, capsys):
    versions(soundfile="0.14.0", pesq=None)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  ok    soundfile              0.14.0: reads and writes sounds" in lines
    missing = lines.index("  note  pesq                   not installed: PESQ; built by a C compiler")
    assert lines[missing + 1] == "        -> pip install 'mmtok[speech]'"


def test_a_recipe_says_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "tokenizer: {name: image, image_size: 32}\nquantizer: {name: vq}\nloss: {pixel: {name: l2}}\n"
        "data: {name: images, shards: data/nowhere/train}\noptim: {}\ntrainer: {max_steps: 1, accelerator: gpu}\n"
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    lacks = checks.lacking(str(recipe))
    assert lacks == ["no shard set at data/nowhere/train (mmtok shards build)", "a GPU (or add hardware/cpu)"]


def test_a_recipe_lacks_the_weights_of_its_losses(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "tokenizer: {name: image, image_size: 32}\nquantizer: {name: vq}\noptim: {}\ntrainer: {max_steps: 1}\n"
        "loss: {seen: {name: lpips, net: alex}, named: {name: classifier, net: resnet50}, pixel: {name: l2}}\n"
        f"data: {{name: images, shards: {tmp_path}}}\n"
    )
    seen, named = checks.lacking(str(recipe))[:2]  # and its data
    assert seen.startswith("loss.seen lacks the weights of alex. Run: mmtok doctor --fetch lpips")
    assert named.startswith("loss.named lacks the weights of resnet50: no file at")
    assert named.endswith("or give loss.named.weights=PATH.")


def test_a_recipe_that_is_wrong_is_named_and_the_others_are_still_read(monkeypatch):
    monkeypatch.setattr("mmtok.resources.recipe_names", lambda: ("image/absent", "quantizer/10bit/vq"))
    (check,) = checks.recipes()
    assert (check.name, check.status) == ("image/absent", "note")
