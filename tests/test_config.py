from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_writers import START, entry, functional, nested, sequential, write_json

from layerprobe.errors import ModelError, UsageError
from layerprobe.modelfile.archive import open_archive
from layerprobe.modelfile.config import read_graph, read_version
from layerprobe.modelfile.graph import Call, Graph, LayerNode, Reference, walk
from layerprobe.modelfile.reach import problems


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read_model(model: Any, version: str = "2.2.4", **options: Any) -> Graph:
        path = write_json(tmp_path / "model.json", {**model, "keras_version": version})
        with open_archive(path) as archive:
            return read_graph(archive, **options)

    return read_model


def tensor(name: str, call: int = 0, output: int = 0) -> dict[str, Any]:
    """A tensor as Keras 3 writes it."""
    config = {"shape": [None, 4], "dtype": "float32", "keras_history": [name, call, output]}
    return {"class_name": "__keras_tensor__", "config": config}


def test_a_bare_list_is_a_sequential_model(read: Any) -> None:
    first = entry("Dense", "first", units=3, batch_input_shape=[None, 4])
    graph = read({"class_name": "Sequential", "config": [first, entry("Dense", "last", units=2)]}, "2.1.0")
    assert graph.class_name == "Sequential"
    assert [node.name for node in graph.layers] == ["first_input", "first", "last"]
    assert graph.layers[0].config["batch_shape"] == (None, 4)
    assert graph.layer("last").calls == (Call((Reference("first"),)),)
    assert graph.outputs == Reference("last")


def test_the_input_layer_of_a_sequential_model_is_not_among_its_layers(read: Any) -> None:
    graph = read(sequential(entry("Dense", "only", units=2, batch_input_shape=[None, 4])))
    assert [address for address, _ in walk(graph)] == ["only"]


@pytest.mark.parametrize(
    "first",
    [
        entry("Dense", "a", units=3, batch_input_shape=[None, 7]),
        {**sequential(entry("Dense", "b", units=3, batch_input_shape=[None, 7])), "name": "inner"},
        {"class_name": "Sequential", "config": [entry("Dense", "b", units=3, batch_input_shape=[None, 7])]},
        entry("TimeDistributed", "t", layer=entry("Dense", "b", units=3, batch_input_shape=[None, 7])),
    ],
)
def test_the_input_shape_is_found_where_the_first_layer_has_it(read: Any, first: Any) -> None:
    graph = read(sequential(first, entry("Dense", "last", units=2)))
    assert graph.layers[0].config["batch_shape"] == (None, 7)


def test_the_build_input_shape_goes_before_that_of_the_first_layer(read: Any) -> None:
    model = sequential(entry("Dense", "a", units=3, batch_input_shape=[None, 7]))
    model["config"]["build_input_shape"] = [2, 7]
    assert read(model).layers[0].config["batch_shape"] == (2, 7)


def test_input_layers_in_the_middle_of_a_sequential_model_are_left_out(read: Any) -> None:
    middle = entry("InputLayer", "again", batch_input_shape=[None, 3])
    first = entry("Dense", "a", units=3, batch_input_shape=[None, 7])
    graph = read(sequential(first, middle, entry("Dense", "b", units=2)))
    assert [node.name for node in graph.layers] == ["a_input", "a", "b"]


def test_single_outputs_in_a_list_are_that_output(read: Any) -> None:
    dense = entry("Dense", "dense", [[["start", 0, 0, {}]]], units=2)
    graph = read(functional(START, dense, inputs=[["start", 0, 0]], outputs=[["dense", 0, 0]]))
    assert graph.inputs == Reference("start")
    assert graph.outputs == Reference("dense")


def test_several_outputs_and_dicts_keep_their_structure(read: Any) -> None:
    dense = entry("Dense", "dense", [[["start", 0, 0, {}]]], units=2)
    outputs = {"a": ["dense", 0, 0], "b": ["start", 0, 0]}
    graph = read(functional(START, dense, inputs=["start", 0, 0], outputs=outputs))
    assert graph.outputs == {"a": Reference("dense"), "b": Reference("start")}


def test_model_is_the_former_name_of_functional(read: Any) -> None:
    model = functional(START, inputs=[["start", 0, 0]], outputs=[["start", 0, 0]], class_name="Model")
    assert read(model).class_name == "Functional"


def test_calls_of_a_nested_model_count_from_one_in_old_files(read: Any) -> None:
    model = nested([[["start", 0, 0, {}]], [["start", 0, 0, {}]]], [["inner", 1, 0, {}], ["inner", 2, 0, {}]])
    graph = read(model)
    assert graph.layer("add").calls == (Call(([Reference("inner", 0), Reference("inner", 1)],)),)
    assert [address for address, _ in walk(graph)] == ["start", "inner", "inner/q", "inner/d", "add"]


