import pytest

from mmtok.layers import merge_layers, split_arguments
from mmtok.schema import ConfigError


def test_words_with_an_equals_sign_are_settings():
    assert split_arguments(["image/x", "a.b=c=d"]) == (["image/x"], ["a.b=c=d"])
    with pytest.raises(ConfigError, match="without dashes"):
        split_arguments(["--lr=3"])


def test_merging_checks_no_field(tmp_path):
    path = tmp_path / "layer.yaml"
    path.write_text("tokenizer: {name: nobody, colour: red}\n")
    merged = merge_layers([str(path)], ["tokenizer.colour=blue", "more.of=3"])
    assert merged == {"tokenizer": {"name": "nobody", "colour": "blue"}, "more": {"of": 3}}
