import pytest
import torch

from mmtok.networks.attention1d import LocalAttention


def whole(layer, x):
    """The same by one matrix of all frames by all frames."""
    q, k, v = layer._project(x)
    distance = torch.arange(x.shape[2])[:, None] - torch.arange(x.shape[2])
    near = (distance < layer.window) & (distance > (-1 if layer.causal else -layer.window))
    half = q.shape[-1] // 2
    speed = 10_000.0 ** (-torch.arange(half) / half)
    turn = torch.polar(torch.ones(q.shape[2], half), torch.arange(q.shape[2])[:, None] * speed)

    def turned(t):
        return torch.view_as_real(torch.complex(t[..., :half], t[..., half:]) * turn).transpose(-1, -2).flatten(-2)

    scores = turned(q) @ turned(k).mT / q.shape[-1] ** 0.5
    return layer._add(x, scores.masked_fill(~near, -torch.inf).softmax(-1) @ v)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 5, 23])
@torch.no_grad()
def test_blocks_give_what_one_masked_matrix_gives(causal, length):
    layer = LocalAttention(12, heads=3, window=5, causal=causal)
    x = torch.randn(2, 12, length)
    torch.testing.assert_close(layer(x), whole(layer, x), atol=1e-5, rtol=0)


@torch.no_grad()
def test_steps_with_a_cache_are_the_whole_and_forget_what_is_far():
    layer = LocalAttention(12, heads=3, window=5, causal=True)
    x = torch.randn(2, 12, 23)
    state, pieces = layer.init_state(2), []
    for piece in x.split([1, 2, 0, 9, 1, 10], 2):
        y, state = layer.step(piece, state)
        assert state.keys.shape == (2, 3, 4, 4)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 2), layer(x), atol=1e-5, rtol=0)


def test_centred_attention_has_no_steps():
    with pytest.raises(ValueError, match="looks ahead"):
        LocalAttention(4, heads=1, window=3, causal=False).init_state()


def test_heads_need_an_even_width():
    with pytest.raises(ValueError, match="attention_heads"):
        LocalAttention(6, heads=2, window=3, causal=True)
