import pytest
import yaml

from mmtok.config import comparable, differences, dump_yaml, load_config
from mmtok.schema import ConfigError

BASE = """
tokenizer: {name: image, image_size: 32, dim: 16, encoder: {name: conv2d, channels: 8, multipliers: [1, 1], blocks: 1}}
quantizer: {name: fsq, levels: [8, 5, 5, 5]}
loss: {pixel: {name: l2, weight: 4.0}, edge: {name: l1}}
data: {name: images, shards: data/train, image_size: "${tokenizer.image_size}", batch_size: 8}
optim: {lr: 1e-4}
trainer: {max_steps: 10}
"""


@pytest.fixture
def layer(tmp_path):
    def write(text: str, name: str = "layer") -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def base(layer):
    return layer(BASE, "base")


def test_layers_merge_left_to_right_and_settings_come_last(base, layer):
    config = load_config([base, layer("optim: {lr: 2e-4, clip: 1.0}")], ["optim.clip=0.5", "loss.edge=null"]).config
    assert (config.optim.lr, config.optim.clip) == (2e-4, 0.5)
    assert list(config.loss) == ["pixel"]
    assert config.data.image_size == 32  # a reference to another key
    assert config.quantizer.dim == config.tokenizer.dim == 16  # filled in


def test_a_new_name_takes_over_the_block_and_lists_what_it_lacks(base, layer):
    loaded = load_config([base], ["quantizer.name=lfq"])
    assert loaded.dropped == ("quantizer.levels",)
    with pytest.raises(ConfigError, match=r"quantizer.levels is no field of 'lfq'"):
        load_config([base, layer("quantizer: {name: lfq, levels: [3]}")])
    with pytest.raises(ConfigError, match=r"quantizer.levels is no field of 'lfq'"):
        load_config([base], ["quantizer.name=lfq", "quantizer.levels=[3]"])


def test_fields_the_new_class_shares_are_kept(base):
    config = load_config([base], ["loss.pixel.name=l1"]).config
    assert config.loss["pixel"].weight == 4.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quantizer.levles=[3]"], "quantizer.levles is no field of 'fsq'. Did you mean levels?"),
        (["quantizer.name=fsk"], "there is no quantizer 'fsk'. Did you mean fsq?"),
        (["trainr.max_steps=3"], "trainr is no field of the configuration. Did you mean trainer?"),
        (["trainer.max_steps=3.5"], "trainer.max_steps must be an int, got 3.5."),
        (["trainer.max_steps=0"], "trainer.max_steps=0 must be at least 1."),
        (["loss.pixel.weight=-1"], "loss.pixel.weight=-1.0 must be at least 0"),
        (["optim.clip=-1"], "optim.clip=-1.0 must be at least 0"),
        (["optim.betas=[2, 3]"], "must each be in [0, 1)"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed scales the loss"),
        (["optim.lr"], "'optim.lr' is no key=value"),
        (["loss.pixel.name=l3"], "there is no loss 'l3'."),
        (["data.image_size=${nothing.here}"], "a reference cannot be resolved"),
        (["quantizer.dim=99"], "quantizer.dim=99 does not fit tokenizer.dim=16"),
        (["plugins=[no_such_plugin]"], "no module 'no_such_plugin'"),
    ],
)
def test_a_mistake_names_the_key_and_what_is_near(base, words, message):
    with pytest.raises(ConfigError) as error:
        load_config([base], words)
    assert message in str(error.value)


def test_mistakes_in_files_name_the_file(layer):
    for text, message in [("a: [", "no valid YAML"), ("- x", "mapping of blocks"), ("a: 1\na: 2", "stands twice")]:
        with pytest.raises(ConfigError, match=message) as error:
            load_config([layer(text)])
        assert "layer.yaml" in str(error.value)
    with pytest.raises(ConfigError, match=r"there is no recipe 'image/vqva'. Did you mean image/vqvae\?"):
        load_config(["image/vqva"])


@pytest.mark.parametrize("text", ["12:30:00", "0123", "no", "on", "2026-01-01"])
def test_scheduler_fields_survive_yaml(base, text):
    # platform.md section 1: YAML 1.1 makes 45000 of a time, 83 of an account and False of a partition.
    assert load_config([base], [f"run_dir={text}"]).config.run_dir == text


def test_what_is_printed_reads_back_to_the_same(base, layer):
    config = load_config([base], ["run_dir=somewhere"]).config
    again = load_config([layer(dump_yaml(config), "again")]).config
    assert again == config
    assert yaml.safe_load(dump_yaml(config))["quantizer"]["dim"] == 16


def test_the_run_directory_follows_what_makes_another_experiment(base):
    first = load_config([base]).config.run_dir
    assert first.startswith("runs/base/")
    assert load_config([base], ["trainer.max_steps=99", "data.workers=3", "log.every_steps=7"]).config.run_dir == first
    assert load_config([base], ["optim.lr=1e-3"]).config.run_dir != first


def test_what_a_restart_may_not_change_is_listed(base):
    old, new = load_config([base]).config, load_config([base], ["optim.lr=1e-3", "trainer.devices=2"]).config
    assert differences(old, new) == ["optim.lr: 0.0001 -> 0.001"]
    assert "trainer.max_steps" not in comparable(old)


def test_a_plugin_registers_what_a_recipe_then_names(base, tmp_path, monkeypatch):
    (tmp_path / "my_signs.py").write_text(
        "from dataclasses import dataclass\n"
        "from mmtok.quantizers.base import QuantizerConfig, register_quantizer\n"
        "from mmtok.quantizers.none import NoQuantizer\n"
        "@dataclass(frozen=True)\n"
        "class SignsConfig(QuantizerConfig):\n    strength: float = 1.0\n"
        "register_quantizer('my_signs', SignsConfig)(type('Signs', (NoQuantizer,), {}))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["plugins=[my_signs]", "quantizer.name=my_signs"]
    config = load_config([base], [*words, "quantizer.strength=2"]).config
    assert (config.quantizer.strength, config.plugins) == (2.0, ("my_signs",))
    with pytest.raises(ConfigError, match=r"Did you mean strength\?"):
        load_config([base], [*words, "quantizer.strenth=2"])


def test_an_objective_without_a_term_is_refused(base):
    with pytest.raises(ConfigError, match="loss has no term left"):
        load_config([base], ["loss.pixel=null", "loss.edge=null"])


@pytest.mark.parametrize("word", ["trainer.devices=0", "trainer.devices=-1", "trainer.val_every=-1", "data.workers=-1"])
def test_counts_below_what_makes_sense_are_refused_by_name(base, word):
    with pytest.raises(ValueError, match=word.split(".")[1]):
        load_config([base], [word])


@pytest.mark.parametrize(("word", "near"), [("sample_rate=8000", "16000"), ("channels=2", "1")])
def test_data_that_are_not_what_the_tokenizer_hears_are_refused(word, near):
    # A codec learns from sounds at any rate, so a run at the wrong one ended well and gave a wrong codec.
    key, value = word.split("=")
    with pytest.raises(ConfigError, match=rf"data\.{key}={value} is not tokenizer\.{key}={near}"):
        load_config(["audio/demo"], [f"data.{word}"])
    assert load_config(["audio/demo"], [f"data.{word}", f"tokenizer.{word}"])
