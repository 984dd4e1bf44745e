"""The shapes that `layers` works out from a file, without its weights' numbers."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from model_writers import entry, functional, sequential, write_flat, write_json

from layerprobe.layer_listing import layers
from layerprobe.records import LayerInfo

INPUT = entry("InputLayer", "x", [], batch_input_shape=[None, 8, 6, 3])
CONVOLUTION = entry("Conv2D", "conv", [[["x", 0, 0, {}]]], filters=5, kernel_size=[3, 3], strides=[2, 2])


def convolution(kernel: tuple[int, ...] = (3, 3, 3, 5)) -> list[tuple[str, np.ndarray]]:
    return [("conv/kernel:0", np.ones(kernel, "float32")), ("conv/bias:0", np.ones(5, "float32"))]


def by_address(path: str) -> dict[str, LayerInfo]:
    return {layer.address: layer for layer in layers(path)}


def test_shapes_bytes_and_engine_are_worked_out(tmp_path: Path) -> None:
    model = functional(INPUT, CONVOLUTION, inputs=[["x", 0, 0]], outputs=[["conv", 0, 0]])
    found = by_address(write_flat(tmp_path / "m.h5", model, {"conv": convolution()}))
    assert found["conv"].shapes == ((3, 2, 5),)
    assert found["conv"].row_bytes == 4 * 3 * 2 * 5
    assert found["conv"].engine == "graph"


def test_sizes_that_the_images_decide_stay_open(tmp_path: Path) -> None:
    free = entry("InputLayer", "x", [], batch_input_shape=[None, None, 6, 3])
    pool = entry("GlobalAveragePooling2D", "pool", [[["conv", 0, 0, {}]]])
    model = functional(free, CONVOLUTION, pool, inputs=[["x", 0, 0]], outputs=[["pool", 0, 0]])
    found = by_address(write_flat(tmp_path / "m.h5", model, {"conv": convolution()}))
    assert found["x"].shapes == ((None, 6, 3),)
    assert found["conv"].shapes == ((None, 2, 5),)
    assert found["conv"].row_bytes is None
    assert found["pool"].shapes == ((5,),)


def test_layers_before_an_unknown_one_have_their_shapes(tmp_path: Path) -> None:
    unknown = entry("Mystery", "mystery", [[["conv", 0, 0, {}]]])
    flat = entry("Flatten", "flat", [[["conv", 0, 0, {}]]])
    last = entry("Flatten", "last", [[["mystery", 0, 0, {}]]])
    outputs = [["flat", 0, 0], ["last", 0, 0]]
    model = functional(INPUT, CONVOLUTION, unknown, flat, last, inputs=[["x", 0, 0]], outputs=outputs)
    found = by_address(write_flat(tmp_path / "m.h5", model, {"conv": convolution()}))
    assert found["flat"].shapes == ((30,),)
    for name in ("mystery", "last"):
        assert (found[name].shapes, found[name].engine) == (None, None)
        assert "Mystery" in str(found[name].problem)


def test_a_layer_that_only_keras_computes_says_so(tmp_path: Path) -> None:
    start = entry("InputLayer", "x", batch_input_shape=[None, 4096])
    found = by_address(write_flat(tmp_path / "m.h5", sequential(start, entry("MelSpectrogram", "mel")), {}))
    assert (found["mel"].shapes, found["mel"].engine, found["mel"].problem) == (None, "keras", None)


def test_a_shared_layer_has_the_shape_of_each_call(tmp_path: Path) -> None:
    inputs = [
        entry("InputLayer", name, [], batch_input_shape=[None, size]) for name, size in (("a", 3), ("b", 4))
    ]
    twice = [[["a", 0, 0, {}]], [["b", 0, 0, {}]]]
    model = functional(
        *inputs,
        entry("Flatten", "flat", twice),
        inputs=[["a", 0, 0], ["b", 0, 0]],
        outputs=[["flat", 0, 0], ["flat", 1, 0]],
    )
    found = by_address(write_flat(tmp_path / "m.h5", model, {}))
    assert found["flat"].shapes == ((3,), (4,))
    assert found["flat"].row_bytes == 28


def test_weights_that_do_not_fit_have_no_shape_to_show(tmp_path: Path) -> None:
    model = functional(INPUT, CONVOLUTION, inputs=[["x", 0, 0]], outputs=[["conv", 0, 0]])
    found = by_address(write_flat(tmp_path / "m.h5", model, {"conv": convolution((2, 2, 3, 5))}))
    assert found["x"].shapes == ((8, 6, 3),)
    assert found["conv"].shapes is None


def test_an_architecture_without_weights_is_listed_without_shapes(tmp_path: Path) -> None:
    model = functional(INPUT, CONVOLUTION, inputs=[["x", 0, 0]], outputs=[["conv", 0, 0]])
    found = by_address(write_json(tmp_path / "m.json", model))
    assert (found["conv"].shapes, found["conv"].engine) == (None, None)


def test_the_numbers_of_the_weights_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = 50_000
    dense = entry("Dense", "dense", units=units)
    start = entry("InputLayer", "x", batch_input_shape=[None, 2000])
    path = tmp_path / "m.h5"
    write_flat(path, sequential(start, dense, name="m"), {"dense": []})
    with h5py.File(path, "a") as file:
        group = file["model_weights/dense"]
        for name, shape in (("kernel", (2000, units)), ("bias", (units,))):
            # Allocated, but a hole in the file: 400 MB that are nowhere.
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, space, creation)
        group.attrs["weight_names"] = [b"kernel", b"bias"]
    monkeypatch.setattr("layerprobe.modelfile.weights.read", lambda *_: pytest.fail("weights were read"))
    found = by_address(str(path))
    assert found["dense"].shapes == ((units,),)
    assert found["dense"].engine == "graph"


def test_the_command_prints_and_writes_them(command, samples: Path) -> None:
    table = command("layers", samples / "vgg_shapes.h5", "conv5_3").out.splitlines()
    assert " ".join(table[0].split()) == "# layer class parameters shape bytes engine from calls"
    assert " ".join(table[2].split()) == "#18 conv5_3 Conv2D 36,928 (7, 7, 64) 12,544 graph conv5_2"
    (layer,) = json.loads(command("layers", samples / "vgg_shapes.h5", "conv5_3", "--json").out)
    assert (layer["shapes"], layer["row_bytes"], layer["engine"]) == ([[7, 7, 64]], 12544, "graph")
