"""The converted engine: right or not used, and quick the second time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

import layerprobe
from layerprobe.engines import converted
from layerprobe.engines.cache import Cache
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.errors import ResourceError, UnavailableError
from layerprobe.loading.custom import read_custom_objects
from layerprobe.options import ModelOptions
from layerprobe.pipeline import extract
from layerprobe.probe import Probe
from layerprobe.run.probed_model import ProbedModel

pytestmark = pytest.mark.slow

keras = pytest.importorskip("keras")
L = keras.layers
RANDOM = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("LAYERPROBE_CACHE", str(folder))
    return folder


def leave_only_the_cache(monkeypatch):
    """From now on what would load a model into Keras, or convert it, fails."""

    def fail(*_, **__):
        raise AssertionError("not from the cache")

    monkeypatch.setattr("layerprobe.engines.converted_model.convert", fail)
    monkeypatch.setattr("layerprobe.engines.keras_model.load", fail)


def without_graph_engine(monkeypatch):
    """Have `auto` ask the engines after it."""

    def refuse(*_):
        raise Unsupported("it is told not to")

    monkeypatch.setattr("layerprobe.run.probed_model.GraphFile", refuse)


def relative_error(found, wanted):
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    return float(np.abs(found.astype("float64") - wanted).max()) / max(float(np.abs(wanted).max()), 1e-30)


def images():
    x = keras.Input((9, 7, 3), name="image")
    y = L.Conv2D(4, 3, activation="relu", name="conv")(x)
    y = L.BatchNormalization(name="norm")(y)
    inner = keras.Sequential([keras.Input((7, 5, 4)), L.Conv2D(5, 2, name="deep")], name="inner")
    y = L.GlobalAveragePooling2D(name="pool")(inner(y))
    return keras.Model(x, [L.Dropout(0.5, name="drop")(y), L.Dense(3, activation="softmax", name="last")(y)])


def recurrent():
    x = keras.Input((6, 4), name="series")
    y = L.Bidirectional(L.LSTM(3, return_sequences=True), name="both")(L.Masking(0.0, name="mask")(x))
    return keras.Model(x, L.Dense(2, name="dense")(L.GRU(4, name="gru")(y)))


def two_inputs():
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    return keras.Model([b, a], L.Subtract(name="minus")([L.Dense(5, name="of_b")(b), a]))


MODELS = {"images": images, "recurrent": recurrent, "two inputs": two_inputs}


@pytest.fixture(params=MODELS)
def saved(request, tmp_path):
    """Path, the names of all layers, a batch, and what Keras gives for it."""
    keras.utils.set_random_seed(3)
    model = MODELS[request.param]()
    path = tmp_path / "model.keras"
    model.save(path)
    names = [layer.name for layer in model.layers]
    batch = [RANDOM.normal(size=(5, *x.shape[1:])).astype("float32") for x in model.inputs]
    every = keras.Model(model.inputs, [layer.output for layer in model.layers])
    values = [np.asarray(value) for value in keras.tree.flatten(every(batch, training=False))]
    return path, names, batch if len(batch) > 1 else batch[0], dict(zip(names, values, strict=True))


def test_every_layer_equals_keras_at_once_and_from_the_cache(saved, monkeypatch):
    path, names, batch, expected = saved
    first = Probe(path, names, engine="converted")(batch)
    leave_only_the_cache(monkeypatch)
    second = Probe(path, names, engine="converted")(batch)
    assert list(first) == list(second) == names
    for name, wanted in expected.items():
        assert relative_error(first[name], wanted) < 1e-5, name
        np.testing.assert_array_equal(second[name], first[name])


def test_one_conversion_serves_every_batch_size(saved, cache, monkeypatch):
    path, names, batch, expected = saved
    arrays = batch if isinstance(batch, list) else [batch]
    Probe(path, names, engine="converted")(batch)
    leave_only_the_cache(monkeypatch)
    for size in (1, 4, 5, 8):
        probed = ProbedModel(path, names, ModelOptions(), "converted", cache=Cache(str(cache)))
        rows = min(size, 3)
        found = probed.engine(probed.inputs, batch_size=size).run([array[:rows] for array in arrays])
        for name, wanted in expected.items():
            assert relative_error(found[name], wanted[:rows]) < 1e-5, (name, size)


@pytest.fixture
def dense(tmp_path):
    """Path of a small model, a batch for it, and what Keras gives."""
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="d"), L.ReLU(name="r")])
    model.layers[0].set_weights([RANDOM.normal(size=(4, 3)), RANDOM.normal(size=3)])
    model.save(tmp_path / "dense.keras")
    batch = RANDOM.normal(size=(6, 4)).astype("float32")
    return tmp_path / "dense.keras", batch, model.predict(batch, verbose=0)


def off_by_one(trace, outputs):
    """A conversion that is wrong."""
    right = converted.convert(trace, outputs)
    results = [op.result(op.add(one.input_value(0), np.float32(1))) for one in right.model.get_results()]
    return converted.Converted(ov.Model(results, right.model.get_parameters()), outputs)


def test_what_differs_from_keras_is_never_used(dense, tmp_path, monkeypatch):
    path, batch, expected = dense
    np.save(tmp_path / "in.npy", batch)
    without_graph_engine(monkeypatch)
    monkeypatch.setattr("layerprobe.engines.converted_model.convert", off_by_one)
    for _ in range(2):  # The second time it is known beforehand.
        report = extract(path, str(tmp_path / "in.npy"), ["r"], tmp_path / "out.npz", overwrite=True)
        with layerprobe.open(tmp_path / "out.npz") as output:
            np.testing.assert_array_equal(output["r"], expected)
            assert output.provenance["engine"]["name"] == "keras"
        (note,) = report.notes
        assert note.startswith("engine keras: the graph engine cannot run this model (it is told not to); ")
        assert "differs from Keras by more than 1e-05: largest relative difference" in note
        monkeypatch.setattr("layerprobe.engines.converted_model.convert", None)
    with pytest.raises(UnavailableError, match="converted engine cannot run this model .it differs"):
        Probe(path, ["r"], engine="converted")(batch)


def test_a_difference_under_an_engine_that_was_asked_for_is_an_error(dense, monkeypatch):
    path, batch, _ = dense
    monkeypatch.setattr("layerprobe.engines.converted_model.convert", off_by_one)
    with pytest.raises(UnavailableError, match="differs from Keras by more than 1e-05.*leave --engine out"):
        Probe(path, ["r"], engine="converted")(batch)


def test_the_note_says_how_far_the_engines_are_apart(dense, tmp_path, monkeypatch):
    path, batch, expected = dense
    np.save(tmp_path / "in.npy", batch)
    without_graph_engine(monkeypatch)
    options = {"overwrite": True, "batch_size": 6}
    for text in ("it agrees with Keras: ", "it agreed with Keras when it was converted: "):
        report = extract(path, str(tmp_path / "in.npy"), ["r"], tmp_path / "out.npz", **options)
        assert f"(it is told not to); {text}largest relative difference" in report.notes[0]
        assert report.notes[0].endswith("in 'r', 6 rows")
        with layerprobe.open(tmp_path / "out.npz") as output:
            np.testing.assert_allclose(output["r"], expected, rtol=1e-5, atol=1e-6)
            assert output.provenance["engine"]["name"] == "converted"
            assert {"openvino", "keras", "tensorflow"} <= set(output.provenance["versions"])


def test_nan_and_infinity_from_the_weights_are_agreed_on(tmp_path):
    model = keras.Sequential([keras.Input((2,)), L.Dense(3, name="d")])
    model.layers[0].set_weights([np.ones((2, 3)), np.array([np.nan, np.inf, 1.0])])
    model.save(tmp_path / "m.keras")
    batch = np.ones((1, 2), "float32")
    np.testing.assert_array_equal(
        Probe(tmp_path / "m.keras", ["d"], engine="converted")(batch)["d"], [[np.nan, np.inf, 3.0]]
    )


def test_another_model_under_the_same_name_is_converted_anew(dense, tmp_path):
    path, batch, expected = dense
    Probe(path, ["r"], engine="converted")(batch)
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="d"), L.ReLU(name="r")])
    model.save(path)
    found = Probe(path, ["r"], engine="converted")(batch)["r"]
    assert relative_error(found, model.predict(batch, verbose=0)) < 1e-5
    assert not np.allclose(found, expected)


def test_lookups_are_left_to_engines_that_notice_a_missing_entry(tmp_path):
    model = keras.Sequential([keras.Input((3,), dtype="int32"), L.Embedding(5, 2, name="e")])
    model.save(tmp_path / "m.keras")
    with pytest.raises(UnavailableError, match="index that a table lacks"):
        Probe(tmp_path / "m.keras", ["e"], engine="converted")(np.zeros((1, 3), "int32"))


def test_bfloat16_is_checked_in_float32_and_stored_as_asked(dense, tmp_path):
    path, batch, expected = dense
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("the processor has no bfloat16")
    np.save(tmp_path / "in.npy", batch)
    for _ in range(2):
        extract(
            *(path, str(tmp_path / "in.npy"), ["r"], tmp_path / "out.npz"),
            **{"engine": "converted", "precision": "bfloat16", "overwrite": True},
        )
        with layerprobe.open(tmp_path / "out.npz") as output:
            assert output.provenance["engine"]["precision"] == "bfloat16"
            assert 1e-6 < relative_error(np.asarray(output["r"]), expected) < 2e-2


def test_a_processor_without_bfloat16_says_so(dense, monkeypatch, tmp_path):
    path, batch, _ = dense
    monkeypatch.setattr(ov.Core, "get_property", lambda *_: ["FP32"])
    told = "this processor cannot compute in bfloat16: leave --precision out"
    np.save(tmp_path / "in.npy", batch)
    for engine in ("auto", "graph", "converted"):
        with pytest.raises(UnavailableError, match=told):
            Probe(path, ["r"], engine=engine, precision="bfloat16")(batch)
        for run in (extract, layerprobe.dry_run):
            with pytest.raises(UnavailableError, match=told):
                run(
                    *(path, str(tmp_path / "in.npy"), ["r"], tmp_path / "out.npz"),
                    **{"engine": engine, "precision": "bfloat16"},
                )


CODE = """
import keras
FACTOR = {factor}
class Times(keras.layers.Layer):
    def call(self, x):
        return x * FACTOR
