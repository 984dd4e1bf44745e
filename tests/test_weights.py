from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from model_writers import entry, functional, sequential, write_flat, write_tree

from layerprobe.errors import ModelError, UnsafeModelError
from layerprobe.modelfile.archive import open_archive
from layerprobe.modelfile.config import read_graph
from layerprobe.modelfile.weights import Weights

RNG = np.random.default_rng(0)


def random(*shape: int) -> Any:
    return RNG.random(shape, dtype="float32")


def read(path: str, address: str) -> dict[str, Any]:
    with open_archive(path) as archive:
        return Weights(archive, read_graph(archive)).arrays(address)


def start(*shape: int) -> dict[str, Any]:
    return entry("InputLayer", "start", batch_input_shape=[None, *shape])


def inner_model(*layers: dict[str, Any]) -> dict[str, Any]:
    return {**sequential(start(4), *layers, name="inner"), "name": "inner"}


DENSE = entry("Dense", "d", units=4)
NORM = entry("BatchNormalization", "b")


def test_weights_are_named_and_ordered_as_keras_3_does(tmp_path: Path) -> None:
    kernel, bias = random(4, 2), random(2)
    weights = {"d": [("d/kernel:0", kernel), ("d/bias:0", bias)]}
    path = write_flat(tmp_path / "m.h5", sequential(start(4), entry("Dense", "d", units=2)), weights)
    found = read(path, "d")
    assert list(found) == ["kernel", "bias"]
    np.testing.assert_array_equal(found["kernel"], kernel)
    np.testing.assert_array_equal(found["bias"], bias)


def test_parameters_are_counted_without_reading(tmp_path: Path) -> None:
    weights = {"d": [("d/kernel:0", random(4, 2)), ("d/bias:0", random(2))]}
    path = write_flat(tmp_path / "m.h5", sequential(start(4), entry("Dense", "d", units=2)), weights)
    with open_archive(path) as archive:
        found = Weights(archive, read_graph(archive))
        assert found.parameters("d") == 10
        assert found.shapes("d") == [(4, 2), (2,)]
        assert found.total() == 10


@pytest.mark.parametrize("named", [True, False])
def test_flat_weights_of_a_nested_model_are_trainable_first(tmp_path: Path, named: bool) -> None:
    order = ["d/kernel", "d/bias", "b/gamma", "b/beta", "e/kernel", "e/bias"]
    order += ["b/moving_mean", "b/moving_variance"]
    arrays = {name: random(4, 4) if name.endswith("kernel") else random(4) for name in order}
    names = order if named else [f"weight_{number}" for number in range(len(order))]
    model = sequential(start(4), inner_model(DENSE, NORM, entry("Dense", "e", units=4)))
    weights = {"inner": list(zip(names, arrays.values(), strict=True))}
    path = write_flat(tmp_path / "m.h5", model, weights)
    np.testing.assert_array_equal(read(path, "inner/e")["kernel"], arrays["e/kernel"])
    np.testing.assert_array_equal(read(path, "inner/b")["moving_mean"], arrays["b/moving_mean"])
    np.testing.assert_array_equal(read(path, "inner/b")["gamma"], arrays["b/gamma"])


def test_flat_weights_of_frozen_layers_come_after_the_trainable_ones(tmp_path: Path) -> None:
    frozen = entry("BatchNormalization", "b", trainable=False)
    order = ["d/kernel", "d/bias", "b/gamma", "b/beta", "b/moving_mean", "b/moving_variance"]
    arrays = [random(4, 4) if name.endswith("kernel") else random(4) for name in order]
    model = sequential(start(4), inner_model(frozen, DENSE))
    weights = {"inner": [(f"w{number}", array) for number, array in enumerate(arrays)]}
    path = write_flat(tmp_path / "m.h5", model, weights)
    np.testing.assert_array_equal(read(path, "inner/d")["kernel"], arrays[0])
    np.testing.assert_array_equal(read(path, "inner/b")["moving_variance"], arrays[5])


