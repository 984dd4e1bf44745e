"""Models that take images or sequences of any size, on the graph engine."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from graph_reference import RANDOM, randomise, relative_error

from layerprobe import extract, open
from layerprobe.engines.graph import engine as graph_engine
from layerprobe.probe import KEPT_ENGINES, Probe

pytestmark = pytest.mark.slow

L = keras.layers


def of_any_size() -> Any:
    """Layers whose padding, windows and shares depend on how large the image is."""
    x = keras.Input((None, None, 3), name="x")
    y = L.Conv2D(4, 3, strides=2, padding="same", name="strided")(x)
    y = L.MaxPooling2D(3, 2, padding="same", name="windows")(y)
    inner_in = keras.Input((None, None, 4))
    inner = keras.Model(inner_in, L.Conv2DTranspose(4, 3, strides=2, padding="same")(inner_in), name="inner")
    y = L.UpSampling2D(2, interpolation="bilinear", name="larger")(inner(y))
    y = L.Resizing(7, 9, name="resized")(y)
    y = L.GroupNormalization(2, name="normalised")(y)
    model = keras.Model(x, L.Dense(3, name="last")(L.GlobalAveragePooling2D(name="pooled")(y)))
    randomise(model)
    return model


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The compilations, as they happen."""
    happened: list[Any] = []
    original = graph_engine.CompiledModel
    monkeypatch.setattr(
        graph_engine, "CompiledModel", lambda *given: (happened.append(given), original(*given))[1]
    )
    return happened


def test_images_of_two_sizes_in_turn_are_compiled_once_each(tmp_path, compiled):
    model = of_any_size()
    model.save(tmp_path / "m.keras")
    layers = [layer for layer in model.layers if layer.name != "inner"]
    names = [layer.name for layer in layers]
    every = keras.Model(model.inputs, [layer.output for layer in layers])
    probe = Probe(tmp_path / "m.keras", names, engine="graph")
    for height, width in [(9, 12), (16, 7), (9, 12), (16, 7)]:
        images = RANDOM.normal(size=(2, height, width, 3)).astype("float32")
        found = probe(images)
        for name, wanted in zip(names, every([images], training=False), strict=True):
            assert relative_error(found[name], np.asarray(wanted)) < 1e-5, name
    assert len(compiled) == 2


def test_only_so_many_sizes_stay_compiled(tmp_path, compiled):
    keras.Sequential([keras.Input((None, 2)), L.Conv1D(2, 1, name="c")]).save(tmp_path / "m.keras")
    probe = Probe(tmp_path / "m.keras", ["c"], engine="graph")
    for length in [*range(1, KEPT_ENGINES + 2), KEPT_ENGINES + 1, 1]:
        assert probe(np.ones((1, length, 2), "float32"))["c"].shape == (1, length, 2)
    assert len(compiled) == KEPT_ENGINES + 2
    assert len(probe._engines) == KEPT_ENGINES


def test_sequences_of_any_length_equal_keras(tmp_path):
    layers = [L.Conv1D(5, 3, padding="same", strides=2), L.LSTM(3), L.Dense(2, name="last")]
    model = keras.Sequential([keras.Input((None, 4)), *layers])
    model.save(tmp_path / "m.keras")
    probe = Probe(tmp_path / "m.keras", ["last"], engine="graph")
    for length in (5, 8, 1):
        steps = RANDOM.normal(size=(2, length, 4)).astype("float32")
        assert relative_error(probe(steps)["last"], np.asarray(model(steps))) < 1e-5


def test_a_model_of_any_size_runs_at_the_size_that_is_given(tmp_path, samples):
    model = of_any_size()
    model.save(tmp_path / "m.keras")
    images = [str(samples / "images")]
    extract(tmp_path / "m.keras", images, ["x", "last"], tmp_path / "o.npz", size=(33, 47), engine="graph")
    with open(tmp_path / "o.npz") as stored:
        pixels, last = stored["x"][:], stored["last"][:]
    assert pixels.shape[1:] == (33, 47, 3)
    assert relative_error(last, np.asarray(model(pixels))) < 1e-5


@pytest.mark.parametrize("rows", [1, 3, 32, 70])
def test_batches_of_any_size_equal_keras_and_a_few_compilations_serve_them(tmp_path, compiled, rows):
    """Sums of convolutions over few pixels are what OpenVINO computes wrong for an open batch size."""
    x = keras.Input((5, 1), name="x")
    model = keras.Model(x, L.Add(name="sum")([L.Conv1D(4, 2)(x), L.Conv1D(4, 2)(x)]))
    randomise(model)
    model.save(tmp_path / "m.keras")
    probe = Probe(tmp_path / "m.keras", ["sum"], engine="graph")
    values = RANDOM.normal(size=(rows, 5, 1)).astype("float32")
    for count in (rows, max(1, rows - 1)):
        found = probe(values[:count])["sum"]
        assert relative_error(found, np.asarray(model(values[:count]))) < 1e-5
    assert len(compiled) <= 2
