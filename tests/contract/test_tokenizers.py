"""What every tokenizer of pictures must do with every quantizer it takes, on a grid or in a row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import mmtok
from mmtok.codes import Codes
from mmtok.export.bundle import write_bundle
from mmtok.quantizers import build_quantizer, quantizer_names
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.base import Tokenizer

VIT = {"name": "vit", "patch": 4, "width": 16, "layers": 1, "heads": 2}
QUERIES = VIT | {"name": "queries", "queries": 6}
CONV = {"name": "conv2d", "channels": 8, "multipliers": [1, 1, 1], "blocks": 1, "groups": 4, "mid_blocks": 0}
BODIES: dict[str, dict[str, Any]] = {
    "conv": {"name": "image", "encoder": CONV},
    "vit": {"name": "image", "encoder": VIT},
    "row": {"name": "image_1d", "encoder": QUERIES},
    "nested": {"name": "image_1d", "encoder": QUERIES, "nested": "uniform_pow2"},
}
"""Ways to latents and back, of 16 px and four pixels a patch."""
CODED = [name for name in quantizer_names() if name != "none"]
POINTWISE = [name for name in CODED if build_quantizer(name, dim=8).pointwise]
CASES = [
    (body, name) for body in BODIES for name in (POINTWISE if BODIES[body]["name"] == "image_1d" else CODED)
]  # fmt: skip
SIZES = [(16, 16), (7, 18), (1, 1)]
every = pytest.mark.parametrize(("body", "quantizer"), CASES)


def build(body: str, quantizer: str, seed: int = 0) -> Tokenizer:
    """Weights far from where a training starts: there a transformer's latents are nearly equal, and ids mostly ties."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer({"dim": 8, "image_size": 16} | BODIES[body], quantizer)
    with torch.no_grad():
        for parameter in tokenizer.networks.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return tokenizer.eval()


