"""Lambda byte code of every Python, written by that Python itself (see byte_code/dump.py), decoded."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerprobe.modelfile.expressions import Expression, parse_expression
from layerprobe.modelfile.lambdas import Undecodable, decode_lambda
from layerprobe.modelfile.lambdas.unmarshal import BadCode, read_code

HERE = Path(__file__).parent / "byte_code"
CODES = {path.stem: json.loads(path.read_text()) for path in sorted(HERE.glob("python*.json"))}

EXPRESSIONS = {
    "scale": "x / 127.5 - 1.0",
    "whole": "x * 0.5",
    "half_size": "reshape(x, (-1, shape(x)[1] / 2))",
    "negative": "-x",
    "last": "x[:, -1]",
    "slices": "x[:, 1:, ::2, None, ..., 0:1]",
    "plain_slice": "x[1:3]",
    "open_slices": "x[:] + x[1:] + x[:2]",
    "distance": "sqrt(maximum(sum(square(x[0] - x[1]), axis=1, keepdims=True), 0.0))",
    "unpacked": "maximum(sum(square(x[0] - x[1]), axis=1, keepdims=True), 1e-07)",
    "import_as": "l2_normalize(x, axis=-1)",
    "import_from": "resize(x, (64, 64), half_pixel_centers=False)",
    "import_plain": "resize(x, (64, 64))",
    "locals": "x * 2 * (x * 2 + 1) - x * 2",
    "swapped": "x[1] / x[0]",
    "list": "x - (103.939, 116.779, 123.68)",
    "tuple": "reshape(x, (-1, shape(x)[1] // 2, 2))",
    "method": "reshape(x, (-1, shape(x)[1]))",
    "compare": "cast(x > 0.5, 'float32')",
    "power": "x ** 2 % 3 // 2",
    "keywords": "mean(x, axis=(1, 2), keepdims=True)",
    "in_place": "(x / 255.0 - 0.5) * 2.0",
    "documented": "x + 1",
    "layers": "x[0] + x[1][:, 1:shape(x[1])[1] - 2, 0:shape(x[1])[2] - 3]",
    "identity": "x",
    "many_constants": "x + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10 + 11 + 12",
}
PYTHON_2 = {"whole": "x * (1 // 2)", "half_size": "reshape(x, (-1, shape(x)[1] // 2))"}
"""Where dividing two whole numbers gave a whole number."""

REASONS = {
    "argument": "s is not known",
    "free": "scale is not known",
    "global": "scale is not known",
    "mask": "mask is not known",
    "random": "random: K.random_normal",
    "system": "os.system is not a known operation",
    "imported_system": "os.system is not a known operation",
    "hidden": "",
    "dropped": "it calls open('marker', 'w') and drops the result",
    "branch": "it has a branch or a loop",
    "loop": "it has a branch or a loop",
    "inner": "",
    "stores": "it changes something outside itself",
    "attribute": "the attribute",
    "huge": "very much larger",
}


def stored(code: str, defaults: Any = None, closure: Any = None, **more: Any) -> dict[str, Any]:
    """A Lambda layer's config as Keras 2 writes it."""
    return {"function": [code, defaults, closure], "function_type": "lambda", **more}


def keras_3(code: str, defaults: Any = None, closure: Any = None, **more: Any) -> dict[str, Any]:
    config = {"code": code, "defaults": defaults, "closure": closure}
    return {"function": {"class_name": "__lambda__", "config": config}, **more}


@pytest.mark.parametrize("python", CODES)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_byte_code_of_every_python_gives_the_expression_it_was_compiled_from(
    python: str, name: str
) -> None:
    expected = PYTHON_2.get(name, EXPRESSIONS[name]) if python == "python2.7" else EXPRESSIONS[name]
    decoded = decode_lambda(stored(CODES[python][name]))
    assert str(decoded) == expected
    assert decoded == parse_expression(expected)


