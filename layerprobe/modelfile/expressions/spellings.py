"""How other people's code calls the known operations, and the modules under which it finds them.

Each line defines one function of Keras's backend (`K`), TensorFlow (`tf`; `tf1` where version 1 differed),
`keras.ops`, NumPy or Python by an expression in the known operations. A parameter that the expression does
not use must keep its default: `tf.image.resize(x, (9, 9), antialias=True)` is not known.
"""

from __future__ import annotations

import ast
import re
from functools import cache

MODULES = (
    ("tensorflow.compat.v1", "tf1"),
    ("tf.compat.v1", "tf1"),
    ("tf.compat.v2", "tf"),
    ("tensorflow.python.keras", "keras"),
    ("tensorflow.keras", "keras"),
    ("tf.keras", "keras"),
    ("tf1.keras", "keras"),
    ("tf_keras", "keras"),
    ("keras.backend.tf", "tf"),
    ("keras.backend", "K"),
    ("keras.ops", "ops"),
    ("keras.activations", "activations"),
    ("keras.layers", "layers"),
    ("keras.src", "keras"),
    ("tensorflow", "tf"),
    ("K.tf", "tf"),
    ("KTF", "K"),
    ("ktf", "tf"),
    ("backend", "K"),
    ("knp", "ops"),
    ("ops.numpy", "ops"),
    ("ops.nn", "ops"),
    ("ops.math", "ops"),
    ("ops.core", "ops"),
    ("numpy", "np"),
    ("tf.math", "tf"),
    ("tf1.math", "tf1"),
    ("tf.linalg", "tf"),
    ("tf.dtypes", "tf"),
    ("tf.nn.l2_normalize", "tf.l2_normalize"),
)
"""A beginning of a dotted name, and what it is the same as; applied until nothing changes."""

SHARED = {
    "K": "abs square exp log round sign sin cos softplus softsign sigmoid tanh maximum minimum sum mean max "
    "min prod var std any all logsumexp shape ndim dtype softmax equal not_equal greater greater_equal less "
    "less_equal stack cast ones_like zeros_like batch_dot dot tile elu selu l2_normalize",
    "tf": "abs square exp log log1p round sign sin cos tan tanh sigmoid sqrt rsqrt floor logical_not add "
    "subtract multiply divide maximum minimum divide_no_nan less less_equal greater greater_equal equal "
    "not_equal logical_and logical_or negative cast constant where tile ones_like zeros_like shape reshape",
    "tf.nn": "relu6 elu selu silu sigmoid tanh softmax log_softmax softplus softsign",
    "activations": "elu selu softplus softsign tanh sigmoid softmax silu gelu relu6 leaky_relu",
    "np": "sqrt exp log square abs prod",
    "math": "sqrt exp log floor ceil",
}
"""Module -> functions that are the operation of the same name, with the same order of arguments."""

RENAMED = {
    "keep_dims": "keepdims",
    "reduction_indices": "axis",
    "dim": "axis",
    "input": "x",
    "input_tensor": "x",
    "tensor": "x",
    "features": "x",
    "logits": "x",
    "x": "x1",
    "y": "x2",
}
"""Keywords of other versions, where the function called has no parameter of that name."""

MERGES = {
    "applied.layers.Add": "add",
    "applied.layers.Average": "add",
    "applied.layers.Maximum": "maximum",
    "applied.layers.Minimum": "minimum",
    "applied.layers.Multiply": "multiply",
    "applied.layers.Subtract": "subtract",
}
"""Layers that join a list of tensors pairwise, where a layer is made and called at once."""

CONSTANTS: dict[str, bool | int | float | str | None] = {
    "np.pi": 3.141592653589793,
    "math.pi": 3.141592653589793,
    "np.e": 2.718281828459045,
    "math.e": 2.718281828459045,
    "np.newaxis": None,
    "tf.newaxis": None,
    "tf.image.ResizeMethod.BILINEAR": "bilinear",
    "tf.image.ResizeMethod.NEAREST_NEIGHBOR": "nearest",
    **{
        f"{module}.{dtype}": dtype
        for module in ("tf", "tf1", "np")
        for dtype in ("float16", "float32", "float64", "int32", "int64", "uint8", "bool", "bfloat16")
    },
}

