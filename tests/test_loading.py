"""Models saved by Keras 3 and by tf_keras (in its own process) load here and give the same numbers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import layer_zoo
import numpy as np
import pytest
from model_writers import entry, functional, sequential, write_flat, write_json

from layerprobe.errors import ModelError, UnknownLayerError
from layerprobe.loading.build import load_model
from layerprobe.modelfile.listing import describe, layers
from layerprobe.records import Tap
from layerprobe.taps import Recording, find_layers

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(1)


def random(*shape: int) -> Any:
    return RNG.random(shape, dtype="float32")


@pytest.fixture(scope="session")
def saved_by_keras_3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls its own .h5 format old.
        layer_zoo.save(keras, folder, {"": ("h5", "keras"), "training_only": ("keras",)})
    return folder


@pytest.fixture(scope="session")
def saved_by_keras_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras2")
    script = str(Path(__file__).with_name("layer_zoo.py"))
    subprocess.run([sys.executable, script, str(folder)], check=True, capture_output=True)
    return folder


def differences(folder: Path, suffix: str) -> dict[str, Any]:
    """The models that do not load, or whose results are not those that their Keras computed."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob(f"*.{suffix}")):
        arrays = np.load(path.with_suffix(".npz"))
        inputs = [arrays[name] for name in arrays.files if name.startswith("x")]
        expected = [arrays[name] for name in arrays.files if name.startswith("y")]
        try:
            model = load_model(str(path))
        except ModelError as error:
            found[path.name] = str(error)
            continue
        results = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=False))
        for result, right in zip(results, expected, strict=True):
            error = np.abs(np.asarray(result) - right).max() / np.abs(right).max()
            if error > 1e-5:
                found[path.name] = float(error)
        keras.utils.clear_session()
    return found


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_what_keras_3_saved_computes_the_same(saved_by_keras_3: Path, suffix: str) -> None:
    assert len(list(saved_by_keras_3.glob(f"*.{suffix}"))) > 40
    assert differences(saved_by_keras_3, suffix) == {}


@pytest.mark.parametrize(("suffix", "least"), [("h5", 40), ("keras", 40), ("tf", 6)])
def test_what_keras_2_saved_computes_the_same(saved_by_keras_2: Path, suffix: str, least: int) -> None:
    assert len(list(saved_by_keras_2.glob(f"*.{suffix}"))) >= least
    assert differences(saved_by_keras_2, suffix) == {}


def test_the_listing_is_that_of_the_loaded_model(saved_by_keras_3: Path, saved_by_keras_2: Path) -> None:
    paths = [
        *saved_by_keras_3.glob("*.keras"),
        *saved_by_keras_2.glob("*.h5"),
        *saved_by_keras_2.glob("*.tf"),
    ]
    for path in paths:
        listed = layers(str(path))
        model = load_model(str(path))
        live = find_layers(model)
        by_index = {layer.index: layer.address for layer in listed if layer.index is not None}
        assert [by_index[index] for index in range(len(by_index))] == [layer.name for layer in model.layers]
        for layer in listed:
            assert layer.address in live, path
            if isinstance(live[layer.address], keras.Layer) and layer.parameters is not None:
                assert live[layer.address].count_params() == layer.parameters, (path, layer)


def test_the_order_of_layers_is_that_of_the_model_that_was_saved(tmp_path: Path) -> None:
    model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=3)
    model.save(tmp_path / "m.keras")
    assert [layer.name for layer in load_model(str(tmp_path / "m.keras")).layers] == [
        layer.name for layer in model.layers
    ]


def test_a_sequential_model_has_inputs_outputs_and_one_node_for_each_layer(saved_by_keras_2: Path) -> None:
    model = load_model(str(saved_by_keras_2 / "sequential.h5"))
    assert isinstance(model, keras.Sequential)
    assert [len(layer._inbound_nodes) for layer in model.layers] == [1, 1]
    assert model.input.shape == (None, 4)
    assert model.output.shape == (None, 3)
    middle = keras.Model(model.layers[0].input, model.layers[0].output)
    assert middle(np.zeros((1, 4), "float32")).shape == (1, 3)


def test_nothing_is_compiled_and_no_initializer_or_regularizer_is_kept(tmp_path: Path) -> None:
    dense = keras.layers.Dense(2, kernel_regularizer="l2", kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((3,)), dense])
    model.compile("adam", "mse")
    model.save(tmp_path / "m.keras")
    loaded = load_model(str(tmp_path / "m.keras"))
    assert loaded.compiled is False
    assert loaded.layers[0].kernel_regularizer is None
    assert loaded.layers[0].kernel_constraint is None


