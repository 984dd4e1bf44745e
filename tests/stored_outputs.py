"""Outputs in stores: what is left here of them, and whether they are what others are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import layerprobe


def waiting(tmp_path: Path) -> list[str]:
    """What is in the scratch place."""
    return sorted(path.name for path in (tmp_path / "scratch").rglob("*") if path.is_file())


def same(one: str | Path, other: str | Path) -> None:
    with layerprobe.open(one) as first, layerprobe.open(other) as second:
        assert list(first) == list(second)
        assert (first.paths, first.status, first.error) == (second.paths, second.status, second.error)
        for name in first:
            np.testing.assert_array_equal(np.asarray(first[name]), np.asarray(second[name]))
            np.testing.assert_array_equal(first[name][1:3], second[name][1:3])
            np.testing.assert_array_equal(first[name][-1], second[name][-1])
