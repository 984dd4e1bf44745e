"""Every layer of architectures of keras.applications, by both engines, against Keras's own `predict`.

The gate takes a few, small images and few classes. All of them, as a table:
`LAYERPROBE_APPLICATIONS=all python -m pytest tests/test_applications.py -s`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from graph_reference import RANDOM, relative_error

from layerprobe.engines.keras_tensorflow import KerasTensorFlowEngine
from layerprobe.engines.tracing import model_inputs
from layerprobe.layer_listing import layers
from layerprobe.probe import Probe
from layerprobe.records import Tap

pytestmark = pytest.mark.slow

SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "NASNetLarge": 331, "Xception": 71}
"""The sides below which an architecture cannot be built, where 32 is not enough."""
FEW = {
    "ConvNeXtTiny": ("keras",),
    "DenseNet121": ("h5",),
    "EfficientNetB0": ("keras",),
    "InceptionResNetV2": ("keras",),
    "InceptionV3": ("h5",),
    "MobileNetV2": ("h5",),
    "MobileNetV3Small": ("keras",),
    "NASNetMobile": ("keras",),
    "ResNet50": ("h5",),
    "VGG16": ("keras",),
    "Xception": ("h5",),
}
"""Those that the gate runs, and as which kinds of file."""
ALL = {
    name: ("h5", "keras")
    for name, build in inspect.getmembers(keras.applications, callable)
    if "weights" in inspect.signature(build).parameters
}
CASES = ALL if os.environ.get("LAYERPROBE_APPLICATIONS") == "all" else FEW


class Application(NamedTuple):
    """An architecture with random weights and statistics, images, and every layer's values by `predict`."""

    name: str
    model: Any
    images: Any
    every: Any
    """The model with every layer as an output."""
    expected: dict[str, Any]


@pytest.fixture(scope="module", params=CASES)
def application(request: pytest.FixtureRequest) -> Iterator[Application]:
    keras.utils.set_random_seed(3)
    size = SMALLEST.get(request.param, 32)
    model = getattr(keras.applications, request.param)(weights=None, input_shape=(size, size, 3), classes=10)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(RANDOM.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(RANDOM.uniform(0.5, 1.5, layer.moving_variance.shape))
    images = RANDOM.uniform(0, 255, (3, size, size, 3)).astype("float32")
    every = keras.Model(model.inputs, [layer.output for layer in model.layers])
    every.compile(run_eagerly=True)  # What runs once is not worth compiling.
    names = [layer.name for layer in model.layers]
    expected = dict(zip(names, every.predict(images, verbose=0), strict=True))
    yield Application(request.param, model, images, every, expected)
    keras.utils.clear_session()


def assert_equal(found: dict[str, Any], application: Application, by: str) -> None:
    """Relative error below 1e-5, past 100 layers 1e-4, or ten times what a millionth more of input changes.

    The deepest architectures have, with random weights, no fifth digit.
    """
    name, _, images, every, expected = application
    assert list(found) == list(expected)
    errors = {layer: relative_error(found[layer], wanted) for layer, wanted in expected.items()}
    worst = max(errors, key=errors.__getitem__)
    print(f"\n{name} {by}: {len(errors)} layers, worst {errors[worst]:.1e} in {worst}")
    limit = 1e-5 if len(errors) <= 100 else 1e-4
    if not errors[worst] < limit:
        moved = every.predict(images * np.float32(1.000001), verbose=0)
        for (layer, wanted), other in zip(expected.items(), moved, strict=True):
            assert errors[layer] < max(limit, 10 * relative_error(other, wanted)), layer


def test_every_layer_of_the_live_model_equals_predict(application: Application) -> None:
    model = application.model
    taps = [Tap(name) for name in application.expected]
    engine = KerasTensorFlowEngine(model, taps, inputs=model_inputs(model), batch_size=3)
    assert_equal(engine.run([application.images]), application, "keras")
    expected = application.expected.values()
    assert [spec.shape for spec in engine.outputs] == [values.shape[1:] for values in expected]


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_every_layer_of_the_saved_file_equals_predict(application: Application, tmp_path: Path) -> None:
    names = list(application.expected)
    for suffix in CASES[application.name]:
        path = tmp_path / f"m.{suffix}"
        application.model.save(path)
        by_index = {layer.index: layer.address for layer in layers(path)}
        assert [by_index[index] for index in range(len(names))] == names
        found = Probe(path, names, engine="graph")(application.images)
        assert_equal(found, application, f"graph {suffix}")
        path.unlink()