def test_only_what_is_wanted_is_built(saved_by_keras_2: Path) -> None:
    path = str(saved_by_keras_2 / "nested.h5")
    address = next(layer.address for layer in layers(path) if layer.class_name == "BatchNormalization")
    found = list(find_layers(load_model(path, keep={address})))
    assert address in found
    assert not any(name.endswith("re_lu") or "dense" in name for name in found)


def test_a_model_that_is_cut_down_takes_only_the_inputs_that_it_needs(tmp_path: Path) -> None:
    one, two = keras.Input((3,), name="one"), keras.Input((3,), name="two")
    hidden = keras.layers.Dense(2, name="hidden")(one)
    model = keras.Model([one, two], keras.layers.Concatenate()([hidden, two]))
    model.save(tmp_path / "m.keras")
    cut = load_model(str(tmp_path / "m.keras"), keep={"hidden"})
    x = random(4, 3)
    expected = keras.Model(one, hidden)(x)
    np.testing.assert_array_equal(cut(x), expected)


def test_a_layer_that_the_model_has_not_is_named(saved_by_keras_2: Path) -> None:
    with pytest.raises(UnknownLayerError, match="'conv99'"):
        load_model(str(saved_by_keras_2 / "nested.h5"), keep={"conv99"})


def custom_model(folder: Path) -> tuple[str, Any, Any]:
    start = keras.Input((5, 4))
    value = keras.layers.Dense(4, activation=twice, name="first")(start)
    value = keras.layers.Dense(2, name="last")(Attending(4, name="attending")(value))
    model = keras.Model(start, value)
    for variable in model.weights:
        variable.assign(RNG.random(variable.shape))
    model.save(folder / "m.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(folder / "m.h5")
    x = random(2, 5, 4)
    return str(folder), x, np.asarray(model(x))


class Attending(keras.layers.Layer):  # type: ignore[misc]
    """Has weights of its own, and layers whose names sort in another order than they are made."""

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
        self.size = size
        self.zone = keras.layers.MultiHeadAttention(2, size)
        self.after = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(size)])
        self.norms = [keras.layers.LayerNormalization(), keras.layers.LayerNormalization()]

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(shape[-1],), name="gain")
        super().build(shape)

    def call(self, x: Any) -> Any:
        x = self.norms[0](x + self.zone(x, x))
        return self.norms[1](x + self.after(x)) * self.gain

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


def twice(x: Any) -> Any:
    return 2 * x


GIVEN = {"Attending": Attending, "twice": twice}


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_layers_of_the_user_s_own_get_their_weights(tmp_path: Path, suffix: str) -> None:
    folder, x, expected = custom_model(tmp_path)
    model = load_model(f"{folder}/m.{suffix}", custom_objects=GIVEN)
    np.testing.assert_allclose(model(x), expected, rtol=1e-6)


def test_what_needs_no_code_of_the_user_s_loads_without_it(tmp_path: Path) -> None:
    folder, _, _ = custom_model(tmp_path)
    path = f"{folder}/m.keras"
    with pytest.raises(ModelError, match="twice is not one of Keras's own"):
        load_model(path)
    with pytest.raises(ModelError, match="Attending is not one of Keras's own"):
        load_model(path, custom_objects={"twice": twice})
    assert load_model(path, custom_objects={"twice": twice}, keep={"first"}).output_shape == (None, 5, 4)
    problems = {layer.address: layer.problem for layer in describe(path, given={"twice"}).layers}
    assert problems["first"] is None
    assert "it needs layer 'attending'" in str(problems["last"])


def test_weights_of_the_wrong_shape_are_all_named(tmp_path: Path) -> None:
    model = sequential(
        *(entry("InputLayer", "start", batch_input_shape=[None, 3]), entry("Dense", "a", units=4)),
        entry("Dense", "b", units=2),
    )
    weights = {
        "a": [("kernel", random(3, 5)), ("bias", random(4))],
        "b": [("kernel", random(4, 2)), ("bias", random(9))],
    }
    path = write_flat(tmp_path / "m.h5", model, weights)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "'kernel' of layer 'a' has shape (3, 4), but (3, 5) is stored" in str(caught.value)
    assert "'bias' of layer 'b' has shape (2,), but (9,) is stored" in str(caught.value)


