"""Vocabularies of text: every text comes back, whatever the model, and control tokens never come of text."""

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
    tokenizer = SubwordTokenizer(SubwordConfig(model=model, alphabet=alphabet, vocab_size=512, **fields))
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
        ({"special": ("a", "a")}, "different"),
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