def test_names_tell_where_the_order_does_not(tmp_path: Path) -> None:
    order = ["d/kernel:0", "d/bias:0", "b/gamma:0", "b/beta:0", "b/moving_mean:0", "b/moving_variance:0"]
    order += ["e/kernel:0", "e/bias:0"]
    arrays = [random(4, 4) if name.endswith("kernel:0") else random(4) for name in order]
    model = sequential(start(4), inner_model(DENSE, NORM, entry("Dense", "e", units=4)))
    path = write_flat(tmp_path / "m.h5", model, {"inner": list(zip(order, arrays, strict=True))})
    np.testing.assert_array_equal(read(path, "inner/b")["moving_mean"], arrays[4])
    np.testing.assert_array_equal(read(path, "inner/e")["bias"], arrays[7])


def test_a_layer_of_unknown_class_beside_known_ones_is_told_by_names(tmp_path: Path) -> None:
    kernel = random(4, 4)
    arrays = [("mine/gain:0", random(4)), ("d/kernel:0", kernel), ("d/bias:0", random(4))]
    path = write_flat(
        tmp_path / "m.h5", sequential(start(4), inner_model(entry("Mine", "mine"), DENSE)), {"inner": arrays}
    )
    np.testing.assert_array_equal(read(path, "inner/d")["kernel"], kernel)


def test_weights_of_layers_with_other_names_are_taken_in_order(tmp_path: Path) -> None:
    first, second = random(4, 3), random(3, 2)
    model = sequential(start(4), entry("Dense", "a", units=3), entry("Dense", "b", units=2))
    weights = {"dense_7": [("k", first), ("b", random(3))], "dense_8": [("k", second), ("b", random(2))]}
    path = write_flat(tmp_path / "m.h5", model, weights)
    np.testing.assert_array_equal(read(path, "b")["kernel"], second)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = write_flat(
        tmp_path / "m.h5", sequential(start(4), DENSE), {"x": [("k", random(2))], "y": [("k", random(2))]}
    )
    with pytest.raises(ModelError, match="those of another model"):
        read(path, "d")


def test_a_missing_weight_is_counted(tmp_path: Path) -> None:
    path = write_flat(tmp_path / "m.h5", sequential(start(4), DENSE), {"d": [("d/kernel:0", random(4, 4))]})
    with pytest.raises(ModelError, match=r"'d' \(Dense\) has 2 weights, but 1 are stored"):
        read(path, "d")


def test_the_state_of_random_numbers_is_no_weight(tmp_path: Path) -> None:
    arrays = [("flip/StateVar:0", np.zeros(3, "int64"))]
    weights = {"flip": arrays, "d": [("d/kernel:0", random(4, 4)), ("d/bias:0", random(4))]}
    model = sequential(start(4), entry("RandomFlip", "flip", mode="horizontal"), DENSE)
    assert list(read(write_flat(tmp_path / "m.h5", model, weights), "d")) == ["kernel", "bias"]


def test_long_lists_of_names_may_be_cut_into_numbered_ones(tmp_path: Path) -> None:
    path = write_flat(tmp_path / "m.h5", sequential(start(4), DENSE), {})
    kernel = random(4, 4)
    with h5py.File(path, "a") as file:
        group = file["model_weights"]
        del group.attrs["layer_names"]
        group.attrs["layer_names0"], group.attrs["layer_names1"] = [b"start"], [b"d"]
        group.create_group("start").attrs["weight_names"] = np.zeros(0)
        within = group.create_group("d")
        within.attrs["weight_names0"], within.attrs["weight_names1"] = [b"k"], [b"b"]
        within["k"], within["b"] = kernel, random(4)
    np.testing.assert_array_equal(read(path, "d")["kernel"], kernel)


