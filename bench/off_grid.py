#!/usr/bin/env python3
"""Moves the weights of an F32 file off the grid that an earlier quantization has left them on, in place.

    off_grid.py FILE.gguf [--seed 1]

A model that is published quantized only, written as F32, has few values per block: types of that grid would store it without any loss, as no
type does with a real float model. Every weight moves evenly distributed by at most half a step of its block, so that rounding to the
published type gives the published codes back. A step is the least difference in 16 neighbours. Needs PyPI numpy and gguf.
"""
import argparse
import sys

import gguf
import numpy as np

GROUP = 16      # the shortest block with a scale of its own
SMALLEST = 1e-3  # of the group's range: what is less is rounding, not a step


def steps(groups):
    """The grid's step of each row, 0 where all values are equal."""
    ordered = np.sort(groups, axis=1)
    gaps = np.diff(ordered, axis=1)
    span = ordered[:, -1:] - ordered[:, :1]
    least = np.where(gaps > SMALLEST * span, gaps, np.inf).min(axis=1)
    return np.where(np.isfinite(least), least, 0)


def move(values, rng):
    """values: float32, a multiple of GROUP of them; changed in place."""
    groups = values.reshape(-1, GROUP)
    groups += (rng.random(groups.shape, dtype=np.float32) - np.float32(0.5)) * steps(groups)[:, None].astype(np.float32)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    rng = np.random.default_rng(a.seed)
    matrices = [t for t in gguf.GGUFReader(a.file, "r+").tensors if len(t.shape) > 1]
    for t in matrices:
        if t.tensor_type != gguf.GGMLQuantizationType.F32 or t.n_elements % GROUP:
            raise SystemExit(f"{a.file}: {t.name}: wanted F32 and rows of a multiple of {GROUP}, found {t.tensor_type.name}, {t.n_elements} values")
    for t in matrices:
        move(t.data, rng)
    return 0


if __name__ == "__main__":
    sys.exit(main())
