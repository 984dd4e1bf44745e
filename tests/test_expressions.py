"""The expression language of `--lambda`: what it takes, what it refuses, and that it prints what it read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerprobe.errors import UsageError
from layerprobe.modelfile.expressions import OPERATIONS, evaluate, parse_expression
from layerprobe.modelfile.expressions.operations import STATIC
from layerprobe.modelfile.expressions.spellings import CONSTANTS, SHARED, definitions
from layerprobe.modelfile.expressions.tree import Call, Constant, Expression, Index, Input, Items, Span


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("x / 127.5 - 1", "x / 127.5 - 1"),
        ("  (x)  ", "x"),
        ("K.abs(x[0] - x[1])", "abs(x[0] - x[1])"),
        ("tf.math.abs(x)", "abs(x)"),
        ("keras.ops.abs(x)", "abs(x)"),
        ("tensorflow.keras.backend.abs(x)", "abs(x)"),
        ("lambda t: t * 2", "x * 2"),
        ("lambda a, b: K.maximum(a, b)", "maximum(x[0], x[1])"),
        ("lambda a, k=0.5: a * k", "x * 0.5"),
        ("-x ** 2", "-x ** 2"),
        ("(-x) ** 2", "(-x) ** 2"),
        ("(-1) ** x", "(-1) ** x"),
        ("2 ** x ** 3", "2 ** x ** 3"),
        ("(2 ** x) ** 3", "(2 ** x) ** 3"),
        ("x - (x - 1)", "x - (x - 1)"),
        ("x * (x + 1) / 2", "x * (x + 1) / 2"),
        ("(x < 1) == (x > 0)", "(x < 1) == (x > 0)"),
        ("x[..., ::-1]", "x[..., ::-1]"),
        ("x[:,]", "x[:,]"),
        ("x[None, 1:-1]", "x[None, 1:-1]"),
        ("x - [1, 2, 3]", "x - (1, 2, 3)"),
        ("K.reshape(x, (-1,) + (3, 4))", "reshape(x, (-1, 3, 4))"),
        ("x.shape[1]", "shape(x)[1]"),
        ("x * np.pi", "x * 3.141592653589793"),
        ("tf.cast(x, tf.float32)", "cast(x, 'float32')"),
        ("tf.reduce_sum(x, 1, keep_dims=True)", "sum(x, axis=1, keepdims=True)"),
        ("tf.reduce_mean(input_tensor=x, name='m')", "mean(x)"),
        ("tf.image.resize(x, (64, 64))", "resize(x, (64, 64))"),
        ("tf.image.resize_images(x, (6, 4))", "resize(x, (6, 4), half_pixel_centers=False)"),
        ("tf.image.resize(x, (6, 4), 'nearest')", "resize(x, (6, 4), interpolation='nearest')"),
        ("tf.compat.v1.image.resize(x, (6, 4))", "resize(x, (6, 4), half_pixel_centers=False)"),
        ("keras.layers.Average()([x[0], x[1]])", "(x[0] + x[1]) / 2"),
        ("1e999 * x", "1e999 * x"),
        ("+x", "x"),
    ],
)  # fmt: skip
def test_an_expression_is_read_and_printed_in_one_form(text: str, canonical: str) -> None:
    expression = parse_expression(text)
    assert str(expression) == canonical
    assert parse_expression(canonical) == expression


@pytest.mark.parametrize(
    ("text", "fragment", "reason"),
    [
        ("x + y", "'y'", "y is not known"),
        ("x + os.system('true')", "os.system('true')", "os.system is not a known operation"),
        ("__import__('os').system('true')", "__import__", "only known operations"),
        ("x.__class__", "x.__class__", "attribute __class__"),
        ("(lambda: x)()", "(lambda: x)()", "only known operations"),
        ("[i for i in x]", "[i for i in x]", "ListComp"),
        ("x if x else 1", "x if x else 1", "IfExp"),
        ("K.sum(x, axis=x)", "K.sum", "must be written as a constant"),
        ("K.sum(x, axis=1.5)", "K.sum", "whole numbers"),
        ("K.sum(x, 1, 2, 3)", "K.sum", "takes 3 arguments, not 4"),
        ("K.sum(x, foo=1)", "K.sum", "no argument foo"),
        ("K.sum(x, 1, axis=1)", "K.sum", "given twice"),
        ("K.sum()", "K.sum()", "needs its argument x"),
        ("K.sum(*x)", "*x", "Starred"),
        ("K.sum(**x)", "K.sum(**x)", "unpacked"),
        ("K.cast(x, 'evil')", "K.cast", "dtype"),
        ("tf.pad(x, [[0, 0]], 'WRAP')", "tf.pad", "mode"),
        ("tf.image.resize(x, (9, 9), antialias=True)", "antialias", "antialias=True"),
        ("tf.image.resize(x, (9, 9), 'lanczos3')", "lanczos3", "method"),
        ("K.resize_images(x, 2, 2, 'channels_first')", "channels_first", "channels_first"),
        ("K.random_normal((3,))", "K.random_normal", "random"),
        ("tf.random.uniform(tf.shape(x))", "tf.random.uniform", "random"),
        ("K.in_train_phase(x, -x)", "in_train_phase", "not a known operation"),
        ("x + 'a'", "x + 'a'", "cannot be text"),
        ("x + None", "x + None", "is None"),
        ("x + 1j", "1j", "constant"),
        ("1[0]", "1[0]", "cannot be indexed"),
        ("(1, 2)[5]", "(1, 2)[5]", "no such item"),
        ("x << 2", "x << 2", "operator"),
        ("0 < x < 1", "0 < x < 1", "Compare"),
        ("tf.tile(x, (1, 1000000000))", "tf.tile", "larger than its input"),
        ("tf.tile(x, (1, 10 ** 9))", "tf.tile", "larger than its input"),
        ("tf.image.resize(x, (100000, 100000))", "resize", "larger than its input"),
        ("tf.ones((1000000000,))", "tf.ones", "not a known operation"),
        ("lambda *t: t", "lambda", "plain parameters"),
    ],
)
def test_what_is_not_possible_is_refused_where_it_stands(text: str, fragment: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_expression(text)
    message = str(caught.value)
    assert reason in message
    assert fragment in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "text",
    ["", "x +", "x; x", "x = 1", "import os", "\0", "x\ny", "(" * 500, "-" * 5_000 + "x", "x" * 20_000],
)
def test_what_is_no_expression_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_expression(text)


def test_definitions_that_repeat_their_argument_cannot_grow_without_bound() -> None:
    text = "x"
    for _ in range(12):
        text = f"tf.image.per_image_standardization({text})"
    start = time.perf_counter()
    with pytest.raises(UsageError, match="too large"):
        parse_expression(text)
    with pytest.raises(UsageError, match="larger|large"):
        parse_expression(f"tf.tile(x, K.int_shape({text}))")
    with pytest.raises(UsageError):
        parse_expression(f"K.resize_images(x, 2, 2, {text})")
    assert time.perf_counter() - start < 10


def test_every_definition_is_made_of_known_operations() -> None:
    values = {"pattern": "(0, 1)", "padding": "((1, 1), (1, 1))", "cropping": "((1, 1), (1, 1))"}
    for name, definition in definitions().items():
        required = definition.args.args[: len(definition.args.args) - len(definition.args.defaults)]
        arguments = [
            values.get(a.arg, "1" if a.arg in ("axis", "axes", "n", "rep", "block_size", "depth") else "x")
            for a in required
        ]
        arguments = ["'float32'" if a.arg == "dtype" else v for a, v in zip(required, arguments, strict=True)]
        arguments = [
            "'ij->ji'" if a.arg == "equation" else v for a, v in zip(required, arguments, strict=True)
        ]
        arguments = ["3" if "num" in a.arg else v for a, v in zip(required, arguments, strict=True)]
        call = name.removeprefix("applied.")
        call += f"()({', '.join(arguments)})" if call != name else f"({', '.join(arguments)})"
        expression = parse_expression(call)
        assert parse_expression(str(expression)) == expression, name


def test_every_shared_name_is_an_operation() -> None:
    for names in SHARED.values():
        assert set(names.split()) <= set(OPERATIONS)


# Expressions at random, by the rules that `call` keeps.

NUMBERS = (st.integers(-(2**40), 2**40) | st.floats(allow_nan=False)).map(Constant)
AXES = st.none() | st.integers(-4, 4)


def calls(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    plain = [
        name
        for name, parameters in OPERATIONS.items()
        if name not in ("tile", "repeat", "pad", "resize", "one_hot", "negative", "add")
        and not any(p.name in STATIC and p.required for p in parameters)
    ]

    def with_arguments(name: str) -> st.SearchStrategy[Expression]:
        arguments = [
            inner if parameter.required else st.just(Constant(parameter.default))
            for parameter in OPERATIONS[name]
        ]
        return st.tuples(*arguments).map(lambda values: Call(name, values))

    def reduction(name: str) -> st.SearchStrategy[Expression]:
        values = st.tuples(inner, AXES.map(Constant), st.booleans().map(Constant))
        return values.map(lambda arguments: Call(name, arguments))

    bound = st.none() | st.integers(-9, 9)
    spans = st.tuples(*(bound.map(Constant) for _ in range(3))).map(lambda bounds: Span(*bounds))
    key = spans | st.integers(-9, 9).map(Constant) | st.sampled_from([Constant(None), Constant(...)])
    keys = key | st.lists(key, min_size=1, max_size=4).map(lambda items: Items(tuple(items)))
    return (
        st.sampled_from(plain).flatmap(with_arguments)
        | st.sampled_from(["sum", "mean", "max", "any"]).flatmap(reduction)
        | st.tuples(inner.filter(lambda e: not isinstance(e, Constant | Items)), keys).map(
            lambda p: Index(*p)
        )
        | inner.filter(lambda e: not isinstance(e, Constant)).map(lambda e: Call("negative", (e,)))
        | st.tuples(inner, inner)
        .filter(lambda pair: not all(isinstance(e, Items) for e in pair))
        .map(lambda pair: Call("add", pair))
        | st.lists(inner, max_size=3).map(lambda items: Items(tuple(items)))
    )


PIECES = ["x", "(", ")", "[", "]", "K.sum", ",", "axis=", "1", "-", "**", ":", "..."]


class Shown:
    """An expression that shows itself as its text: its own repr is very long."""

    def __init__(self, expression: Expression) -> None:
        self.expression = expression

    def __repr__(self) -> str:
        return str(self.expression)


EXPRESSIONS = st.recursive(st.just(Input()) | NUMBERS, calls, max_leaves=8).map(Shown)


@settings(max_examples=500, deadline=None)
@given(EXPRESSIONS)
def test_the_text_of_an_expression_parses_back_to_it(shown: Shown) -> None:
    assert parse_expression(str(shown.expression)) == shown.expression


@settings(max_examples=500, deadline=None)
@given(
    st.text("x()[]:.,+-*/<>=01 '\"\\Ktfsumlambda\n\0é", max_size=40)
    | st.lists(st.sampled_from(PIECES)).map(" ".join)
)
def test_any_text_is_an_expression_or_a_usage_error(text: str) -> None:
    try:
        expression = parse_expression(text)
    except UsageError:
        return
    assert parse_expression(str(expression)) == expression


# Evaluation, with NumPy as the engine.

NUMPY: dict[str, Callable[..., Any]] = {
    "index": lambda value, key: value[key],
    "shape": np.shape,
    "reshape": np.reshape,
    "abs": np.abs,
    "sum": lambda x, axis, keepdims: np.sum(x, axis=axis, keepdims=keepdims),
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "concatenate": lambda xs, axis: np.concatenate(xs, axis=axis),
}
ARRAY = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x / 127.5 - 1", ARRAY / 127.5 - 1),
        ("x[:, -1, ::2]", ARRAY[:, -1, ::2]),
        ("K.sum(K.abs(x - 5), axis=(1, 2))", np.abs(ARRAY - 5).sum((1, 2))),
        ("K.reshape(x, (K.shape(x)[0], K.int_shape(x)[1] * 2 ** 1, -1))", ARRAY.reshape(2, 6, 2)),
        ("K.reshape(x, x.shape[:1] + (12,))", ARRAY.reshape(2, 12)),
        ("K.concatenate([x, x])", np.concatenate([ARRAY, ARRAY], -1)),
        ("x - (1, 2, 3, 4)", ARRAY - [1, 2, 3, 4]),
        ("x * 2 ** 100.0", ARRAY * 2.0**100),
    ],
)
def test_expressions_are_evaluated_with_the_operations_of_an_engine(text: str, expected: Any) -> None:
    np.testing.assert_array_equal(evaluate(parse_expression(text), ARRAY, NUMPY), expected)


def test_a_list_of_inputs_is_indexed_by_place() -> None:
    result = evaluate(parse_expression("x[1] - x[0]"), (ARRAY, ARRAY * 3), NUMPY)
    np.testing.assert_array_equal(result, ARRAY * 2)


def test_powers_of_sizes_cannot_exhaust_the_machine() -> None:
    start = time.perf_counter()
    with pytest.raises(OverflowError):
        evaluate(parse_expression("x + 2 ** (9 ** 9) ** 3"), ARRAY, NUMPY)
    assert time.perf_counter() - start < 10


def test_constants_are_told_apart_by_type() -> None:
    assert Constant(1) != Constant(1.0) != Constant(True)
    assert Constant(0.0) != Constant(-0.0)
    assert CONSTANTS["tf.float32"] == "float32"
