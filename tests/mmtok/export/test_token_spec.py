"""What stands in `token_spec.json`."""

from __future__ import annotations

import json

import pytest

from mmtok.codes import CodeSpec
from mmtok.export.token_spec import Layout, TokenSpec

SPEC = TokenSpec("audio", (8, 8, 4), "aud", layout=Layout("parallel", delays=(0, 1, 2)), extras=("gain",))


def test_it_is_read_as_it_was_written(tmp_path):
    (tmp_path / "token_spec.json").write_text(SPEC.to_json())
    assert TokenSpec.read(tmp_path) == SPEC
    assert TokenSpec.read(tmp_path).sha256 == SPEC.sha256


def test_its_names_are_closed_ascii_of_fixed_width():  # downstream.md 3.2
    names = [SPEC.token(i) for i in (2, 10)]
    assert names == ["<|aud:00002|>", "<|aud:00010|>"]
    assert sorted(names) == names
    assert SPEC.special("start") == "<|aud_start|>"


def test_any_field_changes_the_hash():
    other = TokenSpec("audio", (8, 8, 4), "aud", fingerprint="ab", layout=SPEC.layout, extras=("gain",))
    assert other.sha256 != SPEC.sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prefix": "im g"}, "prefix='im g' must be of a-z"),
        ({"codebook_sizes": []}, "codebook_sizes=.. must hold a size"),
        ({"layout": {"kind": "parallel", "delays": [0]}}, r"delays=\[0\] must be 3 numbers"),
        ({"rows": True}, "header and rows are for grids, and length is 'frames'"),
        ({"rows": True, "length": "grid"}, "for layout 'flat', and it is 'parallel'"),
        ({"version": 2}, "version 2, and this mmtok reads 1"),
        ({"colour": 1}, "colour is no field of 'token_spec.json'"),
        ({"layout": {"shape": 1}}, "layout.shape is no field"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, change, message):
    (tmp_path / "token_spec.json").write_text(json.dumps(json.loads(SPEC.to_json()) | change))
    with pytest.raises(ValueError, match=message):
        TokenSpec.read(tmp_path)


def test_there_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*token_spec.json. Write a bundle"):
        TokenSpec.read(tmp_path)


def test_it_comes_from_a_spec_of_codes():
    made = TokenSpec.of(CodeSpec("image", (16,), downsample=8, channels=3), rows=True, header=True)
    assert (made.prefix, made.length, made.downsample) == ("img", "grid", 8)
    with pytest.raises(ValueError, match="all must tick together"):
        TokenSpec.of(CodeSpec("audio", (16, 16), stride=(1, 2)))
