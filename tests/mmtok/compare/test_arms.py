"""What `--over` and `--with` name."""

import pytest

from mmtok.compare.arms import Arm, arm_with, arms_over
from mmtok.compare.plan import Comparison
from mmtok.schema import ConfigError


def test_a_pattern_takes_the_layers_of_a_folder_and_a_name_a_quantizer():
    arms = arms_over(["quantizer=none,10bit/vq,10bit/fsq"])
    assert [arm.name for arm in arms] == ["none", "vq", "fsq"]
    assert [arm.words for arm in arms] == [("quantizer.name=none",), ("quantizer/10bit/vq",), ("quantizer/10bit/fsq",)]
    assert {"vq", "rq", "pq", "fsq", "lfq"} <= {arm.name for arm in arms_over(["quantizer=10bit/*"])}


def test_presets_of_one_name_keep_their_folders():
    assert [arm.name for arm in arms_over(["quantizer=10bit/vq,14bit/vq"])] == ["10bit_vq", "14bit_vq"]


def test_several_axes_give_every_combination_and_commas_in_brackets_belong_to_a_value():
    arms = arms_over(["quantizer.levels=[8,5],[8,8]", "optim.lr=0.1,0.2"])
    assert [arm.words for arm in arms] == [
        (f"quantizer.levels={levels}", f"optim.lr={lr}") for levels in ("[8,5]", "[8,8]") for lr in ("0.1", "0.2")
    ]
    assert len({arm.name for arm in arms}) == 4


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ("quantizer=10bit/vqq", "10bit/vq"),
        ("quantizer=10bits/*", "there is no such layer"),
        ("quantiser=vq", "there are no layers 'quantiser/'"),
        ("quantizer", "write quantizer=10bit"),
    ],
)
def test_what_matches_nothing_is_refused_with_the_nearest(over, said):
    with pytest.raises(ConfigError, match=said):
        arms_over([over])


def test_one_block_is_varied_by_one_over_and_seeds_by_their_own_option():
    with pytest.raises(ConfigError, match=r"twice.*Write --over quantizer=vq,fsq\."):
        arms_over(["quantizer=vq", "quantizer=fsq"])
    with pytest.raises(ConfigError, match=r"Use --seeds 3\."):
        arms_over(["seed=1,2,5"])


def test_two_arms_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two arms of the name lr=1"):
        arms_over(["optim.lr=1,1"])


def test_a_tokenizer_that_stands_is_named(tmp_path):
    assert arm_with(f"mine={tmp_path}") == Arm("mine", path=str(tmp_path))
    assert arm_with("theirs=some.module:make").path == "some.module:make"
    with pytest.raises(ConfigError, match="nothing at"):
        arm_with(f"mine={tmp_path}/absent")
    with pytest.raises(ConfigError, match="NAME=PATH"):
        arm_with(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be the name"):
        arm_with(f"../up={tmp_path}")


def test_a_path_is_one_seed_however_many_the_others_have(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.mkdir()
    recipe = (["image/demo"], ["data.shards=x"])
    standing = [arm_with(f"one={paths[0]}"), arm_with(f"two={paths[0]}"), arm_with(f"two={paths[1]}")]
    made = Comparison.make(
        tmp_path / "out", *recipe, arms_over(["quantizer=fsq"]), standing, seeds=3, measures=["cost"]
    )
    cells = [(cell.arm.name, cell.seed) for _, cell in made.cells]
    assert sorted(cells) == [("fsq", 0), ("fsq", 1), ("fsq", 2), ("one", 0), ("two", 0), ("two", 1)]