_DEFINITIONS = """
abs(x) = abs(x)
pow(x, y) = x ** y
float(x) = x
list(x) = x
tuple(x) = x

K.sqrt(x) = sqrt(maximum(x, 0.0))
K.pow(x, a) = x ** a
K.clip(x, min_value, max_value) = clip(x, min_value, max_value)
K.hard_sigmoid(x) = clip(0.2 * x + 0.5, 0.0, 1.0)
K.argmax(x, axis=-1) = argmax(x, axis)
K.argmin(x, axis=-1) = argmin(x, axis)
K.cumsum(x, axis=0) = cumsum(x, axis)
K.int_shape(x) = shape(x)
K.identity(x) = x
K.stop_gradient(x) = x
K.constant(value, dtype=None) = constant(value, dtype)
K.epsilon() = 1e-07
K.floatx() = 'float32'
K.concatenate(tensors, axis=-1) = concatenate(tensors, axis)
K.expand_dims(x, axis=-1) = expand_dims(x, axis)
K.squeeze(x, axis) = squeeze(x, axis)
K.reshape(x, shape) = reshape(x, shape)
K.transpose(x) = transpose(x)
K.permute_dimensions(x, pattern) = transpose(x, pattern)
K.flatten(x) = reshape(x, (-1,))
K.batch_flatten(x) = flatten(x)
K.reverse(x, axes) = flip(x, axes)
K.gather(reference, indices) = take(reference, indices, 0)
K.one_hot(indices, num_classes) = one_hot(indices, num_classes)
K.repeat(x, n) = tile(expand_dims(x, 1), (1, n, 1))
K.repeat_elements(x, rep, axis) = repeat(x, rep, axis)
K.switch(condition, then_expression, else_expression) = where(condition, then_expression, else_expression)
K.temporal_padding(x, padding=(1, 1)) = pad(x, ((0, 0), padding, (0, 0)))
K.spatial_2d_padding(x, padding=((1, 1), (1, 1)), data_format='channels_last') =
    pad(x, ((0, 0), padding[0], padding[1], (0, 0)))
K.resize_images(x, height_factor, width_factor, data_format='channels_last', interpolation='nearest') =
    repeat(repeat(x, height_factor, 1), width_factor, 2)
K.relu(x, alpha=0.0, max_value=None, threshold=0.0) = relu(x, alpha, max_value, threshold)
activations.relu(x, alpha=0.0, max_value=None, threshold=0.0) = relu(x, alpha, max_value, threshold)
activations.linear(x) = x
activations.swish(x) = silu(x)

tf.ceil(x) = ceil(x)
tf.pow(x, y) = x ** y
tf.truediv(x, y) = x / y
tf.div(x, y) = x / y
tf.floordiv(x, y) = x // y
tf.sub(x, y) = x - y
tf.mul(x, y) = x * y
tf.neg(x) = -x
tf.mod(x, y) = mod(x, y)
tf.reciprocal(x) = 1 / x
tf.squared_difference(x, y) = square(x - y)
tf.to_float(x) = cast(x, 'float32')
tf.identity(input) = input
tf.stop_gradient(input) = input
tf.convert_to_tensor(value, dtype=None) = constant(value, dtype)
tf.reduce_sum(input_tensor, axis=None, keepdims=False) = sum(input_tensor, axis, keepdims)
tf.reduce_mean(input_tensor, axis=None, keepdims=False) = mean(input_tensor, axis, keepdims)
tf.reduce_max(input_tensor, axis=None, keepdims=False) = max(input_tensor, axis, keepdims)
tf.reduce_min(input_tensor, axis=None, keepdims=False) = min(input_tensor, axis, keepdims)
tf.reduce_prod(input_tensor, axis=None, keepdims=False) = prod(input_tensor, axis, keepdims)
tf.reduce_any(input_tensor, axis=None, keepdims=False) = any(input_tensor, axis, keepdims)
tf.reduce_all(input_tensor, axis=None, keepdims=False) = all(input_tensor, axis, keepdims)
tf.reduce_variance(input_tensor, axis=None, keepdims=False) = var(input_tensor, axis, keepdims)
tf.reduce_std(input_tensor, axis=None, keepdims=False) = std(input_tensor, axis, keepdims)
tf.reduce_logsumexp(input_tensor, axis=None, keepdims=False) = logsumexp(input_tensor, axis, keepdims)
tf.norm(tensor, ord='euclidean', axis=None, keepdims=False) = sqrt(sum(square(tensor), axis, keepdims))
tf.l2_normalize(x, axis=None, epsilon=1e-12) = l2_normalize(x, axis, epsilon)
tf.argmax(input, axis=0) = argmax(input, axis)
tf.argmin(input, axis=0) = argmin(input, axis)
tf.cumsum(x, axis=0) = cumsum(x, axis)
tf.add_n(inputs) = sum(stack(inputs), 0)
tf.matmul(a, b, transpose_a=False, transpose_b=False) = matmul(a, b, transpose_a, transpose_b)
tf.einsum(equation, *inputs) = einsum(equation, inputs)
tf.concat(values, axis) = concatenate(values, axis)
tf.stack(values, axis=0) = stack(values, axis)
tf.unstack(value, num=None, axis=0) = unstack(value, num, axis)
tf.split(value, num_or_size_splits, axis=0) = split(value, num_or_size_splits, axis)
tf.expand_dims(input, axis) = expand_dims(input, axis)
tf.squeeze(input, axis=None) = squeeze(input, axis)
tf.transpose(a, perm=None) = transpose(a, perm)
tf.repeat(input, repeats, axis=None) = repeat(input, repeats, axis)
tf.reverse(tensor, axis) = flip(tensor, axis)
tf.pad(tensor, paddings, mode='CONSTANT', constant_values=0) = pad(tensor, paddings, mode, constant_values)
tf.gather(params, indices, validate_indices=None, axis=0) = take(params, indices, axis)
tf.clip_by_value(t, clip_value_min, clip_value_max) = clip(t, clip_value_min, clip_value_max)
tf.one_hot(indices, depth, on_value=None, off_value=None, axis=-1) = one_hot(indices, depth, axis)
tf.depth_to_space(input, block_size, data_format='NHWC') = depth_to_space(input, block_size)
tf.space_to_depth(input, block_size, data_format='NHWC') = space_to_depth(input, block_size)
tf.nn.depth_to_space(input, block_size, data_format='NHWC') = depth_to_space(input, block_size)
tf.nn.space_to_depth(input, block_size, data_format='NHWC') = space_to_depth(input, block_size)
tf.nn.relu(features) = relu(features)
tf.nn.leaky_relu(features, alpha=0.2) = leaky_relu(features, alpha)
tf.nn.swish(features) = silu(features)
tf.nn.gelu(features, approximate=False) = gelu(features, approximate)

tf.image.resize(images, size, method='bilinear', preserve_aspect_ratio=False, antialias=False) =
    resize(images, size, method)
tf.image.resize_images(images, size, method='bilinear', align_corners=False) =
    resize(images, size, method, False)
tf.image.resize_bilinear(images, size, align_corners=False) = resize(images, size, 'bilinear', False)
tf.image.resize_nearest_neighbor(images, size, align_corners=False) = resize(images, size, 'nearest', False)
tf1.image.resize(images, size, method='bilinear', align_corners=False) = resize(images, size, method, False)
tf.image.rgb_to_grayscale(images) = sum(images * (0.2989, 0.587, 0.114), -1, True)
tf.image.flip_left_right(image) = flip(image, -2)
tf.image.flip_up_down(image) = flip(image, -3)
tf.image.crop_to_bounding_box(image, offset_height, offset_width, target_height, target_width) =
    image[..., offset_height:offset_height + target_height, offset_width:offset_width +
    target_width, :]
tf.image.per_image_standardization(image) =
    (image - mean(image, (-3, -2, -1), True)) / maximum(std(image, (-3, -2, -1), True),
    (shape(image)[-3] * shape(image)[-2] * shape(image)[-1]) ** -0.5)

applied.layers.Concatenate(inputs, axis=-1) = concatenate(inputs, axis)
applied.layers.Flatten(inputs) = flatten(inputs)
applied.layers.Cropping2D(inputs, cropping=((0, 0), (0, 0)), data_format='channels_last') =
    inputs[:, cropping[0][0]:shape(inputs)[1] - cropping[0][1],
    cropping[1][0]:shape(inputs)[2] - cropping[1][1]]

ops.absolute(x) = abs(x)
ops.true_divide(x1, x2) = x1 / x2
ops.norm(x, ord=None, axis=None, keepdims=False) = sqrt(sum(square(x), axis, keepdims))
ops.normalize(x, axis=-1, order=2, epsilon=1e-12) = l2_normalize(x, axis, epsilon * epsilon)
ops.stop_gradient(x) = x
ops.convert_to_tensor(x, dtype=None) = constant(x, dtype)
ops.image.resize(images, size, interpolation='bilinear', antialias=False) =
    resize(images, size, interpolation)

np.array(object, dtype=None) = constant(object, dtype)
np.asarray(a, dtype=None) = constant(a, dtype)
np.float32(x) = x
np.float64(x) = x
"""


def canonical(dotted: str) -> str:
    """`tensorflow.keras.backend.abs` -> `K.abs`; names of other modules stay as they are."""
    changed = True
    while changed:
        changed = False
        for beginning, module in MODULES:
            if dotted == beginning or dotted.startswith(f"{beginning}."):
                dotted = module + dotted[len(beginning) :]
                changed = True
    return dotted


@cache
def definitions() -> dict[str, ast.Lambda]:
    """Canonical function name -> its definition, as `lambda parameters: expression`."""
    table = {}
    for line in filter(None, re.sub("\n +", " ", _DEFINITIONS).split("\n")):
        head, body = line.split(" = ", 1)
        name, parameters = head.removesuffix(")").split("(", 1)
        parsed = ast.parse(f"lambda {parameters}: {body}", mode="eval").body
        assert isinstance(parsed, ast.Lambda)
        table[name] = parsed
    return table
