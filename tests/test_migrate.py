"""What each migration makes of a minimal layer; whether the numbers are right is in test_loading."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from model_writers import entry, functional, sequential, write_json

from layerprobe.modelfile.archive import open_archive
from layerprobe.modelfile.config import read_graph
from layerprobe.modelfile.graph import Call, Graph, LayerNode, Reference
from layerprobe.modelfile.migrate import MIGRATIONS, migrate
from layerprobe.modelfile.migrate.layer import SavedLayer
from layerprobe.modelfile.reach import problems

IMAGE = [None, 8, 8, 3]


def migrated(
    class_name: str, version: tuple[int, int], **config: Any
) -> tuple[str, dict[str, Any], list[str]]:
    layer = SavedLayer(class_name, config, version)
    reasons = migrate(layer)
    return layer.class_name, layer.config, reasons


def read(tmp_path: Path, model: Any, version: str) -> Graph:
    with open_archive(write_json(tmp_path / "model.json", {**model, "keras_version": version})) as archive:
        return read_graph(archive)


def node(tmp_path: Path, version: str, class_name: str, shape: Any = IMAGE, **config: Any) -> LayerNode:
    start = entry("InputLayer", "start", batch_input_shape=shape)
    graph = read(tmp_path, sequential(start, entry(class_name, "layer", **config)), version)
    assert problems(graph) == {}
    return graph.layer("layer")


def test_every_migration_has_a_reason_and_says_what_it_is_for() -> None:
    for migration in MIGRATIONS:
        assert migration.reason
        assert inspect.getdoc(migration.apply)
    assert len({migration.apply for migration in MIGRATIONS}) == len(MIGRATIONS)


def test_a_layer_of_today_needs_no_migration() -> None:
    config = {"units": 3, "activation": "hard_sigmoid", "reset_after": True}
    assert migrated("GRU", (3, 8), **config) == ("GRU", config, [])


def test_a_convolution_of_keras_1_is_a_convolution(tmp_path: Path) -> None:
    found = node(
        tmp_path,
        "1.2.1",
        "Convolution2D",
        nb_filter=16,
        nb_row=5,
        nb_col=3,
        init="glorot_uniform",
        activation="relu",
        border_mode="same",
        subsample=[2, 1],
        dim_ordering="th",
        W_regularizer=None,
        bias=False,
    )
    assert found.class_name == "Conv2D"
    assert found.config["filters"] == 16
    assert found.config["kernel_size"] == (5, 3)
    assert found.config["strides"] == (2, 1)
    assert found.config["padding"] == "same"
    assert found.config["data_format"] == "channels_first"
    assert found.config["use_bias"] is False


@pytest.mark.parametrize(
    ("class_name", "config", "expected"),
    [
        ("AtrousConvolution2D", {"atrous_rate": [2, 2]}, ("Conv2D", {"dilation_rate": (2, 2)})),
        ("Deconvolution2D", {"output_shape": [None, 9, 9, 3]}, ("Conv2DTranspose", {"output_padding": None})),
        ("SeparableConvolution2D", {"depth_multiplier": 2}, ("SeparableConv2D", {"depth_multiplier": 2})),
        ("Convolution3D", {"kernel_dim1": 1, "kernel_dim2": 2, "kernel_dim3": 3}, ("Conv3D", {})),
    ],
)
def test_the_other_convolutions_of_keras_1(
    tmp_path: Path, class_name: str, config: Any, expected: Any
) -> None:
    shape = [None, 8, 8, 8, 3] if class_name.endswith("3D") else IMAGE
    sizes = {} if class_name.endswith("3D") else {"nb_row": 1, "nb_col": 3}
    found = node(tmp_path, "1.2.1", class_name, shape, nb_filter=3, **sizes, **config)
    assert found.class_name == expected[0]
    assert expected[1].items() <= found.config.items()
    assert found.config["kernel_size"][-1] == 3


def test_one_dimensional_layers_of_keras_1(tmp_path: Path) -> None:
    shape = [None, 8, 3]
    found = node(tmp_path, "1.2.0", "Convolution1D", shape, nb_filter=2, filter_length=3, subsample_length=2)
    assert (found.class_name, found.config["kernel_size"], found.config["strides"]) == ("Conv1D", 3, 2)
    found = node(tmp_path, "1.2.0", "MaxPooling1D", shape, pool_length=3, stride=2, border_mode="same")
    assert (found.config["pool_size"], found.config["strides"], found.config["padding"]) == (3, 2, "same")
    assert node(tmp_path, "1.2.0", "UpSampling1D", shape, length=4).config["size"] == 4


def test_dense_and_dropout_of_keras_1(tmp_path: Path) -> None:
    found = node(tmp_path, "1.2.1", "Dense", [None, 4], output_dim=5, input_dim=4, bias=True, init="zero")
    assert found.config["units"] == 5
    assert node(tmp_path, "1.2.1", "Dropout", [None, 4], p=0.25).config["rate"] == 0.25
    assert node(tmp_path, "1.2.1", "GaussianNoise", [None, 4], sigma=0.5).config["stddev"] == 0.5
    found = node(tmp_path, "1.0.4", "TimeDistributedDense", [None, 3, 4], output_dim=5)
    assert (found.class_name, found.config["units"]) == ("Dense", 5)


def test_the_embedding_of_keras_1_keeps_its_output_dim(tmp_path: Path) -> None:
    found = node(tmp_path, "1.2.1", "Embedding", [None, 4], input_dim=9, output_dim=3, init="uniform")
    assert (found.config["input_dim"], found.config["output_dim"]) == (9, 3)


def test_the_lstm_of_keras_1_has_hard_gates(tmp_path: Path) -> None:
    found = node(
        tmp_path,
        "1.2.1",
        "LSTM",
        [None, 5, 4],
        output_dim=3,
        inner_activation="hard_sigmoid",
        inner_init="orthogonal",
        forget_bias_init="one",
        consume_less="gpu",
        dropout_W=0.1,
        dropout_U=0.2,
        input_length=5,
    )
    assert found.config["units"] == 3
    assert found.config["recurrent_activation"] == "keras2_hard_sigmoid"
    assert (found.config["dropout"], found.config["recurrent_dropout"]) == (0.1, 0.2)


def test_the_padding_of_keras_1_may_be_a_dict_or_four_numbers(tmp_path: Path) -> None:
    padding = {"top_pad": 1, "bottom_pad": 2, "left_pad": 3, "right_pad": 4}
    for given in (padding, [1, 2, 3, 4]):
        assert node(tmp_path, "1.2.1", "ZeroPadding2D", padding=given).config["padding"] == ((1, 2), (3, 4))
    assert node(tmp_path, "1.2.1", "ZeroPadding2D", padding=[1, 2]).config["padding"] == (1, 2)


def test_batch_normalization_has_the_defaults_of_its_time(tmp_path: Path) -> None:
    found = node(tmp_path, "1.0.4", "BatchNormalization", mode=0, axis=1)
    assert (found.config["epsilon"], found.config["axis"]) == (1e-5, 1)
    assert node(tmp_path, "1.2.1", "BatchNormalization", mode=2).config["epsilon"] == 1e-3
    found = node(tmp_path, "2.4.0", "BatchNormalization", axis=[3], momentum=0.9, epsilon=1e-5, renorm=False)
    assert (found.config["axis"], found.config["momentum"], found.config["epsilon"]) == (3, 0.9, 1e-5)


def test_the_feature_wise_mode_is_the_only_one_left(tmp_path: Path) -> None:
    start = entry("InputLayer", "start", batch_input_shape=IMAGE)
    graph = read(tmp_path, sequential(start, entry("BatchNormalization", "layer", mode=1)), "1.2.1")
    assert "mode='1'" in problems(graph)["layer"]


@pytest.mark.parametrize(
    ("mode", "class_name", "config"),
    [
        ("sum", "Add", {}),
        ("mul", "Multiply", {}),
        ("ave", "Average", {}),
        ("max", "Maximum", {}),
        ("concat", "Concatenate", {"axis": 1}),
        ("dot", "Dot", {"axes": (1, 2), "normalize": False}),
        ("cos", "Dot", {"axes": (1, 2), "normalize": True}),
    ],
)
def test_a_merge_is_the_layer_of_its_mode(tmp_path: Path, mode: str, class_name: str, config: Any) -> None:
    starts = [entry("InputLayer", name, [], batch_input_shape=[None, 3, 3]) for name in "ab"]
    inbound = [[["a", 0, 0], ["b", 0, 0]]]
    merge = entry("Merge", "merge", inbound, mode=mode, mode_type="raw", concat_axis=1, dot_axes=[[1], [2]])
    inputs = [["a", 0, 0], ["b", 0, 0]]
    graph = read(tmp_path, functional(*starts, merge, inputs=inputs, outputs=[["merge", 0, 0]]), "1.2.1")
    found = graph.layer("merge")
    assert found.class_name == class_name
    assert config.items() <= found.config.items()


def test_a_sequential_model_that_begins_with_a_merge_is_a_graph(tmp_path: Path) -> None:
    branch = [entry("Dense", "left", output_dim=3, batch_input_shape=[None, 4])]
    other = [entry("Dense", "right", output_dim=3, batch_input_shape=[None, 5])]
    layers = [{"class_name": "Sequential", "config": config} for config in (branch, other)]
    merge = entry("Merge", "merge_1", mode="concat", mode_type="raw", concat_axis=-1, layers=layers)
    model = {"class_name": "Sequential", "config": [merge, entry("Dense", "last", output_dim=2)]}
    graph = read(tmp_path, model, "1.2.1")
    assert problems(graph) == {}
    assert [node.class_name for node in graph.layers] == [
        *("InputLayer", "Sequential", "InputLayer", "Sequential", "Concatenate", "Dense")
    ]
    shapes = [graph.layer(reference.layer).config["batch_shape"] for reference in graph.inputs]
    assert shapes == [(None, 4), (None, 5)]
    (call,) = graph.layer("merge_1").calls
    assert call.arguments == ([Reference("merge_1_branch_0"), Reference("merge_1_branch_1")],)


@pytest.mark.parametrize("name", ["activation", "recurrent_activation"])
def test_hard_sigmoid_keeps_the_slope_of_the_version_that_saved_it(name: str) -> None:
    assert migrated("LSTM", (2, 15), **{name: "hard_sigmoid"})[1][name] == "keras2_hard_sigmoid"
    assert migrated("LSTM", (3, 0), **{name: "hard_sigmoid"})[1][name] == "hard_sigmoid"


def test_gates_without_an_activation_have_the_default_of_their_time() -> None:
    assert migrated("GRU", (2, 2), units=1)[1]["recurrent_activation"] == "keras2_hard_sigmoid"
    assert "recurrent_activation" not in migrated("GRU", (2, 4), units=1)[1]


def test_a_gru_that_does_not_mention_reset_after_has_none(tmp_path: Path) -> None:
    assert node(tmp_path, "2.1.0", "GRU", [None, 5, 4], units=3).config["reset_after"] is False
    assert node(tmp_path, "2.4.0", "GRU", [None, 5, 4], units=3, reset_after=True).config["reset_after"]
    assert node(tmp_path, "3.8.0", "GRU", [None, 5, 4], units=3).config["reset_after"] is True


def test_cudnn_layers_are_the_plain_ones(tmp_path: Path) -> None:
    found = node(tmp_path, "2.2.4", "CuDNNGRU", [None, 5, 4], units=3)
    assert (found.class_name, found.config["reset_after"]) == ("GRU", True)
    assert found.config["recurrent_activation"] == "sigmoid"
    assert node(tmp_path, "2.2.4", "CuDNNLSTM", [None, 5, 4], units=3).class_name == "LSTM"


def test_integer_dtypes_of_inputs_do_not_make_integer_layers(tmp_path: Path) -> None:
    found = node(tmp_path, "2.0.3", "Embedding", [None, 4], input_dim=9, output_dim=3, dtype="int32")
    assert found.config["dtype"] == "float32"
    found = node(tmp_path, "2.9.0", "Discretization", [None, 4], bin_boundaries=[0.5], dtype="int64")
    assert found.config["dtype"] == "float32"


def test_leaky_and_thresholded_relu_have_other_arguments_now(tmp_path: Path) -> None:
    assert node(tmp_path, "2.4.0", "LeakyReLU", alpha=0.1).config["negative_slope"] == 0.1
    found = node(tmp_path, "2.4.0", "ThresholdedReLU", theta=0.7)
    assert (found.class_name, found.config["threshold"]) == ("ReLU", 0.7)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("BatchNormalizationV1", "BatchNormalization"),
        ("MaxPool2D", "MaxPooling2D"),
        ("Convolution2D", "Conv2D"),
    ],
)
def test_former_names_of_classes(old: str, new: str) -> None:
    assert migrated(old, (2, 4))[0] == new


def tf_operation(function: str, *calls: Any, class_name: str = "TFOpLambda", **config: Any) -> dict[str, Any]:
    start = entry("InputLayer", "start", [], batch_input_shape=[None, 4])
    other = entry("InputLayer", "other", [], batch_input_shape=[None, 4])
    layer = entry(class_name, "op", list(calls), function=function, dtype="float32", **config)
    inputs = [["start", 0, 0], ["other", 0, 0]]
    return functional(start, other, layer, inputs=inputs, outputs=[["op", 0, 0]])


@pytest.mark.parametrize(
    ("function", "call", "text"),
    [
        ("__operators__.add", ["start", 0, 0, {"y": ["other", 0, 0], "name": None}], "x[0] + x[1]"),
        ("__operators__.rsub", ["start", 0, 0, {"y": 2.0}], "2.0 - x"),
        ("__operators__.rtruediv", ["start", 0, 0, {"y": 2.0}], "2.0 / x"),
        ("math.multiply", ["start", 0, 0, {"y": 3, "name": None}], "x * 3"),
        (
            "concat",
            [["start", 0, 0, {"axis": -1}], ["other", 0, 0, {"axis": -1}]],
            "concatenate((x[0], x[1]), axis=-1)",
        ),
        (
            "math.reduce_mean",
            ["start", 0, 0, {"axis": 1, "keepdims": True}],
            "mean(x, axis=1, keepdims=True)",
        ),
        ("nn.relu", ["start", 0, 0, {"name": None}], "relu(x)"),
        ("reshape", ["start", 0, 0, {"shape": [-1, 2, 2]}], "reshape(x, (-1, 2, 2))"),
        (
            "compat.v1.transpose",
            ["start", 0, 0, {"perm": [1, 0], "conjugate": False}],
            "transpose(x, axes=(1, 0))",
        ),
    ],
)
def test_operations_of_tensorflow_are_expressions(
    tmp_path: Path, function: str, call: Any, text: str
) -> None:
    graph = read(tmp_path, tf_operation(function, call), "2.8.0")
    assert problems(graph) == {}
    found = graph.layer("op")
    assert str(found.config["expression"]) == text
    references = [Reference("start"), Reference("other")][: 1 + ("x[1]" in text)]
    assert found.calls == (Call((references if len(references) > 1 else references[0],)),)


def test_slices_of_tensors_are_expressions(tmp_path: Path) -> None:
    spec = [{"class_name": "__ellipsis__"}, {"start": 1, "stop": None, "step": None}, None, -1]
    call = ["start", 0, 0, {"slice_spec": spec}]
    model = tf_operation("__operators__.getitem", call, class_name="SlicingOpLambda")
    assert str(read(tmp_path, model, "2.8.0").layer("op").config["expression"]) == "x[..., 1:, None, -1]"


def test_a_node_of_tensorflows_graph_is_an_expression(tmp_path: Path) -> None:
    definition = {"name": "mul", "op": "Mul", "input": ["a", "b"], "attr": {"T": {"type": "DT_FLOAT"}}}
    config = {"node_def": definition, "constants": {"0": 2.5}}
    model = tf_operation("", [["start", 0, 0, {}]], class_name="TensorFlowOpLayer", **config)
    assert str(read(tmp_path, model, "2.2.0").layer("op").config["expression"]) == "2.5 * x"


def test_an_operation_that_is_not_known_is_named(tmp_path: Path) -> None:
    graph = read(tmp_path, tf_operation("io.read_file", ["start", 0, 0, {}]), "2.8.0")
    assert "io.read_file" in problems(graph)["op"]
