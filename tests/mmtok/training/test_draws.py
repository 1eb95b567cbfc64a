import pytest
import torch

from mmtok.quantizers import build_quantizer
from mmtok.tokenizers import build_tokenizer
from mmtok.training.draws import draw_digits, draw_levels, draw_positions, draw_seeds

ROW = {"name": "queries", "patch": 4, "width": 8, "layers": 1, "heads": 2, "queries": 64}
DRAWS = {
    "seeds": (draw_seeds, build_quantizer("gumbel", dim=4)),
    "levels": (draw_levels, build_quantizer("rq", dim=4, depth=8, dropout=0.9)),
    "digits": (draw_digits, build_quantizer("lfq", dim=4, dropout=0.9)),
    "positions": (draw_positions, build_tokenizer({"name": "image_1d", "encoder": ROW, "nested": "uniform"}, "fsq")),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_for_items_do_not_depend_on_ranks_or_accumulation(name):
    draw, of = DRAWS[name]
    whole = draw(of, 5, 17, 16, rank=0, world=1, part=slice(0, 16))
    assert len(whole.unique()) > 3
    for world, each in ((1, 4), (2, 4), (4, 2)):
        for rank in range(world):
            starts = range(0, 16 // world, each)
            parts = [draw(of, 5, 17, 16, rank=rank, world=world, part=slice(i, i + each)) for i in starts]
            assert torch.equal(torch.cat(parts), whole[rank::world])
    assert not torch.equal(draw(of, 5, 18, 16, rank=0, world=1, part=slice(0, 16)), whole)


def test_quantizers_without_noise_draw_none():
    assert draw_seeds(build_quantizer("rq", dim=4), 5, 17, 8, rank=0, world=1, part=slice(0, 8)) is None
