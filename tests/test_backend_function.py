"""What a backend function computes, against Keras's own `predict` and models put together by hand."""

import doctest
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from backend_function_samples import IDS, IMAGES, Counted, classifier, close, predict, sequential
from keras import layers

import layerprobe.backend_function.compiled
from layerprobe.backend_function import function
from layerprobe.errors import ResourceError, UnavailableError, UsageError

pytestmark = pytest.mark.slow


# A model that is one graph


def test_the_ten_year_old_snippet_runs_as_it_stands() -> None:
    model = classifier()
    conv = model.get_layer("conv2")
    img = IMAGES[:1]
    get_output = function([model.layers[0].input], [conv.output, model.layers[-1].output])
    [conv_outputs, predictions] = get_output([img])
    expected = predict(keras.Model(model.inputs, [conv.output, model.output]), img)
    assert close(conv_outputs, expected[0])
    assert close(predictions, expected[1])


def test_the_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(layerprobe.backend_function.compiled)
    assert result.attempted >= 5
    assert not result.failed


def test_every_layer_at_once_comes_in_the_order_asked_for() -> None:
    model = classifier()
    names = ["predictions", "conv1", "pool", "conv1", "norm"]
    values = function(model.inputs, [model.get_layer(name).output for name in names])([IMAGES])
    for name, value in zip(names, values, strict=True):
        assert close(value, predict(keras.Model(model.inputs, model.get_layer(name).output), IMAGES))


def test_values_come_back_in_the_structure_of_the_outputs() -> None:
    a = keras.Input((2,))
    asked = {"z": a + 1, "b": [a, (a * 2,)]}
    computed = function([a], asked)
    asked["b"].append(a)  # the caller's own list, changed afterwards
    values = computed([[[1, 2]]])
    assert list(values) == ["z", "b"]
    assert values["z"].tolist() == [[2, 3]]
    assert [values["b"][0].tolist(), values["b"][1][0].tolist()] == [[[1, 2]], [[2, 4]]]
    assert len(values["b"]) == 2
    assert isinstance(values["b"][1], tuple)


def test_one_output_alone_comes_back_alone_and_one_in_a_list_in_a_list() -> None:
    model = classifier()
    expected = predict(model, IMAGES)
    assert close(function([model.input], model.output)([IMAGES]), expected)
    values = function([model.input], [model.output])([IMAGES])
    assert isinstance(values, list)
    assert close(values[0], expected)


def test_a_tensor_from_the_middle_can_be_given() -> None:
    model = classifier()
    middle = np.random.default_rng(2).random((2, 6, 6, 4))
    tail = keras.Model(model.get_layer("conv1").output, model.output)
    assert close(function([model.get_layer("conv1").output], model.output)([middle]), predict(tail, middle))


def test_only_what_the_outputs_need_is_called() -> None:
    a = keras.Input((2,))
    needed, unneeded = Counted(), Counted()
    wanted = needed(a)
    keras.Model(a, unneeded(wanted))
    before = unneeded.runs
    function([a], [wanted])([[[1, 2]]])
    assert unneeded.runs == before


def test_the_model_is_traced_once_for_all_batch_sizes() -> None:
    a = keras.Input((2,))
    counted = Counted()
    double = function([a], [counted(a)])
    before = counted.runs
    for rows in (1, 5, 3, 32, 1):
        assert double([np.ones((rows, 2))])[0].shape == (rows, 2)
    assert counted.runs == before + 1


def test_weights_that_change_after_the_first_call_are_seen() -> None:
    model = classifier()
    compute = function(model.inputs, [model.output])
    first = compute([IMAGES])[0]
    model.set_weights([weight * 0.5 for weight in model.get_weights()])
    second = compute([IMAGES])[0]
    assert not np.allclose(first, second)
    assert close(second, predict(model, IMAGES))


def test_values_are_cast_to_the_dtype_of_the_input() -> None:
    number, half = keras.Input((2,), dtype="int32"), keras.Input((2,), dtype="float16")
    computed = function([number, half], [number + 1, half * 2])([[[1.0, 2.0]], np.array([[1, 2]], "uint8")])
    assert [value.dtype for value in computed] == ["int32", "float16"]
    assert [value.tolist() for value in computed] == [[[2, 3]], [[2, 4]]]


def test_text_goes_into_an_input_of_strings() -> None:
    text = keras.Input((2,), dtype="string")
    index = layers.StringLookup(vocabulary=["a", "b"])(text)
    assert function([text], index)([[["b", "?"]]]).tolist() == [[2, 0]]


