"""The known operations: the one list that byte code, `--lambda` and every engine share.

A name and its meaning are those of `keras.ops` where Keras has the operation. An engine that evaluates
expressions gives one function for each name, called with the arguments in this order; "index" besides.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

Default = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation."""

    name: str
    required: bool = True
    default: Default = None


def _table(text: str) -> dict[str, tuple[Parameter, ...]]:
    """Read one signature per line, written as Python writes them."""
    table = {}
    for line in text.split("\n"):
        if line.strip():
            call = ast.parse(line.strip(), mode="eval").body
            assert isinstance(call, ast.Call)
            assert isinstance(call.func, ast.Name)
            table[call.func.id] = (
                *(Parameter(ast.unparse(name)) for name in call.args),
                *(Parameter(str(k.arg), False, ast.literal_eval(k.value)) for k in call.keywords),
            )
    return table


OPERATIONS = _table("""
    add(x1, x2)
    subtract(x1, x2)
    multiply(x1, x2)
    divide(x1, x2)
    floor_divide(x1, x2)
    mod(x1, x2)
    power(x1, x2)
    matmul(x1, x2, transpose_x1=False, transpose_x2=False)
    less(x1, x2)
    less_equal(x1, x2)
    greater(x1, x2)
    greater_equal(x1, x2)
    equal(x1, x2)
    not_equal(x1, x2)
    logical_and(x1, x2)
    logical_or(x1, x2)
    logical_not(x)
    maximum(x1, x2)
    minimum(x1, x2)
    divide_no_nan(x1, x2)
    negative(x)
    abs(x)
    sign(x)
    square(x)
    sqrt(x)
    rsqrt(x)
    exp(x)
    log(x)
    log1p(x)
    round(x)
    floor(x)
    ceil(x)
    sin(x)
    cos(x)
    tan(x)
    tanh(x)
    arctan(x)
    sigmoid(x)
    softplus(x)
    softsign(x)
    relu(x, negative_slope=0.0, max_value=None, threshold=0.0)
    relu6(x)
    elu(x, alpha=1.0)
    selu(x)
    silu(x)
    gelu(x, approximate=True)
    leaky_relu(x, negative_slope=0.2)
    hard_sigmoid(x)
    softmax(x, axis=-1)
    log_softmax(x, axis=-1)
    clip(x, x_min, x_max)
    where(condition, x1, x2)
    cast(x, dtype)
    constant(value, dtype=None)
    ones_like(x, dtype=None)
    zeros_like(x, dtype=None)
    one_hot(x, num_classes, axis=-1)
    sum(x, axis=None, keepdims=False)
    mean(x, axis=None, keepdims=False)
    max(x, axis=None, keepdims=False)
    min(x, axis=None, keepdims=False)
    prod(x, axis=None, keepdims=False)
    var(x, axis=None, keepdims=False)
    std(x, axis=None, keepdims=False)
    any(x, axis=None, keepdims=False)
    all(x, axis=None, keepdims=False)
    logsumexp(x, axis=None, keepdims=False)
    argmax(x, axis=None)
    argmin(x, axis=None)
    cumsum(x, axis=None)
    l2_normalize(x, axis=None, epsilon=1e-12)
    shape(x)
    ndim(x)
    dtype(x)
    reshape(x, newshape)
    flatten(x)
    transpose(x, axes=None)
    expand_dims(x, axis)
    squeeze(x, axis=None)
    concatenate(xs, axis=0)
    stack(xs, axis=0)
    unstack(x, num=None, axis=0)
    split(x, sections, axis=0)
    tile(x, repeats)
    repeat(x, repeats, axis=None)
    pad(x, pad_width, mode='constant', constant_values=0)
    flip(x, axis=None)
    take(x, indices, axis=None)
    dot(x1, x2)
    batch_dot(x1, x2, axes=None)
    einsum(subscripts, operands)
    resize(x, size, interpolation='bilinear', half_pixel_centers=True)
    depth_to_space(x, block_size)
    space_to_depth(x, block_size)
""")
"""Operation -> its parameters. `flatten` keeps the batch axis; `einsum` takes its operands as one tuple;
`resize` without half-pixel centers is what TensorFlow 1 did; `constant` makes a tensor of numbers."""

STATIC = frozenset(
    (
        *("axis", "axes", "keepdims", "dtype", "num", "sections", "mode", "interpolation", "subscripts"),
        *("half_pixel_centers", "approximate", "transpose_x1", "transpose_x2", "block_size", "num_classes"),
    )
)
"""Parameters whose value must be written in the expression, not computed from the input."""

INFIX = {
    "less": ("<", 1),
    "less_equal": ("<=", 1),
    "greater": (">", 1),
    "greater_equal": (">=", 1),
    "equal": ("==", 1),
    "not_equal": ("!=", 1),
    "add": ("+", 4),
    "subtract": ("-", 4),
    "multiply": ("*", 5),
    "divide": ("/", 5),
    "floor_divide": ("//", 5),
    "mod": ("%", 5),
    "power": ("**", 7),
}
PREFIX = {"negative": ("-", 6)}
"""Operation -> how Python writes it, and how tightly it binds."""