def test_the_count_from_one_holds_where_an_index_alone_would_not_tell(read: Any) -> None:
    model = nested([[["start", 0, 0, {}]], [["start", 0, 0, {}]]], [["inner", 1, 0, {}], ["start", 0, 0, {}]])
    (call,) = read(model).layer("add").calls
    assert call.arguments == ([Reference("inner", 0), Reference("start")],)


def test_calls_of_a_nested_model_count_from_zero_in_keras_3_but_for_outputs(read: Any) -> None:
    model = nested([], [])
    _, inner, add = model["config"]["layers"]
    inner["inbound_nodes"] = [{"args": [tensor("start")], "kwargs": {}}]
    add["inbound_nodes"] = [{"args": [[tensor("inner"), tensor("inner")]], "kwargs": {}}]
    model["config"]["output_layers"] = [["inner", 1, 0], ["add", 0, 0]]
    graph = read(model, "3.8.0")
    assert graph.layer("add").calls[0].arguments == ([Reference("inner"), Reference("inner")],)
    assert graph.outputs == [Reference("inner"), Reference("add")]


def test_a_call_that_is_never_made_is_named(read: Any) -> None:
    with pytest.raises(ModelError, match="'inner' is used, but never made"):
        read(nested([[["start", 0, 0, {}]]], [["inner", 1, 0, {}], ["inner", 4, 0, {}]]))


def test_a_layer_that_does_not_exist_is_named(read: Any) -> None:
    dense = entry("Dense", "dense", [[["nobody", 0, 0, {}]]], units=2)
    with pytest.raises(ModelError, match="'nobody'"):
        read(functional(START, dense, inputs=[["start", 0, 0]], outputs=[["dense", 0, 0]]))


def test_further_inputs_of_a_recurrent_layer_are_its_initial_state(read: Any) -> None:
    lstm = entry("LSTM", "lstm", [[["start", 0, 0, {}], ["h", 0, 0, {}], ["c", 0, 0, {}]]], units=3)
    states = [entry("InputLayer", name, [], batch_input_shape=[None, 3]) for name in "hc"]
    inputs = [[name, 0, 0] for name in ("start", "h", "c")]
    graph = read(functional(START, *states, lstm, inputs=inputs, outputs=[["lstm", 0, 0]]))
    state = [Reference("h"), Reference("c")]
    assert graph.layer("lstm").calls == (Call((Reference("start"),), {"initial_state": state}),)


def test_tensors_among_keyword_arguments_are_references(read: Any) -> None:
    inbound = [[["start", 0, 0, {"value": ["start", 0, 0], "training": False, "mask": None}]]]
    attention = entry("MultiHeadAttention", "mha", inbound, num_heads=2, key_dim=3)
    graph = read(functional(START, attention, inputs=[["start", 0, 0]], outputs=[["mha", 0, 0]]), "2.8.0")
    (call,) = graph.layer("mha").calls
    assert call == Call((Reference("start"),), {"value": Reference("start"), "training": False})


def test_tagged_values_of_keras_3_are_read(read: Any) -> None:
    key = [
        {"class_name": "__ellipsis__", "config": {}},
        {"class_name": "__slice__", "config": {"start": 1, "stop": None, "step": 2}},
    ]
    item = {
        "module": "keras.src.ops.numpy",
        "class_name": "GetItem",
        "config": {"name": "item"},
        "name": "item",
        "inbound_nodes": [{"args": [tensor("start"), key], "kwargs": {}}],
    }
    graph = read(functional(START, item, inputs=[["start", 0, 0]], outputs=[["item", 0, 0]]), "3.8.0")
    assert graph.layer("item").is_operation
    assert graph.layer("item").calls[0].arguments == (Reference("start"), (..., slice(1, None, 2)))


def test_an_operation_that_is_not_on_the_list_is_a_problem(read: Any) -> None:
    loop = {
        "module": "keras.src.ops.core",
        "class_name": "WhileLoop",
        "config": {"name": "loop", "cond": "x"},
        "name": "loop",
        "inbound_nodes": [{"args": [tensor("start")], "kwargs": {}}],
    }
    graph = read(functional(START, loop, inputs=[["start", 0, 0]], outputs=[["loop", 0, 0]]), "3.8.0")
    assert "WhileLoop" in problems(graph)["loop"]


def test_arguments_are_complete_and_training_is_left_out(read: Any) -> None:
    dense = entry(
        "Dense",
        "dense",
        units=2,
        activation="relu",
        kernel_initializer={"class_name": "VarianceScaling", "config": {"scale": 1.0}},
        kernel_regularizer={"class_name": "L1L2", "config": {"l1": 0.1}},
        batch_input_shape=[None, 4],
    )
    node = read(sequential(dense)).layer("dense")
    assert node.config == {
        "units": 2,
        "activation": "relu",
        "use_bias": True,
        "trainable": True,
        "dtype": "float32",
    }