def test_masks_reach_the_layers_behind_an_embedding() -> None:
    ids = keras.Input((5,), dtype="int32")
    embedding = layers.Embedding(10, 4, mask_zero=True)
    sequence = layers.LSTM(3, return_sequences=True)(embedding(ids))
    model = keras.Model(ids, layers.GRU(3)(sequence))
    unmasked = function([embedding.output, ids], [model.output])([embedding(IDS), np.ones((2, 5))])[0]
    values = function([ids], [sequence, model.output])([IDS])
    assert close(values[1], predict(model, IDS))
    assert not np.allclose(values[1], unmasked)


@pytest.mark.parametrize("options", [{}, {"training": False}])
def test_a_tensor_that_carries_a_mask_needs_what_the_mask_is_made_of(options) -> None:
    ids = keras.Input((5,), dtype="int32", name="ids")
    embedding = layers.Embedding(10, 4, mask_zero=True)
    # Keras notes the mask as an argument of the call only if there are no other options.
    model = keras.Model(ids, layers.LSTM(3)(embedding(ids), **options))
    with pytest.raises(UsageError, match="also depends on input 'ids'"):
        function([embedding.output], [model.output])
    given = function([embedding.output, ids], [model.output])([embedding(IDS), IDS])[0]
    assert close(given, predict(model, IDS))


def test_a_model_deeper_than_pythons_stack_is_connected_and_run() -> None:
    a = keras.Input((1,))
    x = a
    for _ in range(1500):
        x = x + 1
    assert function([a], x)([[[0.5]]]).tolist() == [[1500.5]]


def test_many_branches_and_cells_are_computed_as_keras_does() -> None:
    model = keras.applications.NASNetMobile(weights=None, input_shape=(32, 32, 3), include_top=False)
    some = [layer.output for layer in model.layers[::97]]
    image = np.resize(IMAGES, (1, 32, 32, 3))
    values = function(model.inputs, some)([image])
    expected = keras.Model(model.inputs, some)([image], training=False)
    assert all(close(value, want, 1e-4) for value, want in zip(values, expected, strict=True))


