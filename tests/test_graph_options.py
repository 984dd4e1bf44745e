"""The graph engine against Keras: one small model at a time, of any class with any options.

What Keras itself refuses is not drawn. More examples than a gate has time for:
`LAYERPROBE_EXAMPLES=300 python -m pytest tests/test_graph_options.py`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from graph_options import OPTIONS, Drawn
from graph_reference import randomise, relative_error
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from layerprobe.engines.graph.images import IN_TRAINING
from layerprobe.engines.graph.tables import LAYERS
from layerprobe.probe import Probe

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("LAYERPROBE_EXAMPLES", "5"))


def model_of(class_name: str, shape: tuple[int, ...], arguments: dict[str, Any], turned: bool) -> Any:
    """The layer, behind a convolution that leaves its tensor channels-first where `turned`."""
    y = x = keras.Input(shape, name="x")
    if turned and 2 <= len(shape) <= 4:
        y = getattr(keras.layers, f"Conv{len(shape) - 1}D")(shape[-1], 1, name="before")(x)
    y = getattr(keras.layers, class_name)(**arguments, name="layer")(y)
    return keras.Model(x, y)


def computed(class_name: str, drawn: Drawn, shape: tuple[int, ...], arguments: Any, turned: bool) -> Any:
    """A model with weights, inputs, and Keras's values; rejects what Keras refuses."""
    try:
        model = model_of(class_name, shape, arguments, turned)
        random = np.random.default_rng(0)
        randomise(model, random)
        values = random.normal(size=(3, *shape)).astype("float32")
        if class_name == "CategoryEncoding":
            values = random.integers(0, arguments["num_tokens"], (3, *shape)).astype("float32")
        wanted = np.asarray(model(values, training=False))
    except (ValueError, TypeError, ZeroDivisionError, IndexError, AssertionError, UserWarning):
        reject()
    except Exception as error:
        if "tensorflow" not in type(error).__module__:
            raise
        reject()
    if not wanted.size or not np.isfinite(wanted).all():
        reject()
    return model, values, wanted


@pytest.mark.parametrize("class_name", sorted(OPTIONS))
def test_any_options_of_a_class_give_what_keras_gives(class_name: str, tmp_path: Any) -> None:
    drawn = OPTIONS[class_name]

    @settings(
        max_examples=EXAMPLES,
        derandomize="LAYERPROBE_EXAMPLES" not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    @given(drawn.shape, drawn.arguments(), st.booleans(), st.booleans())
    def compare(shape: Any, arguments: Any, turned: bool, first: bool) -> None:
        first = first and drawn.has_data_format and len(shape) > 1
        if first and arguments.get("activation") in ("softmax", "log_softmax"):
            reject()  # Of the last axis, which is another then.
        model, values, wanted = computed(class_name, drawn, shape, arguments, turned and not first)
        if first:
            # Keras has no convolution with channels first on a processor: the same one with channels last
            # says what it would give.
            weights = model.get_weights()
            arguments = {**arguments, "data_format": "channels_first"}
            model = model_of(class_name, (shape[-1], *shape[:-1]), arguments, False)
            model.set_weights(weights)
            values = np.moveaxis(values, -1, 1)
            wanted = np.moveaxis(wanted, -1, 1) if wanted.ndim == values.ndim else wanted
        model.save(tmp_path / "m.keras")
        (found,) = Probe(tmp_path / "m.keras", ["layer"], engine="graph")(values).values()
        assert relative_error(found, wanted) < 1e-5

    compare()
    keras.utils.clear_session()


def test_every_class_of_the_graph_engine_is_drawn_or_has_a_test_of_its_own() -> None:
    assert set(OPTIONS) <= set(LAYERS)
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named_alone = set(LAYERS) - set(OPTIONS) - set(IN_TRAINING)
    assert {name for name in named_alone if not re.search(rf"\b{name}\b", tests)} == set()
