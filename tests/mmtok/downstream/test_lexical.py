import math

import numpy as np
import pytest

from mmtok.downstream.lexical import Lexical, words

TEXTS = ["the cat sat", "the dog, the dog!", "A cat and a dog ran away from the house", ""]


def by_hand(query, text, texts):
    """BM25 as it is written in papers, term by term."""
    mean = sum(len(words(one)) for one in texts) / len(texts)
    total = 0.0
    for word in words(query):
        holding = sum(word in words(one) for one in texts)
        count = words(text).count(word)
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        total += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(words(text)) / mean))
    return total


@pytest.mark.parametrize("query", ["cat", "dog house", "the DOG dog", "unicorn", ""])
def test_bm25_is_the_formula(query):
    wanted = [by_hand(query, text, TEXTS) if text else 0.0 for text in TEXTS]
    np.testing.assert_allclose(Lexical(TEXTS, "bm25").scores([query])[0], wanted, atol=1e-12)


def test_the_cosine_of_a_text_with_itself_is_one_and_with_a_stranger_nothing():
    index = Lexical(TEXTS, "tfidf")
    scores = index.scores(TEXTS[:3])
    np.testing.assert_allclose(np.diag(scores), 1)
    assert (scores <= 1 + 1e-9).all()
    assert index.scores(["unicorn"]).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("weighting", ["bm25", "tfidf"])
def test_answers_are_the_best_texts_and_none_that_share_no_word(weighting):
    assert Lexical(TEXTS, weighting).answers(["a house", "dog", "unicorn"], 3).tolist() == [
        [2, -1, -1], [1, 2, -1], [-1, -1, -1],
    ]  # fmt: skip
