import numpy as np
import pytest

from datamodules.interactions import Interactions
from mmtok.corpus import Corpus

ITEMS, STEP = 40, 7


@pytest.fixture(scope="session")
def corpus():
    """Items named by two digits of base 8, which a model can count with."""
    ids = np.stack([np.arange(ITEMS) // 8, np.arange(ITEMS) % 8], 1)
    return Corpus(tuple(f"i{n}" for n in range(ITEMS)), ids, (5, 8), ("code", "code"), "made up")


@pytest.fixture(scope="session")
def chain():
    """Users who take every seventh item from where they begin: what follows is certain, and no item is popular."""
    draw = np.random.default_rng(0)
    sequences = []
    for _ in range(200):
        first, length = draw.integers(ITEMS), draw.integers(3, 13)
        sequences.append(tuple(f"i{(first + STEP * n) % ITEMS}" for n in range(length)))
    return Interactions(tuple(f"u{n}" for n in range(len(sequences))), tuple(sequences))