@pytest.mark.parametrize("python", CODES)
@pytest.mark.parametrize("name", REASONS)
def test_what_is_more_than_known_operations_is_undecodable_and_says_why(python: str, name: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode_lambda(stored(CODES[python][name]))
    assert REASONS[name] in caught.value.reason
    assert len(caught.value.text) <= 200


@pytest.mark.parametrize("python", CODES)
def test_defaults_closures_and_arguments_that_are_numbers_are_constants(python: str) -> None:
    codes = CODES[python]
    assert str(decode_lambda(stored(codes["default"], [2.5]))) == "x * 2.5"
    assert str(decode_lambda(stored(codes["free"], None, [3]))) == "x * 3"
    assert str(decode_lambda(stored(codes["argument"], arguments={"s": 4}))) == "x * 4"
    items = {"class_name": "__tuple__", "items": [1, 2]}
    assert str(decode_lambda(keras_3(codes["default"], items))) == "x * 2"
    array = {"type": "ndarray", "value": [0.5, 0.25]}
    assert str(decode_lambda(stored(codes["argument"], arguments={"s": array}))) == "x * (0.5, 0.25)"


def test_a_closure_that_is_no_number_is_named() -> None:
    for value in ({"class_name": "Tensor"}, {"a": 1}, "x" * 200, float("nan")):
        with pytest.raises(Undecodable, match="scale is not known"):
            decode_lambda(stored(CODES["python3.8"]["free"], None, [value]))


def test_the_text_of_what_is_undecodable_shows_what_the_function_does() -> None:
    with pytest.raises(Undecodable) as caught:
        decode_lambda(keras_3(CODES["python3.12"]["system"]))
    assert caught.value.text == "lambda x: os.system('touch marker')"


def test_marshalled_bytes_as_latin_1_text_are_read_as_keras_before_2_1_wrote_them() -> None:
    code = base64.b64decode(CODES["python3.6"]["scale"]).decode("latin-1")
    assert code[0] == "\u00e3"
    assert str(decode_lambda(stored(code))) == "x / 127.5 - 1.0"
    wrapped = "\n".join(CODES["python3.6"]["scale"][i : i + 76] for i in range(0, 1000, 76))
    assert str(decode_lambda(stored(wrapped))) == "x / 127.5 - 1.0"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"function": {"module": "keras.ops", "class_name": "function", "config": "relu"}}, "relu(x)"),
        ({"function": {"module": "keras.ops", "class_name": "absolute"}}, None),
        (
            {"function": {"module": "keras.src.ops.numpy", "class_name": "function", "config": "square"}},
            "square(x)",
        ),
        (
            {"function": "l2_normalize", "module": "tensorflow.python.ops.nn_impl", "arguments": {"axis": 1}},
            "l2_normalize(x, axis=1)",
        ),
        (
            {"function": "sqrt", "module": "keras.backend.tensorflow_backend", "function_type": "function"},
            "sqrt(maximum(x, 0.0))",
        ),
        ({"function": "abs", "module": "tensorflow.python.ops.math_ops"}, "abs(x)"),
        ({"function": "reduce_sum", "module": "tensorflow.python.ops.math_ops"}, "sum(x)"),
        ({"function": "euclidean_distance", "function_type": "function"}, None),
        ({"function": {"module": "builtins", "class_name": "function", "config": "dist"}}, None),
        ({"function": {"module": "keras.config", "class_name": "function", "config": "set_floatx"}}, None),
        ({"function": {"module": "os", "class_name": "function", "config": "system"}}, None),
        ({"function": "system", "module": "os", "function_type": "function"}, None),
        ({"function": "exec", "function_type": "function"}, None),
        ({"function": None}, None),
        ({}, None),
        ({"function": [None, None, None]}, None),
        ({"function": {"class_name": "__lambda__", "config": {"code": 7}}}, None),
    ],
)
def test_a_function_stored_by_name_is_known_only_if_it_is_an_operation(
    config: dict[str, Any], expected: str | None
) -> None:
    if expected is not None:
        assert str(decode_lambda(config)) == expected
        return
    with pytest.raises(Undecodable):
        decode_lambda(config)


def test_decoding_imports_no_framework_and_does_not_use_pythons_own_marshal() -> None:
    config = stored(CODES["python3.11"]["distance"])
    script = (
        "import sys, marshal\n"
        "from layerprobe.modelfile.lambdas import decode_lambda\n"
        f"first = decode_lambda({config!r})\n"
        "marshal.loads = None\n"
        f"assert decode_lambda({config!r}) == first\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def number(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=True)


HOSTILE = {
    "a tuple of two billion": b"(" + number(2**31 - 1),
    "a negative count": b"(" + number(-1),
    "text of two billion bytes": b"s" + number(2**31 - 1),
    "a huge number": b"l" + number(2**30) + b"\1\0" * 20_000,
    "nested a thousand deep": b")\1" * 1_000 + b"N",
    "a tuple of itself": b"\xa9\1r" + number(0),
    "tuples that double": b"".join(b"\xa9\2" for _ in range(15)) + b"N",
    "ten thousand objects": b"(" + number(10_000) + b"N" * 10_000,
    "an unknown type": b"?",
    "a dict": b"{NN0",
    "nothing": b"",
    "no code": b"N",
    "more than the limit": b"s" + number(1 << 20) + bytes(1 << 20),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_marshal_data_ends_quickly_in_an_error(name: str) -> None:
    start = time.perf_counter()
    for version in ((2, 7), (3, 6), (3, 9), (3, 13)):
        with pytest.raises(BadCode):
            read_code(HOSTILE[name], version)
    with pytest.raises(Undecodable):
        decode_lambda(stored(base64.b64encode(HOSTILE[name]).decode()))
    assert time.perf_counter() - start < 10


def test_an_expression_that_doubles_at_each_step_is_refused_quickly() -> None:
    """`x = x + x`, sixty times: small as byte code, immense as an expression."""
    body = b"|\0|\0\x17\0}\0" * 60 + b"|\0S\0"
    code = base64.b64decode(CODES["python3.6"]["scale"])
    old = b"|\0d\1\x1b\0d\2\x18\0S\0"
    doubled = code.replace(b"s" + number(len(old)) + old, b"s" + number(len(body)) + body)
    assert doubled != code
    start = time.perf_counter()
    with pytest.raises(Undecodable, match="parts"):
        decode_lambda(stored(base64.b64encode(doubled).decode()))
    assert time.perf_counter() - start < 10


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_byte_code_never_raises_anything_else(data: st.DataObject) -> None:
    python = data.draw(st.sampled_from(sorted(CODES)))
    code = bytearray(base64.b64decode(CODES[python][data.draw(st.sampled_from(sorted(EXPRESSIONS)))]))
    for _ in range(data.draw(st.integers(1, 4))):
        code[data.draw(st.integers(0, len(code) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del code[data.draw(st.integers(0, len(code) - 1)) :]
    try:
        decoded = decode_lambda(stored(base64.b64encode(bytes(code)).decode()))
    except Undecodable:
        return
    assert isinstance(decoded, Expression)
    assert parse_expression(str(decoded)) == decoded


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ).flatmap(
        lambda value: st.sampled_from([{"function": value}, {"function": [value] * 3}, {"arguments": value}])
    )
)
def test_any_config_is_decoded_or_undecodable(config: dict[str, Any]) -> None:
    with pytest.raises(Undecodable):
        decode_lambda(config)
