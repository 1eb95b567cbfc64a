"""Latents to codes and back: every quantizer behind one registry.

```python
q = build_quantizer("rq", dim=64, codebook_size=1024, depth=8)
out = q(z)                  # z (B, T, D) -> out.values, out.ids (B, L, T), out.losses, out.stats
q.update(out.stats)         # after the optimiser's step: EMA, restarts, initialisation
```
"""

from mmtok.quantizers import bsq, fsq, gumbel, ibq, lfq, multiscale, none, product, residual, simvq, split, vq  # noqa: F401, registers
from mmtok.quantizers.base import Context, Quantized, Quantizer, QuantizerConfig, quantizers, register_quantizer

build_quantizer = quantizers.build
quantizer_names = quantizers.names

__all__ = [
    "Context", "Quantized", "Quantizer", "QuantizerConfig",
    "build_quantizer", "quantizer_names", "quantizers", "register_quantizer",
]  # fmt: skip
