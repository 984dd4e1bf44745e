"""What can be reached past layers of unknown code, and what is kept of a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_writers import START, entry, functional, nested, sequential, write_json

from layerprobe.modelfile.archive import open_archive
from layerprobe.modelfile.config import read_graph
from layerprobe.modelfile.graph import Graph, Reference, walk
from layerprobe.modelfile.reach import keep_ancestors, problems


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read_model(model: Any, version: str = "2.2.4", **options: Any) -> Graph:
        path = write_json(tmp_path / "model.json", {**model, "keras_version": version})
        with open_archive(path) as archive:
            return read_graph(archive, **options)

    return read_model


def unknown_in_the_middle(read: Any) -> Graph:
    layers = [
        entry("Dense", "first", [[["start", 0, 0, {}]]], units=2),
        entry("Mine", "middle", [[["first", 0, 0, {}]]]),
        entry("Dense", "beside", [[["first", 0, 0, {}]]], units=2),
        entry("Dense", "last", [[["middle", 0, 0, {}]]], units=2),
    ]
    outputs = [["last", 0, 0], ["beside", 0, 0]]
    return read(functional(START, *layers, inputs=[["start", 0, 0]], outputs=outputs))  # type: ignore[no-any-return]


def test_only_what_depends_on_an_unknown_layer_is_out_of_reach(read: Any) -> None:
    found = problems(unknown_in_the_middle(read))
    assert found.keys() == {"middle", "last"}
    assert "Mine is not one of Keras's own" in found["middle"]
    assert "it needs layer 'middle'" in found["last"]


def test_a_class_that_the_user_gives_is_no_problem(read: Any) -> None:
    assert problems(unknown_in_the_middle(read), {"Mine"}) == {}


def test_an_activation_that_is_not_keras_s_is_unknown_code_too(read: Any) -> None:
    graph = read(sequential(START, entry("Dense", "dense", units=2, activation="my_function")))
    assert "my_function" in problems(graph)["dense"]
    assert problems(graph, {"my_function"}) == {}


def test_only_ancestors_are_kept(read: Any) -> None:
    cut = keep_ancestors(unknown_in_the_middle(read), {"beside"})
    assert [node.name for node in cut.layers] == ["start", "first", "beside"]
    assert cut.outputs == Reference("beside")


def test_inputs_that_nothing_wanted_needs_are_not_kept(read: Any) -> None:
    other = entry("InputLayer", "other", [], batch_input_shape=[None, 4])
    dense = entry("Dense", "dense", [[["start", 0, 0, {}]]], units=2)
    both = entry("Add", "both", [[["dense", 0, 0, {}], ["other", 0, 0, {}]]])
    inputs = [["start", 0, 0], ["other", 0, 0]]
    graph = read(functional(START, other, dense, both, inputs=inputs, outputs=[["both", 0, 0]]))
    assert keep_ancestors(graph, {"dense"}).inputs == Reference("start")
    assert keep_ancestors(graph, {""}) == graph


def test_a_nested_model_is_cut_down_where_only_layers_within_it_are_wanted(read: Any) -> None:
    model = nested([[["start", 0, 0, {}]]], [["inner", 1, 0, {}], ["inner", 1, 0, {}]])
    inner = model["config"]["layers"][1]["config"]
    inner["layers"].append(entry("Mine", "unknown", [[["d", 0, 0, {}]]]))
    inner["output_layers"] = [["unknown", 0, 0]]
    graph = read(model)
    assert problems(graph).keys() == {"inner/unknown", "inner", "add"}
    cut = keep_ancestors(graph, {"inner/d"})
    assert [address for address, _ in walk(cut)] == ["start", "inner", "inner/q", "inner/d"]
    assert problems(cut) == {}
