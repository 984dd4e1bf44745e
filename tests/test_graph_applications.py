"""The graph engine against Keras: every layer of the architectures of keras.applications.

The gate takes a few, small images and few classes. All of them, as a table:
`LAYERPROBE_APPLICATIONS=all python -m pytest tests/test_graph_applications.py -s`.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from graph_reference import RANDOM, relative_error

from layerprobe.probe import Probe

pytestmark = pytest.mark.slow

SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "NASNetLarge": 331, "Xception": 71}
"""The sides below which an architecture cannot be built, where 32 is not enough."""
FEW = {
    "ConvNeXtTiny": "keras",
    "DenseNet121": "h5",
    "EfficientNetB0": "keras",
    "InceptionResNetV2": "keras",
    "InceptionV3": "h5",
    "MobileNetV2": "h5",
    "MobileNetV3Small": "keras",
    "NASNetMobile": "keras",
    "ResNet50": "h5",
    "VGG16": "keras",
    "Xception": "h5",
}
"""Those that the gate runs, and as which kind of file."""
ALL = sorted(
    name
    for name, build in inspect.getmembers(keras.applications, callable)
    if "weights" in inspect.signature(build).parameters
)
CASES = (
    [(name, suffix) for name in ALL for suffix in ("h5", "keras")]
    if os.environ.get("LAYERPROBE_APPLICATIONS") == "all"
    else list(FEW.items())
)


def built(name: str) -> tuple[Any, Any]:
    """The architecture, its normalisation moved away from doing nothing, and two images."""
    keras.utils.set_random_seed(3)
    size = SMALLEST.get(name, 32)
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(RANDOM.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(RANDOM.uniform(0.5, 1.5, layer.moving_variance.shape))
    return model, RANDOM.uniform(0, 255, (2, size, size, 3)).astype("float32")


@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_every_layer_of_an_architecture_equals_keras(name: str, suffix: str, tmp_path: Path) -> None:
    model, images = built(name)
    names = [layer.name for layer in model.layers]
    every = keras.Model(model.inputs, [layer.output for layer in model.layers])
    expected = every([images], training=False)
    path = tmp_path / f"m.{suffix}"
    model.save(path)
    found = Probe(path, names, engine="graph")(images)
    path.unlink()
    assert list(found) == names
    errors = {
        layer: relative_error(found[layer], np.asarray(wanted))
        for layer, wanted in zip(names, expected, strict=True)
    }
    worst = max(errors, key=errors.__getitem__)
    print(f"\n{name} {suffix}: {len(names)} layers, worst {errors[worst]:.1e} in {worst}")
    limit = 1e-5 if len(names) <= 100 else 1e-4
    if errors[worst] >= limit:
        # The deepest architectures have, with random weights, no fifth digit: a millionth moves them further.
        moved = every([images * np.float32(1.000001)], training=False)
        for layer, first, second in zip(names, expected, moved, strict=True):
            assert errors[layer] < max(limit, 10 * relative_error(np.asarray(second), np.asarray(first))), (
                layer
            )
    keras.utils.clear_session()
