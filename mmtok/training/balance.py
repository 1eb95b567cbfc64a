"""Terms of different natures made comparable: by the length of their gradients where they meet, at the codes' values.

As EnCodec's balancer does at its output (Defossez et al. 2022, arXiv 2210.13438, 3.4), and taming's adaptive weight at
the decoder's last layer; here for terms that look at codes and not at signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmtok.reduce import mean_over_ranks

MOST = 1e4
"""Of a factor: a term whose gradient vanishes is not blown up without bound."""
_TINY = 1e-12


def balanced(
    terms: Mapping[str, Tensor], scaled: Mapping[str, float], values: Tensor, first: Tensor | None = None
) -> dict[str, Tensor]:
    """Terms, of which some are scaled so that each one's gradient is `weight` times as long as that of the others' sum.

    Lengths are those of the gradients of the global batch: squares are averaged over ranks, by one collective.

    Args:
        terms: weighted terms of the objective.
        scaled: weights of those that are scaled, by their names.
        values: (B, T, D) of which terms are functions.
        first: (B, T, D) of the first level alone, which a scaled term may look at instead: no graph leads from there
            through `values`, and a length of 0 would stand for the term's.

    Returns:
        The same terms; without a graph, as in validation, as they were.
    """
    if not scaled or not torch.is_grad_enabled():
        return dict(terms)
    pull = torch.stack([term for name, term in terms.items() if name not in scaled]).sum()
    names = [name for name in terms if name in scaled]
    with torch.autocast(values.device.type, enabled=False):  # as the backward pass
        places = [values] if first is None else [values, first]
        squares = [_square(pull, [values]), *(_square(terms[name], places) for name in names)]
    lengths = mean_over_ranks(torch.stack(squares)).sqrt()
    weights = lengths.new_tensor([scaled[name] for name in names])
    factors = (weights * lengths[0] / (lengths[1:] + _TINY)).clamp(max=MOST)
    return dict(terms) | {name: terms[name] * factor for name, factor in zip(names, factors, strict=True)}


def _square(term: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Squared length of the gradient at the first of the places that the term is a function of."""
    gradients = torch.autograd.grad(term, places, retain_graph=True, allow_unused=True)
    found = next((gradient for gradient in gradients if gradient is not None), None)
    return places[0].new_zeros(()) if found is None else found.float().square().sum()
