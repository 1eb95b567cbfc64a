"""What is done otherwise in an exported program is not done otherwise in a compiled one."""

from __future__ import annotations

import torch
from torch import nn

from mmtok.exporting import exporting


class Which(nn.Module):
    def forward(self, x):
        return x + 1 if exporting() else x - 1


def test_an_export_is_one_and_a_compilation_is_none():
    # In torch 2.11 `torch.compiler.is_exporting` is true in both.
    x = torch.zeros(2)
    assert Which()(x).tolist() == [-1, -1]
    for fullgraph in (False, True):
        torch._dynamo.reset()
        assert torch.compile(Which(), fullgraph=fullgraph, backend="aot_eager")(x).tolist() == [-1, -1]
    assert torch.export.export(Which(), (x,), strict=False).module()(x).tolist() == [1, 1]