TWO_CONVOLUTIONS = sequential(
    start(8, 8, 3),
    entry("Conv2D", "a", filters=2, kernel_size=1),
    entry("Conv2D", "b", filters=2, kernel_size=1),
)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("layers/conv2d", "layers/conv2d_1"),
        ("layers/conv2d", "layers/conv2d_2"),
        ("_layer_checkpoint_dependencies/conv2d", "_layer_checkpoint_dependencies/conv2d_1"),
        ("layers\\conv2d", "layers\\conv2d_1"),
    ],
)
def test_numbered_groups_are_the_layers_of_a_class_in_order(tmp_path: Path, first: str, second: str) -> None:
    kernel = random(1, 1, 2, 2)
    groups = {first: [random(1, 1, 3, 2), random(2)], second: [kernel, random(2)]}
    path = write_tree(tmp_path / "m.keras", TWO_CONVOLUTIONS, groups, "2.13.1")
    np.testing.assert_array_equal(read(path, "b")["kernel"], kernel)


def test_stated_names_go_before_numbers(tmp_path: Path) -> None:
    kernel = random(1, 1, 3, 2)
    groups = {"layers/conv2d": [random(1, 1, 2, 2), random(2)], "layers/conv2d_1": [kernel, random(2)]}
    path = write_flat(tmp_path / "w.h5", TWO_CONVOLUTIONS, {})
    with h5py.File(path, "a") as file:
        del file["model_weights"]
        for (name, arrays), stated in zip(groups.items(), ("b", "a"), strict=True):
            group = file.create_group(f"{name}/vars")
            group.attrs["name"] = stated
            for number, array in enumerate(arrays):
                group[str(number)] = array
    np.testing.assert_array_equal(read(path, "a")["kernel"], kernel)


def test_nested_and_wrapped_layers_have_their_place_in_the_tree(tmp_path: Path) -> None:
    cell = {"class_name": "LSTM", "config": {"name": "lstm", "units": 2}}
    both = entry("Bidirectional", "both", layer=cell)
    within = sequential(start(5, 3), both, name="inner")
    groups = {
        f"layers/sequential/layers/bidirectional/{part}/cell": [random(3, 8), random(2, 8), random(8)]
        for part in ("backward_layer", "forward_layer")
    }
    path = write_tree(tmp_path / "m.keras", sequential(start(5, 3), {**within, "name": "inner"}), groups)
    found = read(path, "inner/both/backward_lstm")
    expected = groups["layers/sequential/layers/bidirectional/backward_layer/cell"]
    assert list(found) == ["kernel", "recurrent_kernel", "bias"]
    np.testing.assert_array_equal(found["recurrent_kernel"], expected[1])


@pytest.mark.parametrize("underscore", ["", "_"])
def test_the_projections_of_attention_are_told_by_their_objects(tmp_path: Path, underscore: str) -> None:
    shapes = {"query": (4, 2, 3), "key": (4, 2, 3), "value": (4, 2, 5), "output": (2, 5, 4)}
    groups = {
        f"layers/multi_head_attention/{underscore}{name}_dense": [random(*shape), random(*shape[1:])]
        for name, shape in shapes.items()
    }
    layer = entry("MultiHeadAttention", "mha", [[["start", 0, 0, {"value": ["start", 0, 0]}]]], num_heads=2)
    layer["config"] |= {"key_dim": 3, "value_dim": 5}
    begin = entry("InputLayer", "start", [], batch_input_shape=[None, 7, 4])
    model = functional(begin, layer, inputs=["start", 0, 0], outputs=["mha", 0, 0])
    found = read(write_tree(tmp_path / "m.keras", model, groups, "2.15.0"), "mha")
    assert found["value/kernel"].shape == (4, 2, 5)
    assert found["attention_output/kernel"].shape == (2, 5, 4)


def test_bfloat16_is_read_though_hdf5_has_no_name_for_it(tmp_path: Path) -> None:
    kernel = np.array([[1.0, -2.5], [0.0, 384.0]], "float32")
    halves = (kernel.view("uint32") >> 16).astype("uint16").view("V2")
    model = sequential(start(2), entry("Dense", "d", units=2, dtype="bfloat16"))
    path = write_tree(
        tmp_path / "m.keras", model, {"layers/dense": [halves, np.zeros(2, "uint16").view("V2")]}
    )
    np.testing.assert_array_equal(read(path, "d")["kernel"], kernel)


