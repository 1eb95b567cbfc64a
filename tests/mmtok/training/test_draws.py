import torch

from mmtok.quantizers import build_quantizer
from mmtok.training.draws import draw_seeds


def test_seeds_of_items_do_not_depend_on_ranks_or_accumulation():
    quantizer = build_quantizer("gumbel", dim=4)
    whole = draw_seeds(quantizer, 5, 17, 8, rank=0, world=1, part=slice(0, 8))
    assert len(whole.unique()) == 8
    for rank in range(2):
        parts = [draw_seeds(quantizer, 5, 17, 8, rank=rank, world=2, part=slice(i, i + 2)) for i in (0, 2)]
        assert torch.equal(torch.cat(parts), whole[rank::2])
    assert not torch.equal(draw_seeds(quantizer, 5, 18, 8, rank=0, world=1, part=slice(0, 8)), whole)


def test_quantizers_without_noise_draw_none():
    assert draw_seeds(build_quantizer("rq", dim=4), 5, 17, 8, rank=0, world=1, part=slice(0, 8)) is None
