"""The graph engine: what it hands over, how its tensors are named, and what it leaves to Keras."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from graph_reference import RANDOM, randomise, relative_error

from layerprobe.errors import UnavailableError
from layerprobe.probe import Probe

pytestmark = pytest.mark.slow


L = keras.layers


def test_every_kind_of_tap_is_named_and_valued_as_by_keras(tmp_path):
    inner_in = keras.Input((6, 6, 3), name="inner_in")
    y = L.Conv2D(4, 3, activation="relu", name="conv")(inner_in)
    inner = keras.Model(inner_in, [y, L.GlobalAveragePooling2D(name="pool")(y)], name="inner")
    left, right = keras.Input((6, 6, 3), name="left"), keras.Input((6, 6, 3), name="right")
    (_, p1), (m2, p2) = inner(left), inner(right)
    states = L.LSTM(3, return_state=True, name="lstm")(L.Reshape((16, 4), name="steps")(m2))
    merged = L.Concatenate(name="merged")([p2, p1, states[1]])
    model = keras.Model([left, right], L.Dense(2, activation="softmax", name="last")(merged), name="whole")
    randomise(model)
    model.save(tmp_path / "m.keras")
    taps = ["left", "inner", "inner/conv@1", "pre:inner/conv", "in:inner/conv", "inner/inner_in", "in:merged"]
    taps += ["lstm", "lstm:2", "pre:last", "in:last", "output", "inner:1", "inner/pool", "merged"]
    arrays = [RANDOM.normal(size=(3, 6, 6, 3)).astype("float32") for _ in range(2)]
    found = Probe(tmp_path / "m.keras", taps, engine="graph")(arrays)
    expected = Probe(tmp_path / "m.keras", taps, engine="keras")(arrays)
    assert list(found) == list(expected)
    for name, wanted in expected.items():
        assert relative_error(found[name], wanted) < 1e-5, name


def test_only_the_inputs_that_the_taps_need_are_asked_for(tmp_path):
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    y = L.Dense(4, name="of_b")(b)
    model = keras.Model({"a": a, "b": b}, L.Concatenate()([a, y]))
    model.save(tmp_path / "m.keras")
    x = np.ones((2, 3), "float32")
    found = Probe(tmp_path / "m.keras", ["of_b"], engine="graph")(x)
    assert relative_error(found["of_b"], np.asarray(model.get_layer("of_b")(x))) < 1e-6


def test_a_padded_batch_gives_every_row_the_numbers_of_a_full_one(samples):
    from layerprobe.options import ModelOptions
    from layerprobe.run.probed_model import ProbedModel

    probed = ProbedModel(samples / "vgg_shapes.h5", ["output"], ModelOptions(), "graph")
    engine = probed.engine(probed.inputs, batch_size=4)
    x = RANDOM.uniform(0, 1, (4, *probed.inputs[0].shape)).astype("float32")
    full = engine.run([x])["output"]
    np.testing.assert_array_equal(engine.run([x[:1]])["output"], full[:1])
    assert engine.describe()["precision"] == "float32"


@pytest.mark.parametrize(
    "name", ["vgg_shapes.h5", "vgg_shapes.keras", "nested_shapes.keras", "two_inputs.keras"]
)
def test_every_layer_of_the_sample_models_equals_keras(name, samples):
    arrays = []
    graph, reference = (
        Probe(samples / name, ["**", "output"], engine=engine) for engine in ("graph", "keras")
    )
    for spec in graph._probed.inputs:
        arrays.append(RANDOM.uniform(0, 1, (3, *(size or 8 for size in spec.shape))).astype(spec.dtype))
    found, expected = (probe(arrays if len(arrays) > 1 else arrays[0]) for probe in (graph, reference))
    assert list(found) == list(expected)
    for layer, wanted in expected.items():
        assert relative_error(found[layer], wanted) < 1e-5, layer


def test_what_the_graph_engine_lacks_is_named_and_goes_to_keras(tmp_path):
    x = keras.Input((4096,), name="x")
    model = keras.Model(x, L.MelSpectrogram(name="mel")(x))
    model.save(tmp_path / "m.keras")
    sound = RANDOM.normal(size=(1, 4096)).astype("float32")
    with pytest.raises(UnavailableError, match=r"MelSpectrogram \(layer 'mel'\)"):
        Probe(tmp_path / "m.keras", ["mel"], engine="graph")(sound)
    probe = Probe(tmp_path / "m.keras", ["mel"])
    assert relative_error(probe(sound)["mel"], np.asarray(model(sound))) < 1e-5
    assert "MelSpectrogram (layer 'mel')" in probe._probed.note


def test_training_and_live_models_are_keras_s_alone(tmp_path, samples):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, L.Dropout(0.5, name="d")(x))
    model.save(tmp_path / "m.keras")
    ones = np.ones((8, 3), "float32")
    dropped = Probe(tmp_path / "m.keras", ["d"], training=True, seed=1)(ones)["d"]
    assert set(np.unique(dropped)) == {0.0, 2.0}
    with pytest.raises(UnavailableError, match="training"):
        Probe(tmp_path / "m.keras", ["d"], engine="graph", training=True)(ones)
    with pytest.raises(UnavailableError, match="a live model"):
        Probe(model, ["d"], engine="graph")(ones)
    assert np.array_equal(Probe(model, ["d"])(ones)["d"], ones)


def test_weights_of_another_shape_are_never_run(tmp_path):
    import json
    import zipfile

    x = keras.Input((3,), name="x")
    keras.Model(x, L.Dense(2, name="d")(x)).save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as old, zipfile.ZipFile(tmp_path / "n.keras", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                config["config"]["layers"][1]["config"]["units"] = 4
                data = json.dumps(config).encode()
            new.writestr(name, data)
    with pytest.raises(UnavailableError, match="weight kernel of shape"):
        Probe(tmp_path / "n.keras", ["d"], engine="graph")(np.ones((1, 3), "float32"))


def test_extracting_imports_no_framework(samples, tmp_path):
    image = next((samples / "images").iterdir())
    code = (
        "import sys\nfrom layerprobe import extract\n"
        f"extract({str(samples / 'vgg_shapes.h5')!r}, [{str(image)!r}], ['output'], "
        f"{str(tmp_path / 'o.npz')!r})\n"
        "print(*{name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'jax', 'tf_keras'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_results_stay_while_the_next_batch_is_computed_and_run_gives_the_callers_own(samples):
    from layerprobe.options import ModelOptions
    from layerprobe.run.probed_model import ProbedModel

    probed = ProbedModel(samples / "vgg_shapes.h5", ["conv5_3"], ModelOptions(), "graph")
    engine = probed.engine(probed.inputs, batch_size=2)
    batches = RANDOM.uniform(0, 255, (5, 2, *probed.inputs[0].shape)).astype("float32")
    expected = [engine.run([x])["conv5_3"] for x in batches]
    assert relative_error(expected[0], expected[1]) > 0.01
    before = engine.start([batches[0]])
    for number in range(1, 5):
        following = engine.start([batches[number]])
        results = before()["conv5_3"]
        np.testing.assert_array_equal(engine.run([batches[0]])["conv5_3"], expected[0])
        following()
        np.testing.assert_array_equal(results, expected[number - 1])
        before = following
    np.testing.assert_array_equal(before()["conv5_3"], expected[4])
