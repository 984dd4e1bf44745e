"""`Probe` in a long session: several threads, and batches that do not fit."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from layerprobe import LayerprobeError, Probe

RANDOM = np.random.default_rng(8)


@pytest.mark.slow
def test_threads_that_share_a_probe_get_their_own_numbers(samples: Path) -> None:
    probe = Probe(samples / "vgg_shapes.h5", ["pool1", "predictions"], engine="graph")
    images = RANDOM.uniform(0, 255, (8, 112, 112, 3)).astype("float32")
    alone = [probe(image[None]) for image in images]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda image: probe(image[None]), np.tile(images, (25, 1, 1, 1))))

    assert len(together) == 200
    for number, found in enumerate(together):
        for name, values in alone[number % 8].items():
            np.testing.assert_array_equal(found[name], values)


def test_a_batch_of_another_shape_is_told_and_no_other_engine_is_tried(samples: Path) -> None:
    probe = Probe(samples / "vgg_shapes.h5", ["conv1_1"])
    imported = {"tensorflow", "jax"} & sys.modules.keys()
    for shape, received in (
        ((4, 111, 112, 3), r"\(N, 111, 112, 3\)"),
        ((112, 112, 3), r"\(N, 112, 3\)"),
        ((2, 3, 112, 112), r"\(N, 3, 112, 112\)"),
    ):
        with pytest.raises(LayerprobeError, match=rf"takes arrays of shape \(N, 112, 112, 3\).*{received}"):
            probe(np.zeros(shape, "float32"))
    assert {"tensorflow", "jax"} & sys.modules.keys() == imported
    assert probe(np.zeros((1, 112, 112, 3)))["conv1_1"].shape == (1, 112, 112, 8)