"""


def test_code_that_changed_is_converted_again(tmp_path, monkeypatch):
    def probe(factor):
        file = tmp_path / f"times_{factor}.py"
        file.write_text(CODE.format(factor=factor))
        return Probe(path, ["t"], custom_objects=read_custom_objects([str(file)]))

    path = tmp_path / "m.keras"
    (tmp_path / "times.py").write_text(CODE.format(factor=1))
    times = read_custom_objects([str(tmp_path / "times.py")])["Times"]
    keras.Sequential([keras.Input((2,)), times(name="t")]).save(path)
    ones = np.ones((1, 2), "float32")
    np.testing.assert_array_equal(probe(2)(ones)["t"], [[2.0, 2.0]])
    np.testing.assert_array_equal(probe(3)(ones)["t"], [[3.0, 3.0]])
    monkeypatch.setattr("layerprobe.engines.converted_model.convert", None)
    again = probe(2)
    np.testing.assert_array_equal(again(ones)["t"], [[2.0, 2.0]])
    assert "agreed with Keras when it was converted" in again._probed.note


def test_a_cache_that_cannot_be_used_costs_no_run(dense, cache):
    path, batch, expected = dense
    cache.mkdir()
    cache.chmod(0o777)
    probe = Probe(path, ["r"], engine="converted")
    assert relative_error(probe(batch)["r"], expected) < 1e-5
    assert "it is not kept for later runs: " in probe._probed.note
    assert list(cache.iterdir()) == []


def test_no_cache_keeps_nothing(dense, cache):
    path, batch, _ = dense
    Probe(path, ["r"], engine="converted", cache=False)(batch)
    assert not cache.exists()


def test_a_damaged_entry_is_made_again(dense, cache):
    path, batch, expected = dense
    Probe(path, ["r"], engine="converted")(batch)
    entries = {file.name for file in cache.iterdir()}
    for file in cache.iterdir():
        data = bytearray(file.read_bytes())
        data[-1] ^= 255
        file.write_bytes(data)
    assert relative_error(Probe(path, ["r"], engine="converted")(batch)["r"], expected) < 1e-5
    assert {file.name for file in cache.iterdir()} == entries


def test_training_and_live_models_are_keras_s_alone(dense):
    path, batch, _ = dense
    with pytest.raises(UnavailableError, match="training"):
        Probe(path, ["r"], engine="converted", training=True)(batch)
    with pytest.raises(UnavailableError, match="a live model"):
        Probe(keras.saving.load_model(path), ["r"], engine="converted")


def test_a_run_from_the_cache_imports_no_framework_but_openvino(dense, tmp_path):
    path, batch, _ = dense
    np.save(tmp_path / "in.npy", batch)
    Probe(path, ["r"], engine="converted")(batch)
    code = (
        "import sys, layerprobe\n"
        "layerprobe.extract(*sys.argv[1:3], ['r'], sys.argv[3], engine='converted')\n"
        "print(sorted({'tensorflow', 'keras', 'openvino'} & set(sys.modules)))"
    )
    arguments = [str(path), str(tmp_path / "in.npy"), str(tmp_path / "out.npz")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stdout == "['openvino']\n", done.stderr


@pytest.mark.parametrize("pool", ["none", "gap"])
def test_float16_is_what_keras_gave_rounded_in_the_first_run_and_from_the_cache(pool, samples, tmp_path):
    images = np.random.default_rng(1).uniform(0, 255, (5, 112, 112, 3)).astype("float32")
    images[1] *= 1e6
    np.save(tmp_path / "in.npy", images)
    how = {"engine": "converted", "pool": pool, "batch_size": 2, "preprocess": "raw", "overwrite": True}
    found = {}
    for run, dtype in enumerate(("float16", "float16", "float32")):
        output = tmp_path / f"{run}.npz"
        extract(samples / "vgg_shapes.h5", str(tmp_path / "in.npy"), ["conv1_1"], output, dtype=dtype, **how)
        with layerprobe.open(output) as opened:
            found[run] = np.asarray(opened["conv1_1"]), opened.provenance["inputs"].get("overflows", {})
    with np.errstate(over="ignore"):
        rounded = found[2][0].astype(np.float16)
    lost = int(np.isinf(rounded).sum())
    assert lost > 0
    for values, overflows in (found[0], found[1]):
        np.testing.assert_array_equal(values, rounded)
        assert overflows == {"conv1_1": lost}


def test_a_lack_of_memory_is_no_property_of_the_model_that_the_cache_remembers(dense, monkeypatch):
    path, batch, expected = dense

    def exhausted(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(converted, "convert_model", exhausted)
        with pytest.raises(ResourceError, match="memory"):
            Probe(path, ["r"], engine="converted", cache=True)(batch)
    found = Probe(path, ["r"], engine="converted", cache=True)(batch)["r"]
    assert relative_error(found, expected) < 1e-5
