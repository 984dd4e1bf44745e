"""Models saved by Keras 3 and by tf_keras (in its own process) load here and give the same numbers."""

from __future__ import annotations

import inspect
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
from layerprobe.loading.channels_first import channels_first_class
from layerprobe.modelfile.classes import ACTIVATIONS, LAYERS, REQUIRED
from layerprobe.modelfile.listing import describe, layers
from layerprobe.modelfile.operations import OPERATIONS
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


def hard_sigmoid_of_keras_2(x: Any) -> Any:
    return np.clip(0.2 * x + 0.5, 0, 1)


def test_hard_sigmoid_has_the_slope_of_the_version_that_saved_it(tmp_path: Path) -> None:
    x = np.linspace(-4, 4, 41, dtype="float32").reshape(1, 41)
    start = entry("InputLayer", "start", batch_input_shape=[None, 41])
    model = sequential(start, entry("Activation", "a", activation="hard_sigmoid"))
    old = load_model(write_flat(tmp_path / "old.h5", model, {}, "2.2.4"))
    new = load_model(write_flat(tmp_path / "new.h5", model, {}, "3.8.0"))
    np.testing.assert_allclose(old(x), hard_sigmoid_of_keras_2(x), atol=1e-6)
    np.testing.assert_allclose(new(x), np.clip(x + 3, 0, 6) / 6, atol=1e-6)


def test_a_keras_1_lstm_computes_what_its_equations_say(tmp_path: Path) -> None:
    gates = {gate: (random(3, 2), random(2, 2), random(2)) for gate in "icfo"}
    names = [
        (f"{kind}_{gate}", array) for gate in "icfo" for kind, array in zip("WUb", gates[gate], strict=True)
    ]
    layer = entry(
        "LSTM",
        "lstm",
        output_dim=2,
        activation="tanh",
        inner_activation="hard_sigmoid",
        batch_input_shape=[None, 4, 3],
    )
    model = {"class_name": "Sequential", "config": [layer]}
    path = write_flat(tmp_path / "m.h5", model, {"lstm": names}, "1.2.1", None)
    x = random(2, 4, 3)
    h = c = np.zeros((2, 2))
    for step in range(4):
        z = {gate: x[:, step] @ w + h @ u + b for gate, (w, u, b) in gates.items()}
        i, f, o = (hard_sigmoid_of_keras_2(z[gate]) for gate in "ifo")
        c = f * c + i * np.tanh(z["c"])
        h = o * np.tanh(c)
    np.testing.assert_allclose(load_model(path)(x), h, rtol=1e-5)


def test_a_theano_convolution_computes_what_theano_did(tmp_path: Path) -> None:
    from scipy.signal import convolve

    kernel, bias = random(3, 2, 2, 4), random(4)
    config = {"nb_filter": 4, "nb_row": 3, "nb_col": 2, "dim_ordering": "th", "border_mode": "valid"}
    layer = entry("Convolution2D", "conv", batch_input_shape=[None, 2, 6, 5], **config)
    stored = kernel.transpose(3, 2, 0, 1)  # (filters, channels, rows, columns)
    weights = {"conv": [("W", stored), ("b", bias)]}
    model = {"class_name": "Sequential", "config": [layer]}
    path = write_flat(tmp_path / "m.h5", model, weights, "1.2.1", "theano")
    x = random(1, 2, 6, 5)
    expected = np.stack(
        [
            sum(convolve(x[0, channel], stored[out, channel], "valid") for channel in range(2)) + bias[out]
            for out in range(4)
        ]
    )
    np.testing.assert_allclose(load_model(path)(x)[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("Conv1D", (4, 8), {"padding": "causal", "dilation_rate": 2}),
        ("Conv2D", (4, 8, 8), {"padding": "same", "strides": 2, "activation": "softmax"}),
        ("Conv2D", (4, 8, 8), {"groups": 2, "dilation_rate": 2}),
        ("Conv3D", (2, 6, 6, 6), {}),
        ("Conv1DTranspose", (4, 8), {}),
        ("Conv2DTranspose", (4, 8, 8), {"strides": 2, "output_padding": 1}),
        ("Conv3DTranspose", (2, 4, 4, 4), {}),
    ],
)
def test_channels_first_convolutions_are_those_of_the_turned_image(
    name: str, shape: Any, options: Any
) -> None:
    activation = options.pop("activation", None)
    plain = getattr(keras.layers, name)(4, 3, **options)
    first = channels_first_class(getattr(keras.layers, name))(
        4, 3, data_format="channels_first", activation=activation, **options
    )
    assert type(first).__name__ == name
    x = random(2, *shape)
    turned = np.moveaxis(x, 1, -1)
    plain.build(turned.shape)
    first.build(x.shape)
    first.set_weights(plain.get_weights())
    expected = np.moveaxis(np.asarray(plain(turned)), -1, 1)
    if activation is not None:
        expected = np.asarray(keras.activations.get(activation)(expected))
    np.testing.assert_allclose(first(x), expected, atol=1e-6)


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


def test_the_table_of_layers_is_that_of_keras() -> None:
    """Every class is there, takes every argument in the table, and has the default that the table says."""
    common = {"name", "trainable", "dtype"}
    for class_name, table in LAYERS.items():
        if class_name in ("Lambda", "LayerScale"):
            continue
        layer_class = getattr(keras.layers, class_name)
        parameters: dict[str, inspect.Parameter] = {}
        for ancestor in layer_class.__mro__:
            if ancestor is not keras.layers.Layer and "__init__" in vars(ancestor):
                for name, parameter in inspect.signature(ancestor.__init__).parameters.items():
                    parameters.setdefault(name, parameter)
        for name, default in table.items():
            assert name in parameters, (class_name, name)
            actual = parameters[name].default
            if default == REQUIRED:
                assert actual is inspect.Parameter.empty or actual is None, (class_name, name)
            elif name not in (
                "data_format",
                "batch_shape",
                "pool_size",
                "seed",
                "sparse",
                "ragged",
                "padding",
            ):
                same = np.broadcast_to(np.array(default, object), np.shape(actual) or np.shape(default))
                assert np.array_equal(same, np.broadcast_to(np.array(actual, object), same.shape)), (
                    class_name,
                    name,
                )
        assert not common & table.keys()


def test_activations_and_operations_are_keras_s() -> None:
    from importlib import import_module

    ours = {"keras2_hard_sigmoid", "swish", "hard_swish"}
    for name in ACTIVATIONS - ours:
        assert callable(getattr(keras.activations, name))
    for name, module in OPERATIONS.items():
        assert issubclass(getattr(import_module(f"keras.src.ops.{module}"), name), keras.Operation)