def test_the_gates_of_a_keras_1_lstm_are_joined_in_keras_3_s_order(tmp_path: Path) -> None:
    gates = {gate: (random(3, 2), random(2, 2), random(2)) for gate in "icfo"}
    names = [
        (f"lstm_{kind}_{gate}", array)
        for gate in "icfo"
        for kind, array in zip("WUb", gates[gate], strict=True)
    ]
    model = sequential(start(5, 3), entry("LSTM", "lstm", output_dim=2, inner_activation="sigmoid"))
    found = read(write_flat(tmp_path / "m.h5", model, {"lstm": names}, "1.2.1"), "lstm")
    for place, gate in enumerate("ifco"):
        np.testing.assert_array_equal(found["kernel"][:, 2 * place : 2 * place + 2], gates[gate][0])
        np.testing.assert_array_equal(found["recurrent_kernel"][:, 2 * place : 2 * place + 2], gates[gate][1])
        np.testing.assert_array_equal(found["bias"][2 * place : 2 * place + 2], gates[gate][2])


def test_a_keras_1_lstm_that_consumed_less_gpu_is_joined_already(tmp_path: Path) -> None:
    arrays = [("W", random(3, 8)), ("U", random(2, 8)), ("b", random(8))]
    model = sequential(start(5, 3), entry("LSTM", "lstm", output_dim=2, consume_less="gpu"))
    found = read(write_flat(tmp_path / "m.h5", model, {"lstm": arrays}, "1.2.1"), "lstm")
    np.testing.assert_array_equal(found["kernel"], arrays[0][1])


def test_the_gates_of_a_keras_1_gru_are_joined(tmp_path: Path) -> None:
    gates = [(random(3, 2), random(2, 2), random(2)) for _ in "zrh"]
    names = [
        (f"gru_{number}", array) for number, array in enumerate(array for gate in gates for array in gate)
    ]
    model = sequential(start(5, 3), entry("GRU", "gru", output_dim=2))
    found = read(write_flat(tmp_path / "m.h5", model, {"gru": names}, "1.2.1"), "gru")
    np.testing.assert_array_equal(found["kernel"], np.hstack([gate[0] for gate in gates]))
    np.testing.assert_array_equal(found["bias"], np.hstack([gate[2] for gate in gates]))


@pytest.mark.parametrize(
    ("class_name", "config", "stored", "expected"),
    [
        ("Convolution2D", {"nb_row": 3, "nb_col": 5, "dim_ordering": "th"}, (2, 4, 3, 5), (3, 5, 4, 2)),
        ("Convolution2D", {"nb_row": 3, "nb_col": 5, "dim_ordering": "tf"}, (3, 5, 4, 2), (3, 5, 4, 2)),
        ("Convolution1D", {"filter_length": 3}, (3, 1, 4, 2), (3, 4, 2)),
        ("Convolution1D", {"filter_length": 3}, (2, 4, 3, 1), (3, 4, 2)),
        ("Deconvolution2D", {"nb_row": 3, "nb_col": 5, "dim_ordering": "tf"}, (3, 5, 4, 2), (3, 5, 2, 4)),
        ("Deconvolution2D", {"nb_row": 3, "nb_col": 5, "dim_ordering": "th"}, (4, 2, 3, 5), (3, 5, 4, 2)),
    ],
)
def test_kernels_of_keras_1_are_turned(
    tmp_path: Path, class_name: str, config: Any, stored: Any, expected: Any
) -> None:
    model = sequential(start(8, 8, 4), entry(class_name, "conv", nb_filter=2, **config))
    arrays = [("conv_W", random(*stored)), ("conv_b", random(2))]
    found = read(write_flat(tmp_path / "m.h5", model, {"conv": arrays}, "1.2.1", None), "conv")
    assert found["kernel"].shape == expected
    assert sorted(found["kernel"].ravel()) == sorted(arrays[0][1].ravel())


