"""Figures of a vocabulary that can be checked by hand."""

import pytest
import torch

from mmtok.evaluation.text import entropy, evaluate_text, renyi_efficiency, unreached
from mmtok.tokenizers.subword import SubwordConfig, SubwordTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes, so that tokens can be counted by eye."""
    found = SubwordTokenizer(SubwordConfig(model="bytes"))
    found.fit(())
    return found


def batch(*documents):
    texts, languages, parallel = zip(*documents, strict=True)
    keys = [str(i) for i in range(len(texts))]
    return {"x": list(texts), "language": list(languages), "parallel": list(parallel), "key": keys}


def test_figures_by_language_and_over_all(tokenizer):
    report = evaluate_text(tokenizer, [batch(("abcd", "en", ""), ("жа", "ru", ""), ("ab", "en", ""))])
    assert report.samples == 3
    assert report.metrics["bytes_per_token"] == 1
    assert report.metrics["characters_per_token"] == pytest.approx(8 / 10)
    assert report.metrics["fallback_share"] == pytest.approx(4 / 10)
    assert report.metrics["exact"] == 1
    assert report.choices["by_language"]["ru"]["characters_per_token"] == 0.5
    assert report.metrics["worst_language_characters"] == 0.5
    assert report.usage == []


def test_parity_is_over_what_all_languages_have_with_parts_added_up(tokenizer):
    documents = [
        ("aaaa", "en", "one"), ("a", "en", "one"), ("жж", "ru", "one"), ("ж", "ru", "one"),
        ("a" * 90, "en", "two"), ("ж", "ru", "three"), ("aaaaaaaaaa", "de", "one"),
    ]  # fmt: skip
    report = evaluate_text(tokenizer, [batch(*documents)], reference="en")
    parity = {name: one["parity"] for name, one in report.choices["by_language"].items()}
    assert parity == {"en": 1, "ru": pytest.approx(6 / 5), "de": 2}
    assert report.choices["parity"] == {"reference": "en", "documents": 1}
    assert report.metrics["worst_parity"] == 2


def test_without_parallel_texts_there_is_no_parity(tokenizer):
    report = evaluate_text(tokenizer, [batch(("a", "en", ""), ("ж", "ru", ""))])
    assert report.choices["parity"]["reference"] is None
    assert "worst_parity" not in report.metrics
    with pytest.raises(ValueError, match="no parallel text in 'en'"):
        evaluate_text(tokenizer, [batch(("a", "en", ""), ("ж", "ru", ""))], reference="en")


def test_texts_that_do_not_come_back_are_counted_and_named():
    lossy = SubwordTokenizer(SubwordConfig(vocab_size=384, normalize="nfkc"))
    lossy.fit(["x² and plain words"] * 9)
    report = evaluate_text(lossy, [batch(("x²", "en", ""), ("plain", "en", ""))])
    assert report.metrics["exact"] == 0.5
    assert report.choices["inexact"] == ["0"]


def test_efficiency_is_one_for_even_use_and_less_for_words():
    assert renyi_efficiency(torch.full((64,), 5)) == pytest.approx(1)
    zipf = (10000 / torch.arange(1, 65)).long()
    assert renyi_efficiency(zipf) < 0.7
    assert renyi_efficiency(torch.eye(64, dtype=torch.int64)[0]) == pytest.approx(0)
    assert entropy(torch.tensor([4, 4, 0])) == 1


def test_a_token_that_nothing_reaches_is_found():
    tokenizer = SubwordTokenizer(SubwordConfig(vocab_size=384, alphabet="characters"))
    tokenizer.fit(["aab"] * 9)
    missed = {tokenizer.pieces()[number] for number in unreached(tokenizer)}
    assert missed == {b"a", b"b"}  # bytes of the fallback, whose characters have tokens of their own
