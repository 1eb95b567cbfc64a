"""Where ids stand, and what a vocab_map.json must not say."""

import json
from dataclasses import replace

import pytest
import torch

from mmtok.codes import Codes
from mmtok.export.token_spec import Layout, TokenSpec
from mmtok.export.vocab_map import Vocabulary

IMAGE = TokenSpec("image", (300,), "img", length="grid", header=True, rows=True)
AUDIO = TokenSpec("audio", (64, 64, 32), "aud")
DIGITS = tuple(range(20, 31))


@pytest.fixture
def content(tmp_path):
    """Reads, changes and writes a map, and reads it as a vocabulary."""

    def change(edit=lambda content: None):
        vocabulary = Vocabulary.arrange(1000, [IMAGE, AUDIO], digits=DIGITS)
        plain = json.loads(vocabulary.to_json())
        edit(plain)
        (tmp_path / "vocab_map.json").write_text(json.dumps(plain))
        return vocabulary, Vocabulary.read(tmp_path)

    return change


def test_specials_stand_before_codes_and_blocks_follow_each_other():
    vocabulary = Vocabulary.arrange(1000, [IMAGE, AUDIO], digits=DIGITS)
    image, audio = vocabulary.places
    assert (image.start, image.end, image.row, image.pad, audio.start, audio.pad) == (
        1000,
        1001,
        1002,
        1003,
        1004,
        1007,
    )
    assert (image.blocks, audio.blocks) == ((1008,), (1308, 1372, 1436))
    assert (vocabulary.used, vocabulary.size) == (1468, 1536)
    numbers = [number for number, _ in vocabulary.names()]
    assert numbers == list(range(1000, 1468))


def test_a_code_has_one_name_of_fixed_width():  # downstream.md 3.2, Emu3#73: `<|visual token 1|>` is no token
    names = dict(Vocabulary.arrange(1000, [IMAGE, AUDIO], digits=DIGITS).names())
    assert names[1008 + 1] == "<|img:00001|>"
    assert names[1372] == "<|aud:00064|>"  # level 1, code 0
    assert all(name.isascii() and name.startswith("<|") and name.endswith("|>") for name in names.values())


def test_digits_that_the_text_lacks_become_specials():
    vocabulary = Vocabulary.arrange(1000, [IMAGE])
    names = dict(vocabulary.names())
    assert [names[number] for number in vocabulary.places[0].digits[::5]] == ["<|grid_0|>", "<|grid_5|>", "<|grid_by|>"]
    assert vocabulary.places[0].blocks == (1000 + 4 + 11,)


def test_own_heads_take_no_ids_of_codes():
    vocabulary = Vocabulary.arrange(1000, [replace(AUDIO, layout=Layout("own_head")), IMAGE], digits=DIGITS)
    assert vocabulary.places[1].blocks == (1008,)
    assert vocabulary.used == 1308


def test_names_end_where_loading_them_takes_long():
    small, large = (Vocabulary.arrange(1000, [replace(AUDIO, codebook_sizes=(n,))]) for n in (100_000, 100_001))
    assert (small.strings, large.strings) == (True, False)
    assert len(list(large.names())) == 4
    assert large.used == 1004 + 100_001


@pytest.mark.parametrize(
    "specs", [[IMAGE], [IMAGE, AUDIO], [replace(IMAGE, header=False), replace(AUDIO, prefix="mus")]]
)
@pytest.mark.parametrize("digits", [(), DIGITS])
def test_it_is_read_as_it_was_written(tmp_path, specs, digits):
    vocabulary = Vocabulary.arrange(999, specs, digits=digits, rows=5000, base_sha256="ab")
    (tmp_path / "vocab_map.json").write_text(vocabulary.to_json())
    assert Vocabulary.read(tmp_path) == vocabulary
    assert vocabulary.size == 5120


def test_codes_come_back(content):
    _, vocabulary = content()
    codes = Codes(torch.randint(0, 32, (2, 3, 5)), torch.tensor([5, 5]), torch.tensor([[5], [5]]))
    ids = vocabulary.to_ids(codes, AUDIO)
    assert torch.equal(vocabulary.from_ids(ids, AUDIO).ids, codes.ids)
    mixed = torch.cat([torch.tensor([7, 8]), ids[0], ids[1], torch.tensor([9])])
    assert [name for name, _ in vocabulary.split(mixed)] == ["text", "aud", "aud", "text"]
    assert torch.equal(torch.cat([part for _, part in vocabulary.split(mixed)]), mixed)


def test_an_unfinished_item_ends_where_the_next_starts():
    vocabulary = Vocabulary.arrange(1000, [IMAGE, AUDIO], digits=DIGITS)
    image, audio = vocabulary.places
    for other in (audio, image):
        open_item = [audio.start, audio.blocks[0]]
        whole = [other.start, other.blocks[0], other.end]
        parts = vocabulary.split([7, *open_item, *whole, 8, *open_item])
        name = "aud" if other is audio else "img"
        assert [part for part, _ in parts] == ["text", "aud", name, "text", "aud"]
        assert [ids.tolist() for _, ids in parts] == [[7], open_item, whole, [8], open_item]


def test_codes_of_another_tokenizer_are_refused(content):
    _, vocabulary = content()
    codes = Codes(torch.zeros(1, 3, 1, dtype=torch.int64), torch.tensor([1]), torch.tensor([[1]]))
    with pytest.raises(ValueError, match="made for another 'aud': fingerprint '' there, 'abc' here"):
        vocabulary.to_ids(codes, replace(AUDIO, fingerprint="abc"))
    with pytest.raises(ValueError, match=r"the vocabulary has no 'mus', only \['img', 'aud'\]"):
        vocabulary.to_ids(codes, replace(AUDIO, prefix="mus"))


def test_two_tokenizers_of_one_prefix_are_refused():
    with pytest.raises(ValueError, match=r"prefixes \['aud', 'aud'\] must differ. Export one with another"):
        Vocabulary.arrange(1000, [AUDIO, replace(AUDIO, fingerprint="b")])


def test_a_map_may_not_overlap_or_have_gaps(content):
    def block(at, start):
        return lambda content: content["modalities"][1]["blocks"][at].update(start=start)

    with pytest.raises(ValueError, match="aud level 1 begins at id 1371 and aud level 0 ends at 1372: an overlap"):
        content(block(1, 1371))
    with pytest.raises(ValueError, match="aud level 1 ends at id 1436 and aud level 2 begins at 1440: a gap"):
        content(block(2, 1440))
    with pytest.raises(ValueError, match=r"text ends at id 990 and <.img_start.> begins at 1000: a gap"):
        content(lambda content: content.update(text=990))
    with pytest.raises(ValueError, match=r"img level 0 begins at id 1007 and <.aud_pad.> ends at 1008: an overlap"):
        content(lambda content: content["modalities"][0]["blocks"][0].update(start=1007))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"size": 1500}, "its 'size' is not what its specs give"),
        ({"used": 1400}, "its 'used' is not what its specs give"),
        ({"version": 2}, "version 2, and this mmtok reads 1"),
        ({"strings": False}, "its 'strings' is not"),
        ({"colour": 1}, "its 'colour' is not"),
    ],
)
def test_a_map_that_says_something_else(content, edit, message):
    with pytest.raises(ValueError, match=message):
        content(lambda content: content.update(edit))


def test_a_map_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*vocab_map.json. Make one: mmtok vocab merge"):
        Vocabulary.read(tmp_path)
    (tmp_path / "vocab_map.json").write_text('{"version": 1}')
    with pytest.raises(ValueError, match="lacks 'modalities'"):
        Vocabulary.read(tmp_path)
