"""Vocabularies of text: every text comes back, whatever the model, and control tokens never come of text."""

import json
import subprocess
import sys

import pytest
import torch

from mmtok.tokenizers.subword import SubwordConfig, SubwordTokenizer

TEXTS = [
    "Hello world, it's 12345 o'clock.\r\n\r\n  indented\n",
    "naïve ▁ café 漢字かな 🙂 \u0000 ▁x <0x41> <|endoftext|>",
    "def f(x):\n\treturn  x**2  ",
    "Ünïcödé \u0301e\ufeff",
] * 20
UNSEEN = [*TEXTS[:4], "", "完全に新しい \U0010ffff ἐν ἀρχῇ <|reserved:0|> <0xFF>"]
KINDS = [("bpe", "bytes"), ("bpe", "characters"), ("unigram", "bytes"), ("unigram", "characters"), ("bytes", "bytes")]


def fitted(model="bpe", alphabet="bytes", **fields):
    if model == "bytes":  # they learn nothing, so nothing bounds what they learn
        fields = {}
    else:
        fields |= {"alphabet": alphabet, "vocab_size": 512}
    tokenizer = SubwordTokenizer(SubwordConfig(model=model, **fields))
    tokenizer.fit(TEXTS)
    return tokenizer


@pytest.mark.parametrize("split", ["gpt2", "cl100k", "spaces"])
@pytest.mark.parametrize("digits", [0, 1, 3])
@pytest.mark.parametrize(("model", "alphabet"), KINDS)
def test_every_text_comes_back_and_is_the_pieces_of_its_tokens(model, alphabet, digits, split):
    tokenizer = fitted(model, alphabet, digits=digits, split=split)
    codes = tokenizer.encode(UNSEEN)
    assert tokenizer.decode(codes) == UNSEEN
    pieces = tokenizer.pieces()
    for row, length, text in zip(codes.ids, codes.lengths, UNSEEN, strict=True):
        assert b"".join(pieces[i] for i in row[0, :length]) == text.encode()


@pytest.mark.parametrize(("model", "alphabet"), KINDS)
def test_text_that_spells_a_control_token_does_not_become_one(model, alphabet):
    tokenizer = fitted(model, alphabet)
    ids = tokenizer.encode(["<|endoftext|> <|reserved:0|>"]).ids
    assert not tokenizer.is_control()[ids].any()


@pytest.mark.parametrize("digits", [1, 3])
def test_no_token_holds_more_digits_than_allowed(digits):
    tokenizer = SubwordTokenizer(SubwordConfig(vocab_size=512, digits=digits))
    tokenizer.fit(["the year 20262026 1234567 123123 1212 "] * 50)
    learned = [piece for piece, control in zip(tokenizer.pieces(), tokenizer.is_control(), strict=True) if not control]
    assert max(sum(byte in b"0123456789" for byte in piece) for piece in learned) == digits


@pytest.mark.parametrize("model", ["bpe", "unigram"])
def test_a_control_token_that_texts_spell_all_the_time_is_not_learned_as_a_word(model):
    """Both would have one id then, and whoever writes texts would steer models."""
    tokenizer = SubwordTokenizer(SubwordConfig(model=model, vocab_size=512, split="spaces"))
    tokenizer.fit(["some words <|endoftext|> and more<|endoftext|> of them "] * 50)
    control = tokenizer.is_control()
    assert not control[tokenizer.encode(["<|endoftext|>"]).ids].any()
    assert tokenizer.pieces().count(b"<|endoftext|>") == 1


def test_a_control_token_that_normalization_makes_a_word_is_refused():
    tokenizer = SubwordTokenizer(SubwordConfig(vocab_size=512, split="spaces", normalize="nfkc"))
    with pytest.raises(ValueError, match="learned"):
        tokenizer.fit(["\uff1c|endoftext|\uff1e"] * 50)


def test_nfkc_loses_what_none_and_nfc_keep():
    text = "x\u00b2 \uff21 caf\u00e9"
    back = {}
    for normalize in ("none", "nfc", "nfkc"):
        tokenizer = fitted(normalize=normalize)
        back[normalize] = tokenizer.decode(tokenizer.encode([text]))[0]
    assert back == {"none": text, "nfc": text, "nfkc": "x2 A caf\u00e9"}
    assert (
        fitted(normalize="nfc").encode(["e\u0301"]).ids.tolist()
        == fitted(normalize="nfc").encode(["\u00e9"]).ids.tolist()
    )


def test_without_bounds_in_digits_and_letters_no_word_is_crossed():
    """A trainer without a pre-tokenizer holds whole lines as words, and runs out of memory (downstream.md 6)."""
    for split in ("gpt2", "cl100k", "spaces"):
        tokenizer = SubwordTokenizer(SubwordConfig(vocab_size=768, split=split))
        tokenizer.fit(["one two one two one two\n"] * 100)
        assert max(piece.count(b" ") for piece in tokenizer.pieces()) <= 1


@pytest.mark.parametrize("model", ["bpe", "unigram"])
@pytest.mark.parametrize("alphabet", ["bytes", "characters"])
def test_a_sample_of_hardly_anything_is_fitted_or_refused_by_name(model, alphabet):
    config = SubwordConfig(model=model, alphabet=alphabet, vocab_size=512)
    for texts in (["a"], ["x y"], ["x y "] * 9):
        tokenizer = SubwordTokenizer(config)
        tokenizer.fit(texts)
        assert tokenizer.decode(tokenizer.encode(UNSEEN)) == UNSEEN
        assert tokenizer.spec.codebook_sizes[0] == 384
    for texts in ([], [""]):
        with pytest.raises(ValueError, match="no text to learn from"):
            SubwordTokenizer(config).fit(texts)
    if model == "unigram":
        with pytest.raises(ValueError, match="too small to tell"):
            SubwordTokenizer(config).fit(["ab" * 10])