def test_threads_can_share_a_function() -> None:
    model = classifier()
    compute = function(model.inputs, [model.output])
    expected = predict(model, IMAGES)
    results = []
    threads = [threading.Thread(target=lambda: results.append(compute([IMAGES])[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(close(result, expected) for result in results)


# Sequential models, whose layers are called anew for each one that is added


@pytest.mark.parametrize("suffix", [".h5", ".keras", None])
def test_layers_of_a_sequential_model_are_found_however_it_came_to_be(suffix, tmp_path) -> None:
    model = sequential()
    if suffix:
        model.save(tmp_path / f"model{suffix}")
        model = keras.saving.load_model(tmp_path / f"model{suffix}", compile=False)
    assert len(model.layers[0]._inbound_nodes) > 1
    x = np.random.default_rng(0).random((3, 6))
    third = np.maximum(x @ model.layers[0].kernel + model.layers[0].bias, 0) @ model.layers[2].kernel
    get = function(
        [model.layers[0].input], [model.layers[2].output, model.layers[-1].output, model.outputs[0]]
    )
    values = get([x])
    assert close(values[0], third + model.layers[2].bias)
    assert close(values[1], predict(model, x))
    assert close(values[2], values[1])


def test_a_layer_called_anew_for_a_longer_model_still_runs_once() -> None:
    counted = Counted()
    model = keras.Sequential([layers.Input((2,))])
    for layer in (counted, layers.ReLU(), layers.Dense(2)):
        model.add(layer)
    before = counted.runs
    function(model.inputs, [counted.output, model.layers[1].output, model.outputs[0]])([[[1, 2]]])
    assert counted.runs == before + 1


def test_an_early_call_of_a_sequential_models_layer_can_be_given_for_the_last() -> None:
    model = sequential()
    model.add(layers.Dense(2))
    middle = np.random.default_rng(0).random((3, 4))
    expected = model.layers[4](model.layers[3](model.layers[2](middle)))
    for given in (model.layers[0].output, model.layers[2].input):
        assert close(function([given], model.outputs)([middle])[0], expected)


def test_masks_made_anew_for_each_call_count_as_one() -> None:
    model = keras.Sequential([layers.Input((5,), dtype="int32")])
    for layer in (layers.Embedding(10, 4, mask_zero=True), layers.LSTM(3), layers.Dense(2)):
        model.add(layer)
    embedded = model.layers[0](IDS)
    value = function([model.layers[0].output, model.inputs[0]], model.outputs)([embedded, IDS])[0]
    assert close(value, predict(model, IDS))
    assert close(function([model.layers[1].output], model.outputs)([model.layers[1](embedded)])[0], value)


# What cannot be meant


def test_an_empty_list_stands_for_the_one_missing_input() -> None:
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    assert function([[], b], a - b)([[[5, 5]], [[1, 2]]]).tolist() == [[4, 3]]
    for inputs, wanted, received in (
        ([[]], a - b, "'a' or input 'b'"),
        ([a, []], a, "no input"),
        ([[], []], a, "'a'"),
    ):
        with pytest.raises(UsageError, match=f"an empty list in `inputs`.*{received}"):
            function(inputs, wanted)


def test_an_output_that_needs_more_names_what_it_needs() -> None:
    model = classifier()
    with pytest.raises(
        ValueError, match="'conv1' cannot be computed .* depends on input 'classifier_image'.*'pool'"
    ):
        function([model.get_layer("pool").output], [model.get_layer("conv1").output])
    with pytest.raises(ValueError, match="depends on input 'classifier_image', .*Received: no inputs"):
        function([], [model.output])


def wrong_arguments():
    model = sequential()
    x, y = model.inputs[0], model.outputs[0]
    return {
        "text as an input": (lambda: function(["x"], [y]), TypeError, "`inputs` must hold symbolic.*'x'"),
        "an array as an input": (
            lambda: function([np.ones(3)], [y]),
            TypeError,
            "`inputs` must hold.*ndarray",
        ),
        "a layer as an input": (
            lambda: function([model.layers[0]], [y]),
            TypeError,
            "layer 'dense.* `.input`",
        ),
        "a model as inputs": (lambda: function(model, [y]), TypeError, "`inputs` must be a list"),
        "text as an output": (lambda: function([x], "y"), TypeError, "`outputs` must hold.*'y'"),
        "no outputs": (lambda: function([x], None), TypeError, "`outputs` must hold.*None"),
        "nothing to do": (lambda: function([x], []), UsageError, "nothing to compute"),
        "an input twice": (lambda: function([x, x], [y]), UsageError, "given twice"),
        "an unknown keyword": (lambda: function([x], [y], fetches=[]), UsageError, "no argument 'fetches'"),
    }


@pytest.mark.parametrize("case", wrong_arguments())
def test_arguments_that_cannot_be_meant_are_refused_in_a_sentence(case) -> None:
    call, kind, words = wrong_arguments()[case]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_keras_on_another_backend_is_refused_in_a_sentence(monkeypatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UnavailableError, match=r"KERAS_BACKEND=tensorflow\. Received: jax"):
        function([], [])


class NoArray:
    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise TypeError


WRONG_VALUES = {
    "an array alone": (IMAGES, TypeError, "list or tuple of 1 value.*ndarray"),
    "a dictionary": ({"image": IMAGES}, TypeError, "list or tuple.*dict"),
    "too many": ([IMAGES, IMAGES], ValueError, "expected 1 value .*Received: 2"),
    "none": ([], ValueError, "expected 1 value .*Received: 0"),
    "no batch axis": ([IMAGES[0]], ValueError, r"lacks the batch axis: give `value\[None\]`"),
    "another size": ([IMAGES[:, 1:]], ValueError, r"\(None, 8, 8, 3\).*\(3, 7, 8, 3\)"),
    "None": ([None], ValueError, "NoneType"),
    "text": (["image"], ValueError, "str of"),
    "lists of unequal lengths": ([[[1, 2], [3]]], ValueError, "no array"),
    "a symbolic tensor": ([keras.KerasTensor((1,))], ValueError, "KerasTensor that is no array"),
    "an object that gives no reason": ([NoArray()], ValueError, r"NoArray that is no array \(TypeError\)"),
    "complex numbers": ([IMAGES * 1j], ValueError, "complex64"),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_values_that_do_not_fit_are_refused_in_a_sentence(case) -> None:
    values, kind, words = WRONG_VALUES[case]
    model = classifier()
    with pytest.raises(kind, match=words) as caught:
        function(model.inputs, [model.output])(values)
    assert "\n" not in str(caught.value)


def test_values_that_the_model_cannot_compute_with_are_told_in_a_sentence() -> None:
    ids, a, b = keras.Input((2,), dtype="int32"), keras.Input((2,)), keras.Input((2,))
    embed, add = function([ids], layers.Embedding(3, 2)(ids)), function([a, b], a + b)
    for call, words in (
        (lambda: embed([[[1, 7]]]), r"shape \(1, 2\): .*7 is not in \[0, 3\)"),
        (
            lambda: add([np.ones((2, 2)), np.ones((3, 2))]),
            r"shape \(2, 2\) and \(3, 2\): Incompatible shapes",
        ),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_too_many_rows_for_the_memory_are_told_in_a_sentence() -> None:
    def fail() -> None:  # as TensorFlow does, though it tries for ten seconds first
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    a = keras.Input((1,))
    with pytest.raises(
        ResourceError, match=r"not enough memory for values of shape \(1, 1\): give fewer rows"
    ):
        function([a], a, updates=[fail])([[[1]]])
