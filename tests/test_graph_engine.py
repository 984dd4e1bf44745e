"""The graph engine against Keras: every class and option that it has, and what it hands over."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from layerprobe.errors import UnavailableError
from layerprobe.probe import Probe

pytestmark = pytest.mark.slow

keras = pytest.importorskip("keras")
L = keras.layers
RANDOM = np.random.default_rng(7)


def relative_error(found, wanted):
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    scale = max(float(np.abs(wanted).max()), 1e-30)
    return float(np.abs(found.astype("float64") - wanted).max()) / scale


def randomise(model):
    """Weights that are neither zero nor one, variances positive."""
    for weight in model.weights:
        if "seed" in weight.path or weight.dtype != "float32":
            continue
        low = 0.5 if "variance" in weight.path else -0.5
        weight.assign(RANDOM.uniform(low, 1.0, weight.shape))
    for layer in model.layers:
        if isinstance(layer, L.Normalization):
            layer.finalize_state()


def assert_equal_to_keras(model, path, arrays):
    """Every layer, by the graph engine from the saved file, is what Keras computes."""
    randomise(model)
    model.save(path)
    names = [layer.name for layer in model.layers]
    every = keras.Model(model.inputs, [layer.output for layer in model.layers])
    expected = keras.tree.flatten(every(arrays, training=False))
    found = Probe(path, names, engine="graph")(arrays if len(arrays) > 1 else arrays[0])
    assert len(found) == len(expected)
    for (name, values), wanted in zip(found.items(), expected, strict=True):
        assert relative_error(values, np.asarray(wanted)) < 1e-5, name


IMAGE, ODD, TALL, SEQUENCE, VECTOR, VOLUME = (6, 8, 4), (7, 5, 3), (9, 4, 2), (9, 4), (6,), (5, 6, 4, 3)

ONE_INPUT = {
    "activation layer": (VECTOR, lambda: L.Activation("tanh")),
    "average pooling": (ODD, lambda: L.AveragePooling2D(2)),
    "average pooling 1d same": (SEQUENCE, lambda: L.AveragePooling1D(4, 2, padding="same")),
    "average pooling 3d": (VOLUME, lambda: L.AveragePooling3D(2, padding="same")),
    "average pooling same": (ODD, lambda: L.AveragePooling2D(3, 2, padding="same")),
    "batch normalization": (IMAGE, lambda: L.BatchNormalization(epsilon=1e-3)),
    "batch normalization axis 1": (IMAGE, lambda: L.BatchNormalization(axis=1, scale=False)),
    "batch normalization plain": (VECTOR, lambda: L.BatchNormalization(center=False)),
    "bidirectional": (SEQUENCE, lambda: L.Bidirectional(L.LSTM(3, return_sequences=True))),
    "bidirectional gru last": (SEQUENCE, lambda: L.Bidirectional(L.GRU(3), merge_mode="sum")),
    "bidirectional average": (SEQUENCE, lambda: L.Bidirectional(L.SimpleRNN(3), merge_mode="ave")),
    "bidirectional product": (SEQUENCE, lambda: L.Bidirectional(L.LSTM(3), merge_mode="mul")),
    "conv1d": (SEQUENCE, lambda: L.Conv1D(5, 3, activation="relu")),
    "conv1d causal": (SEQUENCE, lambda: L.Conv1D(5, 3, padding="causal", dilation_rate=2)),
    "conv1d same strides": (SEQUENCE, lambda: L.Conv1D(5, 4, strides=2, padding="same")),
    "conv1d transpose": (SEQUENCE, lambda: L.Conv1DTranspose(3, 4, strides=2, padding="same")),
    "conv2d": (IMAGE, lambda: L.Conv2D(5, 3)),
    "conv2d dilated": (ODD, lambda: L.Conv2D(5, (2, 3), dilation_rate=2, padding="same")),
    "conv2d even kernel": (ODD, lambda: L.Conv2D(5, (4, 2), strides=(2, 1), padding="same")),
    "conv2d groups": (IMAGE, lambda: L.Conv2D(6, 3, groups=2, use_bias=False)),
    "conv2d same strides": (ODD, lambda: L.Conv2D(5, 3, strides=2, padding="same", activation="elu")),
    "conv2d softmax": (IMAGE, lambda: L.Conv2D(5, 1, activation="softmax")),
    "conv2d transpose": (ODD, lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same")),
    "conv2d transpose even": (ODD, lambda: L.Conv2DTranspose(4, 4, strides=2, padding="same")),
    "conv2d transpose output padding": (
        ODD,
        lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1),
    ),
    "conv2d transpose small kernel": (ODD, lambda: L.Conv2DTranspose(4, 2, strides=3, padding="valid")),
    "conv2d transpose small kernel same": (ODD, lambda: L.Conv2DTranspose(4, 1, strides=2, padding="same")),
    "conv2d transpose valid": (ODD, lambda: L.Conv2DTranspose(4, (3, 5), strides=(1, 2), padding="valid")),
    "conv3d": (VOLUME, lambda: L.Conv3D(4, 3, strides=2, padding="same")),
    "conv3d transpose": (VOLUME, lambda: L.Conv3DTranspose(2, 3, strides=2, padding="same")),
    "cropping 1d": (SEQUENCE, lambda: L.Cropping1D((1, 3))),
    "cropping 2d": (ODD, lambda: L.Cropping2D(((1, 2), (0, 3)))),
    "cropping 3d": (VOLUME, lambda: L.Cropping3D(1)),
    "dense": (VECTOR, lambda: L.Dense(5, activation="sigmoid")),
    "dense of an image": (IMAGE, lambda: L.Dense(5, use_bias=False)),
    "depthwise": (ODD, lambda: L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)),
    "depthwise 1d": (SEQUENCE, lambda: L.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise dilated": (IMAGE, lambda: L.DepthwiseConv2D(2, dilation_rate=2, use_bias=False)),
    "dropout": (VECTOR, lambda: L.Dropout(0.5)),
    "elu": (VECTOR, lambda: L.ELU(0.3)),
    "flatten": (IMAGE, lambda: L.Flatten()),
    "gaussian noise": (VECTOR, lambda: L.GaussianNoise(0.5)),
    "global average": (IMAGE, lambda: L.GlobalAveragePooling2D()),
    "global average 1d": (SEQUENCE, lambda: L.GlobalAveragePooling1D(keepdims=True)),
    "global average 3d": (VOLUME, lambda: L.GlobalAveragePooling3D()),
    "global maximum kept": (IMAGE, lambda: L.GlobalMaxPooling2D(keepdims=True)),
    "group normalization": (IMAGE, lambda: L.GroupNormalization(2)),
    "gru": (SEQUENCE, lambda: L.GRU(4, return_sequences=True)),
    "gru before": (SEQUENCE, lambda: L.GRU(4, reset_after=False, activation="relu", go_backwards=True)),
    "gru plain": (SEQUENCE, lambda: L.GRU(4, use_bias=False)),
    "layer normalization": (IMAGE, lambda: L.LayerNormalization()),
    "layer normalization axes": (IMAGE, lambda: L.LayerNormalization(axis=[1, 3], center=False)),
    "leaky relu": (VECTOR, lambda: L.LeakyReLU(0.2)),
    "lstm": (SEQUENCE, lambda: L.LSTM(4)),
    "lstm backwards": (SEQUENCE, lambda: L.LSTM(4, return_sequences=True, go_backwards=True)),
    "lstm hard": (SEQUENCE, lambda: L.LSTM(4, recurrent_activation="hard_sigmoid", use_bias=False)),
    "lstm state": (SEQUENCE, lambda: L.LSTM(4, return_sequences=True, return_state=True)),
    "max pooling": (ODD, lambda: L.MaxPooling2D()),
    "max pooling 1d": (SEQUENCE, lambda: L.MaxPooling1D(2, 3)),
    "max pooling 3d": (VOLUME, lambda: L.MaxPooling3D(2, padding="same")),
    "max pooling same": (ODD, lambda: L.MaxPooling2D((2, 3), (2, 1), padding="same")),
    "normalization": (VECTOR, lambda: L.Normalization(mean=[1, 2, 3, 4, 5, 6], variance=[1, 2, 1, 2, 1, 2])),
    "normalization inverse": (IMAGE, lambda: L.Normalization(mean=2.0, variance=3.0, invert=True)),
    "normalization of all": (IMAGE, lambda: L.Normalization(axis=None)),
    "normalization stored": (IMAGE, lambda: L.Normalization(axis=(1, -1))),
    "permute": (IMAGE, lambda: L.Permute((3, 1, 2))),
    "prelu": (VECTOR, lambda: L.PReLU()),
    "prelu shared": (IMAGE, lambda: L.PReLU(shared_axes=[1, 2])),
    "relu full": (VECTOR, lambda: L.ReLU(max_value=0.7, negative_slope=0.1, threshold=0.2)),
    "relu plain": (VECTOR, lambda: L.ReLU()),
    "relu six": (VECTOR, lambda: L.ReLU(6.0, negative_slope=0.3)),
    "repeat vector": (VECTOR, lambda: L.RepeatVector(3)),
    "rescaling": (IMAGE, lambda: L.Rescaling(1 / 127.5, -1)),
    "rescaling channels": (ODD, lambda: L.Rescaling([0.5, 1.5, 2.0], [1.0, 0.0, -1.0])),
    "reshape": (IMAGE, lambda: L.Reshape((2, -1))),
    "rms normalization": (VECTOR, lambda: L.RMSNormalization()),
    "separable": (
        ODD,
        lambda: L.SeparableConv2D(5, 3, padding="same", depth_multiplier=2, activation="relu"),
    ),
    "separable 1d": (SEQUENCE, lambda: L.SeparableConv1D(5, 3, strides=2)),
    "simple rnn": (SEQUENCE, lambda: L.SimpleRNN(4, return_sequences=True)),
    "softmax": (IMAGE, lambda: L.Softmax()),
    "softmax axis": (IMAGE, lambda: L.Softmax(axis=1)),
    "time distributed": (SEQUENCE, lambda: L.TimeDistributed(L.Dense(3, activation="relu"))),
    "time distributed images": (VOLUME, lambda: L.TimeDistributed(L.Conv2D(3, 2, padding="same"))),
    "unit normalization": (IMAGE, lambda: L.UnitNormalization()),
    "up sampling 1d": (SEQUENCE, lambda: L.UpSampling1D(3)),
    "up sampling 3d": (VOLUME, lambda: L.UpSampling3D((1, 2, 3))),
    "up sampling bilinear": (ODD, lambda: L.UpSampling2D((3, 2), interpolation="bilinear")),
    "up sampling nearest": (ODD, lambda: L.UpSampling2D((3, 2))),
    "zero padding 1d": (SEQUENCE, lambda: L.ZeroPadding1D((1, 2))),
    "zero padding 2d": (ODD, lambda: L.ZeroPadding2D(((1, 2), (3, 0)))),
    "zero padding 3d": (VOLUME, lambda: L.ZeroPadding3D(2)),
}
CHANNELS_FIRST = {
    "average pooling": (ODD, lambda: L.AveragePooling2D(2, data_format="channels_first")),
    "cropping": (IMAGE, lambda: L.Cropping2D(1, data_format="channels_first")),
    "flatten": (IMAGE, lambda: L.Flatten(data_format="channels_first")),
    "global maximum": (IMAGE, lambda: L.GlobalMaxPooling2D(data_format="channels_first")),
    "up sampling": (IMAGE, lambda: L.UpSampling2D(data_format="channels_first")),
    "zero padding": (IMAGE, lambda: L.ZeroPadding2D(1, data_format="channels_first")),
}


@pytest.mark.parametrize("case", ONE_INPUT)
def test_every_class_and_option_equals_keras(case, tmp_path):
    shape, make = ONE_INPUT[case]
    x = keras.Input(shape, name="x")
    y = make()(x)
    first = y[0] if isinstance(y, list | tuple) else y
    model = keras.Model(x, L.Activation("linear", name="last")(first))
    assert_equal_to_keras(model, tmp_path / "m.keras", [RANDOM.normal(size=(3, *shape)).astype("float32")])


@pytest.mark.parametrize("case", CHANNELS_FIRST)
def test_channels_first_equals_keras(case, tmp_path):
    shape, make = CHANNELS_FIRST[case]
    x = keras.Input(shape, name="x")
    model = keras.Model(x, make()(x))
    assert_equal_to_keras(model, tmp_path / "m.keras", [RANDOM.normal(size=(2, *shape)).astype("float32")])


@pytest.mark.parametrize("case", [name for name in ONE_INPUT if ONE_INPUT[name][0] in (IMAGE, ODD)])
def test_after_a_convolution_the_axes_are_still_keras_s(case, tmp_path):
    shape, make = ONE_INPUT[case]
    x = keras.Input(shape, name="x")
    model = keras.Model(x, make()(L.Conv2D(shape[-1], 1, name="first")(x)))
    assert_equal_to_keras(model, tmp_path / "m.keras", [RANDOM.normal(size=(2, *shape)).astype("float32")])


ACTIVATIONS = (
    "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear "
    "log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign "
    "sparse_plus sparse_sigmoid squareplus tanh tanh_shrink"
)


@pytest.mark.parametrize("turned", [False, True])
def test_every_activation_equals_keras(turned, tmp_path):
    x = keras.Input((5, 6), name="x")
    y = L.Conv1D(6, 1)(x) if turned else x
    outputs = [L.Activation(name, name=f"a_{name}")(y) for name in ACTIVATIONS.split()]
    model = keras.Model(x, outputs)
    x = RANDOM.normal(0, 3, size=(4, 5, 6)).astype("float32")
    assert_equal_to_keras(model, tmp_path / "m.keras", [x])


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
    from layerprobe.probed_model import ProbedModel
    from layerprobe.records import ModelOptions

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
    x = keras.Input((4, 4, 4, 3), name="x")
    model = keras.Model(x, L.ConvLSTM2D(2, 2, name="both")(x))
    model.save(tmp_path / "m.keras")
    images = np.ones((1, 4, 4, 4, 3), "float32")
    with pytest.raises(UnavailableError, match=r"ConvLSTM2D \(layer 'both'\)"):
        Probe(tmp_path / "m.keras", ["both"], engine="graph")(images)
    probe = Probe(tmp_path / "m.keras", ["both"])
    assert relative_error(probe(images)["both"], np.asarray(model(images))) < 1e-6
    assert "ConvLSTM2D (layer 'both')" in probe._probed.note


def test_masks_go_to_keras_where_they_matter(tmp_path):
    x = keras.Input((5,), name="x")
    y = L.Embedding(9, 3, mask_zero=True, name="words")(x)
    model = keras.Model(x, L.LSTM(2, name="lstm")(L.Dropout(0.5)(y)))
    model.save(tmp_path / "m.keras")
    words = np.array([[1, 2, 0, 0, 0]], "float32")
    found = Probe(tmp_path / "m.keras", ["words"], engine="graph")(words)["words"]
    assert relative_error(found, np.asarray(model.get_layer("words")(words))) < 1e-6
    with pytest.raises(UnavailableError, match=r"LSTM \(layer 'lstm'\): a mask"):
        Probe(tmp_path / "m.keras", ["lstm"], engine="graph")(words)
    wanted = np.asarray(model(words))
    assert relative_error(Probe(tmp_path / "m.keras", ["lstm"])(words)["lstm"], wanted) < 1e-6


def test_a_product_of_masked_values_goes_to_keras(tmp_path):
    x = keras.Input((5,), name="x")
    y = L.Embedding(9, 3, mask_zero=True)(x)
    keras.Model(x, L.Multiply(name="product")([y, L.Dense(3)(y)])).save(tmp_path / "m.keras")
    words = np.array([[1, 2, 0, 0, 0]], "float32")
    with pytest.raises(UnavailableError, match=r"Multiply \(layer 'product'\): a mask"):
        Probe(tmp_path / "m.keras", ["product"], engine="graph")(words)


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


APPLICATIONS = {
    "VGG16": 32,
    "ResNet50": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "EfficientNetB0": 32,
    "DenseNet121": 32,
    "ConvNeXtTiny": 32,
    "InceptionV3": 75,
    "NASNetMobile": 32,
    "Xception": 71,
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_layer_of_well_known_architectures_equals_keras(name, tmp_path):
    keras.utils.set_random_seed(3)
    size = APPLICATIONS[name]
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(RANDOM.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(RANDOM.uniform(0.5, 1.5, layer.moving_variance.shape))
    images = RANDOM.uniform(0, 255, (2, size, size, 3)).astype("float32")
    names = [layer.name for layer in model.layers]
    expected = keras.Model(model.inputs, [layer.output for layer in model.layers]).predict(images, verbose=0)
    model.save(tmp_path / "m.keras")
    found = Probe(tmp_path / "m.keras", names, engine="graph")(images)
    assert list(found) == names
    for layer, wanted in zip(names, expected, strict=True):
        assert relative_error(found[layer], wanted) < 1e-5, layer
