"""Codebooks of 2^18 codes: what a training step holds beside its inputs (image.md section 6: under 2 GiB at 32,768)."""

import pytest
import torch

from mmtok.quantizers import build_quantizer

GIB = 2**30


def step(name, rows, dim=4, **fields):
    torch.manual_seed(0)
    quantizer = build_quantizer(name, dim=dim, codebook_size=2**18, **fields)
    z = torch.randn(1, rows, dim).requires_grad_()

    def call():
        out = quantizer(z)
        (out.values.square().sum() + sum(out.losses.values())).backward()
        quantizer.update(out.stats)

    return call


@pytest.mark.parametrize("name", ["vq", "simvq", "ibq"])
def test_a_step_holds_a_few_tables_and_chunks_whatever_the_rows(name, peak_bytes):
    few, many = (peak_bytes(step(name, rows)) for rows in (64, 256))
    assert many < GIB / 8
    assert many - few < 2**20  # 256 x 2^18 floats would be 256 MiB


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vq", "simvq", "ibq"])
def test_32768_rows_of_2_to_the_18_codes_take_less_than_2_gib(name, peak_bytes):
    assert peak_bytes(step(name, 2**15)) < 2 * GIB
