"""Backend functions to and from the layers of nested models, against models put together by hand."""

import keras
import numpy as np
import pytest
from backend_function_samples import IDS, IMAGES, Counted, classifier, close, nest, predict
from keras import layers

from layerprobe.backend_function import function
from layerprobe.errors import UsageError

pytestmark = pytest.mark.slow


def test_layers_of_a_nested_model_have_the_values_of_the_outer_models_call() -> None:
    inner = classifier()
    outer = nest(inner)
    get = function(outer.inputs, [inner.get_layer("conv1").output, outer.output])
    values = get([IMAGES])
    assert close(values[0], predict(keras.Model(inner.input, inner.get_layer("conv1").output), IMAGES * 0.5))
    assert close(values[1], predict(outer, IMAGES))


def test_a_nested_layer_alone_is_connected_too() -> None:
    inner = classifier()
    outer = nest(inner)
    value = function(outer.inputs, inner.get_layer("conv2").output)([IMAGES])
    assert close(value, predict(keras.Model(inner.input, inner.get_layer("conv2").output), IMAGES * 0.5))


@pytest.mark.parametrize("suffix", [".h5", ".keras", None])
def test_models_three_deep_are_connected(suffix, tmp_path) -> None:
    core = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3, name="deep")], name="core")
    core.add(layers.ReLU())
    middle = nest(core, "middle")
    model = keras.Sequential([layers.Input((8, 8, 3)), middle, layers.Dense(2)])
    if suffix:
        model.save(tmp_path / f"model{suffix}")
        model = keras.saving.load_model(tmp_path / f"model{suffix}", compile=False)
    deep = model.layers[0].get_layer("core").get_layer("deep")
    for given in (model.inputs[0], model.layers[0].input):
        values = function([given], [deep.output, model.layers[-1].output])([IMAGES])
        assert close(values[0], deep(IMAGES * 0.5))
        assert close(values[1], predict(model, IMAGES))
    assert close(function([deep.output], model.outputs)([deep(IMAGES * 0.5)])[0], predict(model, IMAGES))


def test_a_nested_models_layers_run_once_for_the_inside_and_the_outside() -> None:
    counted = Counted()
    image = keras.Input((8, 8, 3))
    inner = keras.Model(image, counted(image))
    outer = nest(inner)
    before = counted.runs
    function(outer.inputs, [counted.output, outer.output])([IMAGES])
    assert counted.runs == before + 1


def test_the_input_of_a_nested_model_can_be_given() -> None:
    inner = classifier()
    outer = nest(inner)
    assert close(function([inner.input], [outer.output])([IMAGES * 0.5])[0], predict(outer, IMAGES))


def test_a_nested_model_called_twice_is_ambiguous_inside_and_not_outside() -> None:
    inner = classifier("siamese")
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    outer = keras.Model([left, right], layers.Subtract()([inner(left), inner(right)]))
    conv = inner.get_layer("conv1").output
    assert close(
        function([left, right], outer.output)([IMAGES, IMAGES[::-1]]), predict(outer, [IMAGES, IMAGES[::-1]])
    )
    with pytest.raises(UsageError, match="'conv1' is ambiguous, because model 'siamese'.* more than once"):
        function([left, right], [conv])
    with pytest.raises(UsageError, match="ambiguous, because model 'siamese'"):
        function([conv, left, right], [outer.output])
    expected = predict(keras.Model(inner.input, conv), IMAGES)
    assert close(function([left], conv)([IMAGES]), expected)  # from here it is called once
    values = function([inner.input, left, right], [conv, outer.output])([IMAGES, IMAGES, IMAGES])
    assert close(values[0], expected)
    assert not values[1].any()


def test_an_empty_list_does_not_choose_between_the_inputs_of_inner_and_outer_model() -> None:
    inner = classifier()
    image, factor = keras.Input((8, 8, 3), name="image"), keras.Input((1,), name="factor")
    outer = keras.Model([image, factor], inner(layers.Rescaling(0.5)(image)) * factor)
    conv = inner.get_layer("conv1").output
    expected = predict(keras.Model(inner.input, conv), IMAGES * 0.5)
    ones = np.ones((3, 1))
    for wanted in ([conv, outer.output], [outer.output, conv]):
        values = function([[], factor], wanted)([IMAGES, ones])
        assert close(values[0 if wanted[0] is conv else 1], expected)
    with pytest.raises(UsageError, match="an empty list for input 'image' or input 'classifier_image'"):
        function([[], factor], [conv])


def test_calls_of_a_nested_model_in_different_phases_are_different() -> None:
    rows = np.random.default_rng(0).random((4, 3))
    x, y = keras.Input((3,)), keras.Input((3,))
    norm = layers.BatchNormalization(epsilon=0, momentum=1.0)
    inner = keras.Model(x, norm(x), name="normed")
    outer = keras.Model(y, [inner(y), inner(y, training=True)])
    values = function([y], outer.outputs)([rows])
    assert close(values[0], rows)
    assert close(values[1], (rows - rows.mean(axis=0)) / rows.std(axis=0))
    for wanted in ([norm.output], [norm.output, *outer.outputs]):
        with pytest.raises(UsageError, match="ambiguous, because model 'normed'"):
            function([y], wanted)


