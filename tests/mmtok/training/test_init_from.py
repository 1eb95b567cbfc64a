"""A run that starts from another's weights goes on from them."""

import torch

from mmtok.training.init_from import initialise
from mmtok.training.run import build_module, train

KMEANS = {"name": "vq", "codebook_size": 16, "init": "kmeans"}


def test_codes_that_were_taken_are_not_initialised_again(tiny, tmp_path):
    first = train(tiny(quantizer=KMEANS), lambda line: None)
    module = build_module(tiny(quantizer=KMEANS, seed=5))
    lines = initialise(module, str(first))
    assert lines[1:] == []
    quantizer = module.tokenizer.quantizer
    taken = quantizer.codebook.clone()
    assert torch.equal(module.ema.quantizer.codebook, taken)
    # Latents far from all codes: k-means would move every code there, an average moves those that were used a little.
    quantizer.update(quantizer(torch.randn(4, 16, 8) + 50).stats)
    assert int((quantizer.codebook == taken).all(1).sum()) >= 8
