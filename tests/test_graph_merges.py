"""The graph engine against Keras: layers and operations of several tensors."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from graph_reference import RANDOM, randomise, relative_error

from layerprobe.probe import Probe

pytestmark = pytest.mark.slow


L = keras.layers


MERGES = {
    "add": lambda a, b, v: L.Add()([a, b, a]),
    "average": lambda a, b, v: L.Average()([a, b]),
    "add vector": lambda a, b, v: L.Add()([a, v]),
    "concatenate": lambda a, b, v: L.Concatenate()([a, b]),
    "concatenate axis 1": lambda a, b, v: L.Concatenate(axis=1)([a, b]),
    "dot": lambda a, b, v: L.Dot(axes=2)([L.Reshape((-1, 4))(a), L.Reshape((-1, 4))(b)]),
    "dot of vectors": lambda a, b, v: L.Dot(axes=-1, normalize=True)([v, v]),
    "dot of vector and matrix": lambda a, b, v: L.Dot(axes=(1, 2))([v, L.Reshape((-1, 4))(b)]),
    "maximum": lambda a, b, v: L.Maximum()([a, b]),
    "minimum": lambda a, b, v: L.Minimum()([a, b]),
    "multiply": lambda a, b, v: L.Multiply()([a, L.Reshape((1, 1, 4))(v)]),
    "subtract": lambda a, b, v: L.Subtract()([a, b]),
    "operators": lambda a, b, v: -(a * 2.0 - b) / 3.0 + 1.0,
    "operations": lambda a, b, v: keras.ops.concatenate([a[:, ::2, 1:-1, ::-1], b[:, 1::2, :-2]], axis=2),
    "reductions": lambda a, b, v: (
        keras.ops.mean(a, axis=(1, 2), keepdims=True) * keras.ops.max(b, axis=-1)[..., None]
    ),
    "reshaping": lambda a, b, v: keras.ops.transpose(keras.ops.reshape(a, (-1, 6, 4, 8)), (0, 2, 1, 3)),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("case", MERGES)
def test_every_merge_equals_keras(case, turned, tmp_path):
    a, b, v = keras.Input((6, 8, 4), name="a"), keras.Input((6, 8, 4), name="b"), keras.Input((4,), name="v")
    a2 = L.Conv2D(4, 1)(a) if turned else a
    model = keras.Model([a, b, v], [MERGES[case](a2, b, v), L.Dense(2)(v)])
    shapes = [(2, 6, 8, 4), (2, 6, 8, 4), (2, 4)]
    arrays = [RANDOM.normal(size=shape).astype("float32") for shape in shapes]
    randomise(model)
    model.save(tmp_path / "m.keras")
    expected = [np.asarray(values) for values in model(arrays)]
    found = Probe(tmp_path / "m.keras", ["output"], engine="graph")(arrays)
    assert list(found) == ["output:0", "output:1"]
    for values, wanted in zip(found.values(), expected, strict=True):
        assert relative_error(values, wanted) < 1e-5