def test_a_call_that_lacks_its_input_does_not_take_that_of_another_call() -> None:
    inner = classifier()
    left, right = nest(inner, "left"), nest(inner, "right")
    conv = inner.get_layer("conv1").output
    values = function(left.inputs, [conv, left.output])([IMAGES])
    assert close(values[1], predict(left, IMAGES))
    with pytest.raises(UsageError, match="'right_head' cannot be computed .* depends on input 'right_image'"):
        function(left.inputs, [conv, right.output])


def test_what_lies_before_a_tensor_that_is_given_inside_is_not_called() -> None:
    counted = Counted()
    inner = classifier()
    image = keras.Input((8, 8, 3))
    outer = keras.Model(image, inner(counted(image)))
    conv = inner.get_layer("conv1")
    before = counted.runs
    values = function([image, conv.output], [outer.output])([IMAGES * 0, conv(IMAGES * 2)])
    assert counted.runs == before
    assert close(values[0], predict(outer, IMAGES))


def test_a_model_called_on_its_own_output_is_ambiguous_inside() -> None:
    a = keras.Input((3,))
    inner = keras.Model(a, layers.Dense(3, name="again")(a), name="twice")
    b = keras.Input((3,))
    outer = keras.Model(b, inner(inner(b)))
    x = np.random.default_rng(0).random((2, 3))
    assert close(function([b], outer.output)([x]), predict(outer, x))
    for wanted in ([inner.output], [outer.output, inner.output], [inner.output, outer.output]):
        with pytest.raises(UsageError, match="ambiguous, because model 'twice'"):
            function([b], wanted)


def test_a_model_called_on_something_made_of_its_own_input() -> None:
    image = keras.Input((8, 8, 3))
    base = keras.Model(image, layers.Conv2D(2, 3)(image))
    outer = keras.Model(image, base(layers.Rescaling(5.0)(image)))
    for given in (image, []):
        values = function([given], [outer.output, base.output])([IMAGES])
        assert close(values[0], predict(outer, IMAGES))
        assert close(values[1], predict(base, IMAGES))


@pytest.mark.parametrize("kind", [dict, list])
def test_nested_models_take_their_inputs_by_place_or_by_name(kind) -> None:
    a, b = keras.Input((4,), name="second"), keras.Input((4,), name="first")
    difference = layers.Subtract(name="difference")([a, b])
    inner = keras.Model(
        {"second": a, "first": b} if kind is dict else [a, b],
        {"y": difference, "x": layers.ReLU()(difference)},
    )
    p, q = keras.Input((4,)), keras.Input((4,))
    outputs = inner({"first": p, "second": q})
    x, y = np.random.default_rng(0).random((2, 3, 4))
    values = function([p, q], [inner.get_layer("difference").output, outputs])([x, y])
    assert close(values[0], y - x)
    assert close(values[1]["x"], np.maximum(y - x, 0))


@pytest.mark.parametrize(("taken", "brought"), [((1,), ()), ((), (1,)), ((1,), (1,))])
def test_values_are_converted_on_their_way_into_a_nested_model(taken, brought) -> None:
    a = keras.Input(taken)
    inside = layers.Rescaling(0.5)(a)
    inner = keras.Model(a, inside)
    number = keras.Input(brought, dtype="int32")
    outer = keras.Model(number, inner(number))
    values = np.array([1, 2, 3]).reshape(3, *brought)
    assert close(function([number], inside)([values]), predict(outer, values))


# Keras warns that the nested model drops the mask; its layers get it all the same.
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("mask", [None, lambda ids: ids > 1])
def test_masks_reach_the_layers_of_a_nested_model(dtype, mask) -> None:
    sequence = keras.Input((5, 4), dtype=dtype)
    inner = keras.Model(sequence, layers.LSTM(3, name="inside")(sequence))
    ids = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(10, 4, mask_zero=mask is None)(ids)
    outer = keras.Model(ids, layers.Dense(1)(inner(embedded, mask=None if mask is None else mask(ids))))
    values = function([ids], [inner.get_layer("inside").output, outer.output])([IDS])
    assert close(values[1], predict(outer, IDS))
    assert close(values[1], outer.layers[-1](values[0]))


def test_half_precision_goes_through_nested_models() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inner = classifier()
        outer = nest(inner)
    finally:
        keras.config.set_dtype_policy("float32")
    values = function(outer.inputs, [inner.get_layer("conv2").output, outer.output])([IMAGES])
    assert values[0].dtype == "float16"
    np.testing.assert_array_equal(values[1], predict(outer, IMAGES))


def test_a_layer_inside_a_loop_is_not_connected_to_the_input() -> None:
    inner = classifier()
    frames = keras.Input((2, 8, 8, 3))
    layers.TimeDistributed(inner)(frames)
    with pytest.raises(UsageError, match="'conv1' cannot be computed"):
        function([frames], inner.get_layer("conv1").output)
