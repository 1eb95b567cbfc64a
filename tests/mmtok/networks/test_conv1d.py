import pytest
import torch
import torch.nn.functional as F

from mmtok.networks.conv1d import Conv1d, ConvTranspose1d, reflect

KINDS = [{"causal": True}, {"causal": False}, {"causal": True, "pad_mode": "reflect"}]


def in_pieces(layer, x, sizes):
    state, pieces = layer.init_state(x.shape[0]), []
    for piece in x.split([*sizes, x.shape[2] - sum(sizes)], 2):
        y, state = layer.step(piece, state)
        pieces.append(y)
    return torch.cat([*pieces, layer.step(x[..., :0], state, last=True)[0]], 2)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(7, 1, 1), (3, 1, 9), (4, 2, 1), (10, 5, 1), (1, 1, 1)])
@torch.no_grad()
def test_a_convolution_in_pieces_is_the_whole_one(kind, kernel, stride, dilation):
    layer = Conv1d(2, 3, kernel, stride=stride, dilation=dilation, **kind)
    for length in (1, 2, 9, 31, 60):
        x = torch.randn(2, 2, length * stride)
        whole = layer(x)
        assert whole.shape == (2, 3, length)
        for piece in (1, 4, 7):
            got = in_pieces(layer, x, [piece] * (x.shape[2] // piece))
            torch.testing.assert_close(got, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["exact", "dac"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (10, 5), (6, 3), (3, 3), (9, 2), (2, 1)])
@torch.no_grad()
def test_a_transposed_convolution_in_pieces_is_the_whole_one(causal, padding, kernel, stride):  # audio.md trap 24
    layer = ConvTranspose1d(3, 2, kernel, stride=stride, causal=causal, padding=padding)
    torch.nn.init.ones_(layer.bias)  # added once, however many pieces overlap
    for length in (1, 2, 9, 20):
        x = torch.randn(2, 3, length)
        whole = layer(x)
        for piece in (1, 2, 5):
            got = in_pieces(layer, x, [piece] * (length // piece))
            torch.testing.assert_close(got, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 8])
def test_lengths_are_exact_at_every_stride(causal, stride):  # audio.md trap 23
    down = Conv1d(1, 1, 2 * stride, stride=stride, causal=causal)
    up = ConvTranspose1d(1, 1, 2 * stride, stride=stride, causal=causal)
    for length in (1, 2, 29, 100):
        assert down(torch.randn(1, 1, length * stride)).shape[2] == length
        assert up(torch.randn(1, 1, length)).shape[2] == length * stride


def test_dac_loses_the_last_sample_at_odd_strides_and_nothing_else():  # audio.md trap 23
    exact, dac = (ConvTranspose1d(1, 1, 10, stride=5, causal=False, padding=kind) for kind in ("exact", "dac"))
    dac.load_state_dict(exact.state_dict())
    x = torch.randn(1, 1, 7)
    assert dac(x).shape[2] == 34
    torch.testing.assert_close(dac(x), exact(x)[..., :34])


def test_a_causal_transposed_convolution_is_cut_at_its_end():  # audio.md trap 24
    layer = ConvTranspose1d(1, 1, 4, stride=2)
    x = torch.randn(1, 1, 5)
    torch.testing.assert_close(layer(x), F.conv_transpose1d(x, layer.weight, layer.bias, 2)[..., :10])


def test_padding_without_a_copy_is_padding():
    layer = Conv1d(1, 1, 7, dilation=3)
    x = torch.randn(1, 1, 30)
    torch.testing.assert_close(layer(x), F.conv1d(F.pad(x, (18, 0)), layer.weight, layer.bias, dilation=3))


def test_reflections_of_short_signals_find_zeros():  # audio.md trap 27
    x = torch.tensor([[[1.0, 2.0]]])
    assert reflect(x, 3, 0).tolist() == [[[0, 0, 2, 1, 2]]]
    assert reflect(x, 1, 1).tolist() == [[[2, 1, 2, 1]]]


def test_centred_reflections_have_no_steps():
    with pytest.raises(ValueError, match="have no steps"):
        Conv1d(1, 1, 3, causal=False, pad_mode="reflect").init_state()


@pytest.mark.parametrize("layer", [Conv1d, ConvTranspose1d])
def test_a_kernel_shorter_than_its_stride_is_refused(layer):
    with pytest.raises(ValueError, match="Use 4 or more"):
        layer(1, 1, 3, stride=4)
