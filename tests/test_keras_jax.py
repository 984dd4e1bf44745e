"""The Keras engine on JAX gives in a process without TensorFlow what the TensorFlow engine gives here."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from layerprobe.probe import Probe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

pytest.importorskip("jax")

HERE = Path(__file__).parent
PLACES = {
    "vgg_shapes.h5": ["conv1_1", "pre:conv5_3", "conv5_3", "pre:predictions", "output"],
    "nested_shapes.keras": ["backbone/conv1", "in:backbone", "backbone/out3", "backbone", "pre:predictions"],
    "two_inputs.keras": ["conv1", "output", "asked"],
    "subclassed_shapes.keras": ["*", "output"],
}
"""Sample model -> what is recorded of it."""


def test_all_that_the_engine_does_it_does_without_tensorflow(tmp_path, samples, monkeypatch):
    pytest.importorskip("tf_keras")
    from test_masked_states import decoder_model

    monkeypatch.syspath_prepend(samples)
    from subclassed_shapes import ShapeClassifier

    for name, places in PLACES.items():
        custom = {"ShapeClassifier": ShapeClassifier} if name.startswith("subclassed") else {}
        probe = Probe(samples / name, places, engine="keras", custom_objects=custom)
        random = np.random.default_rng(5)
        shapes = [spec.shape for spec in probe._probed.inputs]
        given = [
            random.uniform(0, 255 if len(shape) == 3 else 1, (3, *shape)).astype("f4") for shape in shapes
        ]
        expected = probe(given if len(given) > 1 else given[0])
        arrays = {f"given{number}": array for number, array in enumerate(given)}
        np.savez(tmp_path / f"{name}.npz", **arrays, **expected)
    decoder_model("LSTM", 2).save(tmp_path / "decoder.h5")
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # Compiles in half the time.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(HERE / "without_tensorflow.py")],
        cwd=HERE.parent, env=environment | {"EXPECTED": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