def test_retired_arguments_are_dropped_when_they_change_nothing_and_refused_else(read: Any) -> None:
    def lstm(value: bool) -> Graph:
        layer = entry("LSTM", "lstm", units=2, time_major=value, implementation=2)
        return read(sequential(START, layer), "2.8.0")

    assert problems(lstm(False)) == {}
    assert any("time_major=False" in finding.message for finding in lstm(False).findings)
    assert "time_major='True'" in problems(lstm(True))["lstm"]


@pytest.mark.parametrize(
    "dtype",
    [
        {"class_name": "Policy", "config": {"name": "mixed_float16"}},
        {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "mixed_float16"}},
        "mixed_float16",
    ],
)
def test_a_dtype_policy_is_its_name(read: Any, dtype: Any) -> None:
    graph = read(sequential(START, entry("Dense", "dense", units=2, dtype=dtype)), "2.8.0")
    assert graph.layer("dense").config["dtype"] == "mixed_float16"


def test_both_directions_of_a_bidirectional_layer_are_layers_of_their_own(read: Any) -> None:
    inner = {"class_name": "LSTM", "config": {"name": "lstm_1", "units": 3}}
    graph = read(sequential(START, entry("Bidirectional", "both", layer=inner, merge_mode="sum")))
    assert [address for address, _ in walk(graph)][1:] == ["both/forward_lstm_1", "both/backward_lstm_1"]
    backward = graph.layer("both").config["backward_layer"]
    assert isinstance(backward, LayerNode)
    assert backward.config["go_backwards"] is True


def test_a_subclassed_model_has_no_layers_that_a_file_could_tell(read: Any) -> None:
    graph = read({"class_name": "Encoder", "module": "mine", "config": {"layers": [64, 32]}}, "3.8.0")
    assert (graph.class_name, graph.layers) == ("Encoder", ())


def test_a_subclass_of_functional_is_the_graph_that_it_was_made_of(read: Any) -> None:
    model = functional(START, inputs=[["start", 0, 0]], outputs=[["start", 0, 0]], class_name="Trained")
    graph = read(model)
    assert graph.class_name == "Functional"
    assert any("Trained" in finding.message for finding in graph.findings)


def test_an_expression_for_no_lambda_of_the_model_is_an_error(read: Any) -> None:
    with pytest.raises(UsageError, match="no such Lambda"):
        read(sequential(START), lambdas={"nobody": "x"})


def test_an_expression_goes_before_the_code_of_the_file(read: Any) -> None:
    layer = entry("Lambda", "norm", function=["junk", None, None], function_type="lambda")
    graph = read(sequential(START, layer), lambdas={"norm": "x / 2"})
    assert str(graph.layer("norm").config["expression"]) == "x / 2"
    assert problems(read(sequential(START, layer)))["norm"]


@pytest.mark.parametrize(
    ("text", "document", "version"),
    [
        ("2.2.4-tf", {}, (2, 2)),
        ("3.10.0", {}, (3, 10)),
        (None, {"config": {"nb_filter": 3}}, (1, 0)),
        (None, {"config": {"batch_shape": [1]}}, (3, 0)),
        (None, {"config": {"units": 3}}, (2, 0)),
        ("unknown", {"config": {"units": 3}}, (2, 0)),
    ],
)
def test_the_version_is_read_or_judged_by_style(text: Any, document: Any, version: Any) -> None:
    assert read_version(text, document) == version


@pytest.mark.parametrize(
    "config",
    [
        {"layers": [], "input_layers": [], "output_layers": []},
        {"layers": [None], "input_layers": [["a", 0, 0]], "output_layers": [["a", 0, 0]]},
        {"layers": [{"class_name": 3}], "input_layers": [["a", 0, 0]], "output_layers": [["a", 0, 0]]},
        {"layers": [START, START], "input_layers": [["start", 0, 0]], "output_layers": [["start", 0, 0]]},
        {"layers": [{**START, "inbound_nodes": "x"}], "input_layers": [], "output_layers": []},
        {"layers": [{**START, "inbound_nodes": [[["start", -1, 0]]]}], "input_layers": 3, "output_layers": 4},
        {"layers": [START], "input_layers": [["gone", 0, 0]], "output_layers": [["start", 0, 0]]},
    ],
)
def test_a_malformed_graph_is_refused_in_one_sentence(read: Any, config: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        read({"class_name": "Functional", "config": {"name": "m", **config}})
    assert "\n" not in str(caught.value)
    json.dumps(str(caught.value))