@pytest.mark.parametrize("model", ["bpe", "unigram"])
@pytest.mark.parametrize("alphabet", ["bytes", "characters"])
def test_more_characters_than_tokens(model, alphabet):
    """Of BPE the rare ones are written as bytes; the unigram trainer of the engine cannot leave any out."""
    tokenizer = SubwordTokenizer(SubwordConfig(model=model, alphabet=alphabet, vocab_size=512))
    texts = ["".join(map(chr, range(0x4E00, 0x5A00)))] * 3
    if (model, alphabet) == ("unigram", "characters"):
        with pytest.raises(ValueError, match=r"more different characters than the 511 tokens .* Use alphabet=bytes"):
            tokenizer.fit(texts)
        return
    tokenizer.fit(texts)
    assert tokenizer.decode(tokenizer.encode([*UNSEEN, *texts])) == [*UNSEEN, *texts]
    assert tokenizer.spec.codebook_sizes[0] == 512


def test_vocabulary_is_a_multiple_of_its_padding_and_as_large_as_asked():
    tokenizer = SubwordTokenizer(SubwordConfig(vocab_size=384, reserved=5, pad_to=128))
    tokenizer.fit([f"word{i} and {i * 7} others" for i in range(500)])
    assert tokenizer.spec.codebook_sizes == (384,)
    assert fitted().spec.codebook_sizes[0] % 128 == 0


def test_the_same_texts_give_the_same_vocabulary():
    assert torch.equal(fitted().model, fitted().model)


def test_weights_carry_the_vocabulary():
    first, second = fitted("unigram", "characters"), SubwordTokenizer(SubwordConfig())
    second.load_state_dict(first.state_dict(), assign=True)
    assert torch.equal(second.encode(UNSEEN).ids, first.encode(UNSEEN).ids)


def test_autotokenizer_reads_what_is_saved(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = fitted()
    tokenizer.save_engine(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = UNSEEN[0]
    assert theirs(text)["input_ids"] == tokenizer.encode([text]).ids[0, 0].tolist()
    assert theirs.eos_token == "<|endoftext|>"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vocab_size": 200}, "leaves nothing to learn"),
        ({"vocab_size": 1000}, "Use 896 or 1024"),
        ({"model": "bytes", "alphabet": "characters"}, "no effect"),
        ({"model": "bytes", "vocab_size": 512}, "no effect"),
        ({"model": "unigram", "min_frequency": 3}, "no effect"),
        ({"special": ("<a>", "<a>")}, "different"),
        ({"special": ("<|B\u00e1c|>",)}, "must be ASCII"),
        ({"special": ("<img_1",)}, "closed"),
        ({"special": ("<a b>",)}, "without spaces"),
        ({"special": ("<|reserved:3|>",)}, "every vocabulary may have"),
        ({"special": ("<0x41>",)}, "every vocabulary may have"),
        ({"digits": -1}, "at least 0"),
    ],
)
def test_a_mistake_is_refused_with_its_remedy(fields, said):
    with pytest.raises(ValueError, match=said):
        SubwordConfig(**fields)


def test_what_is_no_text_is_refused():
    tokenizer = fitted()
    with pytest.raises(ValueError, match=r"list of strings, got str. Use \[text\]"):
        tokenizer.encode("text")
    with pytest.raises(ValueError, match="half a surrogate pair at character 1"):
        tokenizer.encode(["a\ud800"])
    with pytest.raises(ValueError, match="not fitted yet"):
        SubwordTokenizer(SubwordConfig()).encode(["a"])
    codes = tokenizer.encode(["a"])
    codes.ids[0, 0, 0] = 10**6
    with pytest.raises(ValueError, match="another vocabulary"):
        tokenizer.decode(codes)


FIT = """
import hashlib, random
from mmtok.tokenizers.subword import SubwordConfig, SubwordTokenizer
draw = random.Random(0)
words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 6))) for _ in range(600)]
texts = [" ".join(draw.choices(words, k=40)) + chr(0x4E00 + i % 300) for i in range(600)]
for model, alphabet in (("unigram", "bytes"), ("unigram", "characters"), ("bpe", "characters")):
    tokenizer = SubwordTokenizer(SubwordConfig(model=model, alphabet=alphabet, vocab_size=768))
    tokenizer.fit(iter(texts))
    print(hashlib.sha256(bytes(tokenizer.model.tolist())).hexdigest())
"""


def test_every_process_learns_the_same():
    """The engine goes through its words, characters and pieces in an order that each process draws anew."""
    found = {subprocess.run([sys.executable, "-c", FIT], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(found) == 1
    assert len(found.pop().split()) == 3


def test_only_the_end_of_text_is_exported_as_one(tmp_path):
    for special, wanted in ((("[PAD]", "<|endoftext|>"), "<|endoftext|>"), (("[PAD]",), None)):
        fitted(special=special).save_engine(tmp_path)
        assert json.loads((tmp_path / "tokenizer_config.json").read_text()).get("eos_token") == wanted