def test_a_channels_first_kernel_of_keras_1_keeps_its_meaning(tmp_path: Path) -> None:
    config = {"nb_filter": 2, "nb_row": 3, "nb_col": 5, "dim_ordering": "th"}
    stored = random(2, 4, 3, 5)
    model = sequential(start(4, 8, 8), entry("Convolution2D", "conv", **config))
    path = write_flat(tmp_path / "m.h5", model, {"conv": [("W", stored), ("b", random(2))]}, "1.2.1", None)
    assert read(path, "conv")["kernel"][1, 4, 3, 0] == stored[0, 3, 1, 4]


@pytest.mark.parametrize(("backend", "flipped"), [("theano", True), ("tensorflow", False), ("cntk", False)])
def test_theano_convolved_where_the_others_correlate(tmp_path: Path, backend: str, flipped: bool) -> None:
    kernel = random(3, 5, 4, 2)
    model = sequential(start(8, 8, 4), entry("Conv2D", "conv", filters=2, kernel_size=[3, 5]))
    weights = {"conv": [("kernel:0", kernel), ("bias:0", random(2))]}
    found = read(write_flat(tmp_path / "m.h5", model, weights, "2.0.8", backend), "conv")
    np.testing.assert_array_equal(found["kernel"], kernel[::-1, ::-1] if flipped else kernel)


def test_cudnn_lstm_weights_become_plain_ones(tmp_path: Path) -> None:
    """CuDNN keeps each gate's matrices as (units, inputs), row by row, and adds two biases."""
    inputs, units = 3, 2
    matrices = [random(units, inputs) for _ in range(4)]
    recurrent = [random(units, units) for _ in range(4)]
    bias = random(8 * units)
    stored = np.hstack([matrix.ravel().reshape(inputs, units) for matrix in matrices])
    arrays = [("kernel:0", stored), ("recurrent_kernel:0", np.hstack(recurrent)), ("bias:0", bias)]
    model = sequential(start(5, inputs), entry("CuDNNLSTM", "lstm", units=units))
    found = read(write_flat(tmp_path / "m.h5", model, {"lstm": arrays}), "lstm")
    x, h = random(1, inputs), random(1, units)
    z = x @ found["kernel"] + h @ found["recurrent_kernel"] + found["bias"]
    for gate in range(4):
        two = bias.reshape(2, 4, units)[:, gate].sum(axis=0)
        expected = matrices[gate] @ x[0] + recurrent[gate] @ h[0] + two
        np.testing.assert_allclose(z[0, gate * units : (gate + 1) * units], expected, rtol=1e-5)


def test_cudnn_gru_keeps_its_two_biases_apart(tmp_path: Path) -> None:
    bias = random(12)
    arrays = [("k", random(3, 6)), ("r", random(2, 6)), ("b", bias)]
    model = sequential(start(5, 3), entry("CuDNNGRU", "gru", units=2))
    found = read(write_flat(tmp_path / "m.h5", model, {"gru": arrays}), "gru")
    np.testing.assert_array_equal(found["bias"], bias.reshape(2, 6))


def test_weights_behind_a_link_are_refused(tmp_path: Path) -> None:
    path = write_flat(tmp_path / "m.h5", sequential(start(4), DENSE), {})
    with h5py.File(path, "a") as file:
        group = file["model_weights"].create_group("d")
        file["model_weights"].attrs["layer_names"] = [b"d"]
        group.attrs["weight_names"] = [b"kernel", b"bias"]
        group["kernel"] = h5py.ExternalLink("other.h5", "/secret")
        group["bias"] = h5py.SoftLink("/model_weights")
    with pytest.raises(UnsafeModelError, match="link"):
        read(path, "d")