def pictures(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def near(codes: Codes, other: Codes) -> bool:
    """Equal but for ties: convolutions differ by 1e-7 between batch sizes (design: equality of codes)."""
    return bool((codes.ids != other.ids).float().mean() < 0.02) and torch.equal(codes.lengths, other.lengths)


@every
@pytest.mark.parametrize("size", SIZES)
def test_codes_decode_to_what_the_forward_pass_gives(body, quantizer, size):  # image.md trap 16
    tokenizer, x = build(body, quantizer), pictures(2, 3, *size)
    out, codes = tokenizer(x), tokenizer.encode(x)
    assert torch.equal(codes.ids, out.quantized.ids)
    assert codes.source_size.tolist() == [list(size)] * 2
    decoded = tokenizer.decode(codes)
    assert decoded.shape == x.shape
    torch.testing.assert_close(decoded, out.x, rtol=0, atol=1e-5)


@every
def test_a_batch_is_its_items_in_their_order(body, quantizer):  # audio.md trap 28
    tokenizer, x = build(body, quantizer), pictures(4, 3, 16, 12)
    codes = tokenizer.encode(x)
    turned = torch.tensor([2, 0, 3, 1])
    assert near(tokenizer.encode(x[turned]), codes.select(turned))
    decoded = tokenizer.decode(codes)
    for item in range(4):
        alone = codes.select(torch.tensor([item]))
        assert near(tokenizer.encode(x[item : item + 1]), alone)
        torch.testing.assert_close(tokenizer.decode(alone)[0], decoded[item], rtol=0, atol=1e-5)


@every
def test_encoding_is_the_same_whatever_was_drawn_before_in_any_mode(body, quantizer):
    tokenizer, x = build(body, quantizer), pictures(2, 3, 16, 16)
    first = tokenizer.encode(x)
    torch.manual_seed(99)
    torch.randn(7)
    assert torch.equal(tokenizer.train().encode(x).ids, first.ids)
    assert tokenizer.training
    with torch.no_grad():
        assert torch.equal(tokenizer(x).quantized.ids, first.ids)
    assert not tokenizer.decode(first).requires_grad


@every
def test_half_precision_networks_give_float_values_and_every_gradient(body, quantizer):  # image.md trap 14
    tokenizer, x = build(body, quantizer).train(), pictures(2, 3, 16, 16)
    drawn = tokenizer.draw_positions(2, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        out = tokenizer(x, positions=drawn, seed=torch.tensor([1, 2]))
    assert out.quantized.values.dtype == torch.float32
    (out.x.float().square().mean() + sum(out.quantized.losses.values())).backward()
    gradients = [parameter.grad for parameter in tokenizer.networks.encoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@every
def test_the_saved_state_is_the_tokenizer(body, quantizer):
    tokenizer, other = build(body, quantizer), build(body, quantizer, seed=1)
    assert other.fingerprint() != tokenizer.fingerprint()
    other.load_state_dict(tokenizer.state_dict())
    x = pictures(2, 3, 16, 16)
    codes = tokenizer.encode(x)
    assert torch.equal(other.encode(x).ids, codes.ids)
    assert torch.equal(other.decode(codes), tokenizer.decode(codes))
    assert other.fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize(
    ("body", "quantizer"),
    [
        pytest.param(body, name, marks=[] if name == "vq" else pytest.mark.slow)
        for body, name in CASES
        if name in POINTWISE  # others have codes of several scales, which no bundle holds
    ],
)
def test_a_bundle_encodes_and_decodes_alike(body, quantizer, tmp_path):
    tokenizer, x = build(body, quantizer), pictures(2, 3, 14, 16)
    again, codes = mmtok.load(write_bundle(tokenizer, tmp_path / "bundle")), tokenizer.encode(x)
    assert again.spec == tokenizer.spec
    found = again.encode(x)
    assert near(found, codes)
    torch.testing.assert_close(again.decode(codes), tokenizer.decode(codes), rtol=0, atol=1e-5)


@every
def test_what_is_no_picture_or_no_code_of_it_is_refused(body, quantizer):
    tokenizer, x = build(body, quantizer), pictures(2, 3, 16, 16)
    codes = tokenizer.encode(x)
    with pytest.raises(ValueError, match="float64"):
        tokenizer.encode(x.double())
    with pytest.raises(ValueError, match=r"Pictures are \(B, 3, H, W\)"):
        tokenizer.encode(x[:, :2])
    with pytest.raises(ValueError, match=r"values in \[-1, 1\]"):
        tokenizer.encode(255 * x)
    with pytest.raises(ValueError, match="bare ids"):
        tokenizer.decode(codes.ids)
    with pytest.raises(ValueError, match="outside 0"):
        tokenizer.decode(replace(codes, ids=codes.ids + 10**9))
    with pytest.raises(ValueError, match="this quantizer has"):
        tokenizer.decode(replace(codes, ids=torch.cat([codes.ids] * 2, 1)))
    with pytest.raises(ValueError, match=r"positions|scales"):
        tokenizer.decode(replace(codes, ids=torch.cat([codes.ids] * 2, 2)))


@pytest.mark.parametrize("body", BODIES)
def test_compiled_networks_give_the_same_codes(body):
    tokenizer, x = build(body, "fsq"), pictures(2, 3, 16, 16)
    codes = tokenizer.encode(x)
    want = tokenizer.decode(codes)
    try:
        for network in (tokenizer.networks.encoder, tokenizer.networks.decoder):
            network.compile(backend="aot_eager", fullgraph=True)
        assert near(tokenizer.encode(x), codes)
        torch.testing.assert_close(tokenizer.decode(codes), want, rtol=0, atol=1e-5)
    finally:
        torch.compiler.reset()


@pytest.mark.parametrize("quantizer", POINTWISE)
def test_what_follows_a_kept_code_changes_nothing(quantizer):
    tokenizer, x = build("nested", quantizer).train(), pictures(2, 3, 16, 16)
    kept = torch.tensor([2, 5])
    latents = tokenizer.embed(x)
    other = latents._replace(z=latents.z.where(torch.arange(6)[:, None] < kept[:, None, None], torch.nan))
    (a, b) = (tokenizer.quantizer(one.first(kept).z, one.first(kept).mask) for one in (latents, other))
    assert torch.equal(a.ids, b.ids)
    torch.testing.assert_close(a.losses, b.losses)
    torch.testing.assert_close(a.stats, b.stats)
    codes = tokenizer.code(latents, positions=kept)
    assert codes.lengths.tolist() == [2, 5]
    short = tokenizer.eval().decode(codes)
    torch.testing.assert_close(tokenizer(x, positions=kept).x, short, rtol=0, atol=1e-5)
