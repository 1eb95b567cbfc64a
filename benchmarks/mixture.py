"""The mixture table: shares asked and got over windows of several lengths: `python -m benchmarks.mixture`.

Nothing is read: the order is arithmetic. For each window length the worst set of the worst window is shown, over
windows at the start of a run and a billion samples later.
"""

from __future__ import annotations

import argparse

import numpy as np

from datamodules.order import StreamOrder

MIXTURES = ((0.5, 0.5), (0.9, 0.1), (0.7, 0.2, 0.1), (0.01, 0.99), (1, 2, 3, 4, 5, 6))
WINDOWS = (64, 256, 1024, 8192)
STARTS = (0, 1_000_000_007)
STRETCH = 16_384
"""Slots looked at from each start."""


def chosen(order: StreamOrder, start: int) -> np.ndarray:
    """(STRETCH,) the set of each slot."""
    return np.array([order.locate(slot)[0] for slot in range(start, start + STRETCH)])


def off(found: np.ndarray, number: int, share: float, window: int, step: int = 8) -> float:
    """Samples by which a set's count differs from its share in the worst window."""
    sums = np.concatenate([[0], np.cumsum(found == number)])
    counts = (sums[window:] - sums[:-window])[::step]
    return float(abs(counts - share * window).max())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=8)
    args = parser.parse_args()
    print(
        f"{args.streams} streams; got: share of the first set in the first window; off: samples, worst set and window\n"
    )
    heads = "".join(f" got in {window:,} | off |" for window in WINDOWS)
    print(f"| weights | share asked |{heads} off after 10^9 samples |")
    print("|" + "---|" * (3 + 2 * len(WINDOWS)))
    for weights in MIXTURES:
        order = StreamOrder([[10_000]] * len(weights), weights=weights, streams=args.streams)
        shares = [weight / sum(weights) for weight in weights]
        found = [chosen(order, start) for start in STARTS]
        cells = []
        for window in WINDOWS:
            worst = max(off(one, number, share, window) for one in found for number, share in enumerate(shares))
            cells += [f"{(found[0][:window] == 0).mean():.4f}", f"{worst:.1f}"]
        drift = max(
            abs(count - share * STARTS[1]) for count, share in zip(order.progress(STARTS[1]), shares, strict=True)
        )
        print(f"| {' : '.join(map(str, weights))} | {shares[0]:.4f} | {' | '.join(cells)} | {drift:.1f} |", flush=True)


if __name__ == "__main__":
    main()
