"""How much there is in a signal, as lossless compression sees it, and whether two orders of items agree."""

from __future__ import annotations

import io

from torch import Tensor


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's, with ties at their mean rank; NaN where one side is constant."""
    from scipy.stats import spearmanr

    if bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return float("nan")
    return float(spearmanr(a.numpy(), b.numpy()).statistic)


def packed_size(x: Tensor, rate: int | None) -> int:
    """Bytes of one signal (C, ...) as PNG, or of a sound as FLAC of 16 bits: how much there is in it, roughly.

    0 of a vector (F,), which nothing packs.
    """
    if x.ndim == 1:
        return 0
    file = io.BytesIO()
    if rate is None:
        from mmtok.tokenizers.pixels import to_pil

        to_pil(x[None])[0].save(file, "png", optimize=True)
    else:
        import soundfile

        soundfile.write(file, x.T.numpy(), rate, format="FLAC", subtype="PCM_16")
    return len(file.getvalue())