def test_an_architecture_needs_weights_and_takes_them(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    path = tmp_path / "model.json"
    path.write_text(model.to_json())
    model.save_weights(tmp_path / "a.weights.h5")
    x = random(2, 3)
    with pytest.raises(ModelError, match="--weights"):
        load_model(str(path))
    loaded = load_model(str(path), weights=str(tmp_path / "a.weights.h5"))
    np.testing.assert_array_equal(loaded(x), model(x))


def test_an_unknown_input_shape_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = write_flat(tmp_path / "m.h5", sequential(entry("Dense", "a", units=4)), {})
    with pytest.raises(ModelError, match="what shape goes into"):
        load_model(path)


def test_a_dense_layer_first_takes_rows_and_no_further_axis(tmp_path: Path) -> None:
    model = sequential(entry("Dense", "a", units=4, batch_input_shape=[None, 6]))
    kernel = random(6, 4)
    path = write_flat(tmp_path / "m.h5", model, {"a": [("kernel", kernel), ("bias", np.zeros(4, "float32"))]})
    x = random(3, 6)
    np.testing.assert_allclose(load_model(path)(x), x @ kernel, rtol=1e-5)


def test_fixed_batch_sizes_stay(tmp_path: Path) -> None:
    lstm = entry("LSTM", "lstm", units=2, stateful=True, batch_input_shape=[2, 5, 3])
    weights = {"lstm": [("k", random(3, 8)), ("r", random(2, 8)), ("b", random(8))]}
    assert load_model(write_flat(tmp_path / "m.h5", sequential(lstm), weights)).input_shape == (2, 5, 3)


def test_a_lambda_is_built_from_its_expression_or_the_user_s(tmp_path: Path) -> None:
    start = entry("InputLayer", "start", [], batch_input_shape=[None, 3])
    layer = entry("Lambda", "norm", [[["start", 0, 0]]], function="mystery", function_type="function")
    model = functional(start, layer, inputs=["start", 0, 0], outputs=["norm", 0, 0])
    path = write_flat(tmp_path / "m.h5", model, {})
    x = random(2, 3)
    with pytest.raises(ModelError, match="mystery"):
        load_model(path)
    np.testing.assert_allclose(load_model(path, lambdas={"norm": "x / 2 - 1"})(x), x / 2 - 1, rtol=1e-6)
    given = load_model(path, custom_objects={"mystery": lambda tensor: tensor * 3})
    np.testing.assert_allclose(given(x), x * 3, rtol=1e-6)


def test_lookups_without_a_vocabulary_are_no_layers_to_extract(tmp_path: Path) -> None:
    start = entry("InputLayer", "start", [], batch_input_shape=[None, 1], dtype="int64")
    layer = entry("IntegerLookup", "lookup", [[["start", 0, 0]]], vocabulary=None)
    path = write_json(
        tmp_path / "m.json", functional(start, layer, inputs=["start", 0, 0], outputs=["lookup", 0, 0])
    )
    assert "vocabulary" in str(layers(path)[1].problem)


@pytest.fixture
def without_metadata(saved_by_keras_2: Path, tmp_path: Path) -> str:
    """A SavedModel of two inputs and a shared encoder, as one that Keras did not describe."""
    folder = tmp_path / "served"
    shutil.copytree(saved_by_keras_2 / "siamese.tf", folder)
    (folder / "keras_metadata.pb").unlink()
    return str(folder)


def test_a_savedmodel_without_keras_metadata_is_its_operations(
    without_metadata: str, saved_by_keras_2: Path
) -> None:
    info = describe(without_metadata)
    assert info.class_name == "SavedModel"
    kinds = {layer.address: layer.class_name for layer in info.layers}
    product = next(address for address, kind in kinds.items() if kind == "MatMul")
    arrays = np.load(saved_by_keras_2 / "siamese.npz")
    inputs = [arrays["x0"], arrays["x1"]]
    whole = load_model(str(saved_by_keras_2 / "siamese.tf"))
    dense = whole.get_layer("encoder").layers[0]
    expected = inputs[0] @ np.asarray(dense.kernel)
    model = load_model(without_metadata, keep={product})
    recording = Recording(model, [Tap(product)])
    with recording.active():
        result = model(inputs)
    ((_, value),) = recording.tensors(result).items()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(result, arrays["y0"], rtol=1e-5)


def test_a_savedmodel_is_refused_when_its_variables_are_missing(without_metadata: str) -> None:
    (Path(without_metadata) / "variables" / "variables.data-00000-of-00001").unlink()
    with pytest.raises(ModelError, match="missing"):
        load_model(without_metadata)


def test_an_operation_that_a_savedmodel_has_not_is_named(without_metadata: str) -> None:
    with pytest.raises(ModelError, match="'nothing/MatMul'"):
        load_model(without_metadata, keep={"nothing/MatMul"})
