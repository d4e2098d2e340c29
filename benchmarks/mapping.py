"""`python -m benchmarks.mapping`: maps between streams of the widths of 14B and 8B models.

Fits every method from joint moments of widths 5,120 and 4,096 in four folds, and prints seconds and
peak memory. Reading the prompts is not counted; the moments are what remains of them. Run it alone.
"""

import os
import resource
import sys
import time

import torch

from em_interp.maps import Anchors, Folds, Method, Space, SpaceMap, fit
from em_interp.sites import Site

WIDTHS = (5120, 4096)
ROWS, SHARED, TARGET = 2000, 200, 60.0
METHODS = (Method.RIDGE, Method.PROCRUSTES, Method.CCA, Method.RELATIVE)


def material() -> tuple[Folds, Anchors]:
    """Two streams that share `SHARED` axes of decaying variance, each with noise of its own."""
    seed = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=seed)

    scale = torch.logspace(0.5, -0.5, SHARED)
    axes = [draw(SHARED, width) for width in WIDTHS]
    folds = Folds(*WIDTHS)
    kept = []
    for start in range(0, ROWS, 250):
        shared = draw(250, SHARED) * scale
        x, y = (shared @ one + 2 * draw(250, one.shape[1]) for one in axes)
        folds.update(x, y, torch.arange(start, start + 250) % 4)
        kept.append((x[:32], y[:32], torch.arange(start, start + 32) % 4))
    x, y, fold = (torch.cat(column) for column in zip(*kept, strict=True))
    return folds, Anchors(x, y, fold)


def main() -> int:
    """Exit code 1 where a method takes longer than `TARGET` seconds."""
    start = time.monotonic()
    folds, anchors = material()
    print(f"moments of {ROWS} rows: {time.monotonic() - start:.1f} s")
    spaces = [Space(name, Site(0), width) for name, width in zip("ab", WIDTHS, strict=True)]
    slowest = 0.0
    for method in METHODS:
        start, busy = time.monotonic(), time.process_time()
        one: SpaceMap = fit(method, folds, spaces[0], spaces[1], anchors=anchors)
        seconds = time.monotonic() - start
        slowest = max(slowest, seconds)
        print(
            f"{method.value}: {seconds:.1f} s ({time.process_time() - busy:.1f} s of processor), "
            f"rank {one.fit.rank}, penalty {one.fit.penalty:g}, explained {one.fit.held_in:.3f}",
            flush=True,
        )
    start = time.monotonic()
    _ = one.inverse
    print(f"inverse: {time.monotonic() - start:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"peak {peak:.1f} GiB; {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; "
        f"target: each below {TARGET:.0f} s"
    )
    return 0 if slowest < TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
