"""What is no code, no id and no grid of a vocabulary, refused by name and not by what breaks later."""

from dataclasses import replace

import pytest
import torch

from mmtok.codes import Codes
from mmtok.export.hub.modeling_mmtok import _vocabulary
from mmtok.export.token_spec import TokenSpec
from mmtok.export.vocab_map import Vocabulary
from mmtok.tokenizers.checks import refuse_ids

IMAGE = TokenSpec("image", (9,), "img", length="grid", rows=True, downsample=8)
AUDIO = TokenSpec("audio", (16, 16), "aud", downsample=20)
VOCABULARY = Vocabulary.arrange(60, [IMAGE, AUDIO])
PICTURE = Codes(torch.zeros(1, 1, 6, dtype=torch.int64), torch.tensor([6]), torch.tensor([[16, 20]]), (2, 3))
SOUND = Codes(torch.zeros(1, 2, 4, dtype=torch.int64), torch.tensor([4]), torch.tensor([[70]]))


@pytest.mark.parametrize(
    ("codes", "spec", "message"),
    [
        (PICTURE, AUDIO, r"aud \(audio\) has no grid, and the codes have \(2, 3\): they are of another tokenizer"),
        (SOUND, IMAGE, "img has 1 levels, and the codes have 2"),
        (replace(SOUND, ids=SOUND.ids[:, :1]), IMAGE, "img is of grids, and the codes have none"),
        # Of a tokenizer of the same codebooks and another stride: f4 here, and half the hop.
        (replace(PICTURE, source_size=torch.tensor([[8, 12]])), IMAGE, r"\[1, 2\] positions at 8 each, .* \[2, 3\]"),
        (replace(SOUND, source_size=torch.tensor([[40]])), AUDIO, "item 0 of aud: a source of .* of another tokenizer"),
        (replace(SOUND, source_size=torch.tensor([[40, 40]])), AUDIO, "aud: sources have 2 sizes, not 1"),
        (PICTURE.ids, IMAGE, "to_ids takes Codes, and this is Tensor of shape .1, 1, 6.. Give what encode returns"),
        ([1, 2], IMAGE, "to_ids takes Codes, and this is list"),
    ],
)
def test_codes_of_another_tokenizer_or_none_are_refused(codes, spec, message):
    with pytest.raises(ValueError, match=message):
        VOCABULARY.to_ids(codes, spec)
    VOCABULARY.to_ids(PICTURE, IMAGE)
    VOCABULARY.to_ids(SOUND, AUDIO)


def test_codes_and_ids_are_whole_numbers():
    with pytest.raises(ValueError, match=r"ids are int64, got torch.float32. Use ids.long"):
        Codes(PICTURE.ids.float(), PICTURE.lengths, PICTURE.source_size)
    with pytest.raises(ValueError, match=r"ids are .batch, levels, positions., got .6,"):
        Codes(PICTURE.ids[0, 0], PICTURE.lengths, PICTURE.source_size)
    item = VOCABULARY.to_ids(SOUND, AUDIO)[0]
    for wrong in (item.float(), [0.5, 1.0], item > 0):
        with pytest.raises(ValueError, match=r"ids are whole numbers, and these are torch\..* Use ids.long"):
            VOCABULARY.from_ids([wrong], AUDIO)
        with pytest.raises(ValueError, match="ids are whole numbers"):
            VOCABULARY.split(wrong)
    for wrong in ("<|aud_start|>", [[1, 2], [3]], None):
        with pytest.raises(ValueError, match="ids are whole numbers in one array, and these are"):
            VOCABULARY.from_ids([wrong], AUDIO)
    with pytest.raises(
        ValueError, match=r"item 0 of aud: layout 'flat' has no ids of shape \(\). Give a list of items"
    ):
        VOCABULARY.from_ids(item.tolist(), AUDIO)


def test_ids_that_mean_nothing_are_no_text():
    used = VOCABULARY.used
    for ids in ([3, used], [3, used + 9000], [3, -1]):
        with pytest.raises(
            ValueError, match=f"id {ids[1]} at place 1 means nothing: the vocabulary has 0 to {used - 1}"
        ):
            VOCABULARY.split(ids)
    with pytest.raises(
        ValueError, match=r"split takes one sequence, and this is of shape \(1, 2\). Give them one by one"
    ):
        VOCABULARY.split(torch.zeros(1, 2, dtype=torch.int64))
    assert VOCABULARY.split([]) == []


@pytest.mark.parametrize("grid", [(0, 4), (4,), "44", 16])
def test_grids_that_are_none(grid):
    with pytest.raises(ValueError, match=r"must be \(H, W\), two whole numbers"):
        VOCABULARY.from_ids(VOCABULARY.to_ids(PICTURE, IMAGE), IMAGE, grid)
    with pytest.raises(ValueError, match="is for pictures, and aud"):
        VOCABULARY.from_ids(VOCABULARY.to_ids(SOUND, AUDIO), AUDIO, grid)


def test_a_vocabulary_of_another_class_serves_a_bundle():
    class Foreign:
        """As another bundle has it: the same methods, no common class."""

        find, to_ids, from_ids, grammar = (getattr(VOCABULARY, n) for n in ("find", "to_ids", "from_ids", "grammar"))

    foreign = Foreign()
    assert _vocabulary(foreign) is foreign
    for wrong in (3, None, {"text": 1}):
        with pytest.raises(ValueError, match=r"Give the folder that mmtok vocab merge wrote, or Vocabulary.read"):
            _vocabulary(wrong)


def test_a_batch_of_nothing_is_not_decoded():
    with pytest.raises(ValueError, match="decode got a batch of 0 items"):
        refuse_ids(Codes(PICTURE.ids[:0], PICTURE.lengths[:0], PICTURE.source_size[:0], (2, 3)))
