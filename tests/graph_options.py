"""What each layer class may be given: input shapes and arguments, for drawing one small model at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from layerprobe.modelfile.classes import ACTIVATIONS

Strategy = st.SearchStrategy[Any]

NOT_BY_NAME = {"keras2_hard_sigmoid", "sparsemax", "threshold"}
"""Activations that Keras 3 has under another name, needs arguments for, or that go to Keras."""
activations = st.sampled_from([None, *sorted(ACTIVATIONS - NOT_BY_NAME - {"glu"})])
flags = st.booleans()
fractions = st.floats(0, 1, width=16)
epsilons = st.sampled_from([1e-3, 1e-2, 0.3])


@dataclass(frozen=True)
class Drawn:
    """How one class is drawn."""

    shape: Strategy
    options: dict[str, Strategy]
    """Arguments that are always given."""
    optional: dict[str, Strategy]
    """Arguments that are given or left at their defaults."""
    has_data_format: bool = False

    def arguments(self) -> Strategy:
        return st.fixed_dictionaries(self.options, optional=self.optional)


def sizes(rank: int, low: int = 1, high: int = 9) -> Strategy:
    """Space and channels."""
    return st.tuples(*[st.integers(low, high)] * rank, st.integers(low, 6))


def any_rank(low: int = 1) -> Strategy:
    return st.integers(0, 3).flatmap(lambda rank: sizes(rank, low, 7 - rank))


def each(rank: int, low: int, high: int) -> Strategy:
    """One number for all axes, or one for each."""
    one = st.integers(low, high)
    return one if rank == 1 else one | st.tuples(*[one] * rank)


def axes(*choices: Any) -> dict[str, Strategy]:
    return {"axis": st.sampled_from(choices)}


def margins(rank: int, high: int) -> Strategy:
    one = st.integers(0, high)
    pair = st.tuples(one, one)
    return one | (pair if rank == 1 else st.tuples(*[one] * rank) | st.tuples(*[pair] * rank))


def _convolutions(rank: int) -> dict[str, Drawn]:
    options = {"filters": st.sampled_from([1, 2, 4, 6]), "kernel_size": each(rank, 1, 4)}
    padding = st.sampled_from(["valid", "same"])
    shared = {"activation": activations, "use_bias": flags}
    # A convolution has strides or a dilation: Keras refuses both.
    stepping = {"strides": each(rank, 1, 3), "dilation_rate": each(rank, 1, 3)}
    moving = {**shared, **stepping, "padding": padding}
    causal = st.sampled_from(["valid", "same", "causal"]) if rank == 1 else padding
    depth = {"depth_multiplier": st.integers(1, 3)}
    shape = sizes(rank, 1, 9 if rank < 3 else 6)
    made = {
        f"Conv{rank}D": Drawn(
            shape, options, {**moving, "padding": causal, "groups": st.sampled_from([1, 2, 3])}, True
        ),
        f"Conv{rank}DTranspose": Drawn(
            shape, options, {**moving, "output_padding": st.none() | each(rank, 0, 3)}, True
        ),
    }
    if rank < 3:
        kernel = {"kernel_size": options["kernel_size"]}
        even = {**moving, "strides": st.integers(1, 3), "dilation_rate": st.integers(1, 3)}
        made[f"DepthwiseConv{rank}D"] = Drawn(shape, kernel, {**even, **depth}, True)
        made[f"SeparableConv{rank}D"] = Drawn(shape, options, {**even, **depth}, True)
    return made


def _poolings(rank: int) -> dict[str, Drawn]:
    shape = sizes(rank, 1, 9 if rank < 3 else 6)
    windows = {
        "pool_size": each(rank, 1, 4),
        "strides": st.none() | each(rank, 1, 4),
        "padding": st.sampled_from(["valid", "same"]),
    }
    # TensorFlow ends the process where a window of a maximum is longer than the axis.
    adaptive = Drawn(sizes(rank, 4, 7), {"output_size": each(rank, 2, 4)}, {}, True)
    whole = Drawn(shape, {}, {"keepdims": flags}, True)
    return {
        f"AdaptiveAveragePooling{rank}D": adaptive,
        f"AdaptiveMaxPooling{rank}D": adaptive,
        f"AveragePooling{rank}D": Drawn(shape, {}, windows, True),
        f"GlobalAveragePooling{rank}D": whole,
        f"GlobalMaxPooling{rank}D": whole,
        f"MaxPooling{rank}D": Drawn(shape, {}, windows, True),
        f"Cropping{rank}D": Drawn(sizes(rank, 3, 7), {"cropping": margins(rank, 2)}, {}, rank > 1),
        f"UpSampling{rank}D": Drawn(sizes(rank, 1, 4), {}, {"size": each(rank, 1, 3)}, rank > 1),
        f"ZeroPadding{rank}D": Drawn(shape, {"padding": margins(rank, 3)}, {}, True),
    }


_interpolations = st.sampled_from(["area", "bicubic", "bilinear", "lanczos3", "lanczos5", "nearest"])
_length = {"height": st.integers(1, 12), "width": st.integers(1, 12)}
_affine = {"center": flags, "scale": flags, "epsilon": epsilons}
_modes = st.sampled_from(["multi_hot", "one_hot", "count"])
_gates = st.sampled_from(["sigmoid", "hard_sigmoid", "tanh"])
_sequence = {"return_sequences": flags, "go_backwards": flags, "use_bias": flags, "activation": activations}
_steps = st.tuples(st.integers(1, 6), st.integers(1, 4))
_units = {"units": st.integers(1, 4)}


def _plain(*names: str) -> dict[str, Drawn]:
    return {name: Drawn(any_rank(), {}, {}) for name in names}


OPTIONS: dict[str, Drawn] = {
    **_plain("ActivityRegularization", "Identity", "UnitNormalization"),
    **{name: Drawn(any_rank(), {"rate": st.just(0.5)}, {}) for name in ("AlphaDropout", "Dropout")},
    **{f"SpatialDropout{rank}D": Drawn(sizes(rank), {"rate": st.just(0.5)}, {}) for rank in (1, 2, 3)},
    **{name: drawn for rank in (1, 2, 3) for name, drawn in _convolutions(rank).items()},
    **{name: drawn for rank in (1, 2, 3) for name, drawn in _poolings(rank).items()},
    "Activation": Drawn(any_rank(), {"activation": activations.filter(bool)}, {}),
    "BatchNormalization": Drawn(any_rank(), {}, {**_affine, **axes(-1, 1, 2)}),
    "CategoryEncoding": Drawn(sizes(0), {"num_tokens": st.integers(1, 9)}, {"output_mode": _modes}),
    "CenterCrop": Drawn(sizes(2), _length, {}, True),
    "Dense": Drawn(any_rank(), _units, {"activation": activations, "use_bias": flags}),
    "Discretization": Drawn(
        any_rank(),
        {"bin_boundaries": st.lists(st.floats(-2, 2, width=16), min_size=1, max_size=6).map(sorted)},
        {"output_mode": st.sampled_from(["int", "one_hot"])},
    ),
    "ELU": Drawn(any_rank(), {}, {"alpha": fractions}),
    "EinsumDense": Drawn(
        sizes(1),
        {
            "equation": st.sampled_from(["abc,cd->abd", "abc,cd->adb", "...x,xd->...d", "a...,bd->a...d"]),
            "output_shape": st.tuples(st.none(), st.integers(1, 4)),
        },
        {"activation": activations, "bias_axes": st.sampled_from([None, "d"])},
    ),
    "Flatten": Drawn(any_rank(), {}, {}, True),
    "GRU": Drawn(_steps, _units, {**_sequence, "reset_after": flags, "recurrent_activation": _gates}),
    "GaussianDropout": Drawn(any_rank(), {"rate": st.just(0.5)}, {}),
    "GaussianNoise": Drawn(any_rank(), {"stddev": fractions}, {}),
    "GroupNormalization": Drawn(
        st.integers(1, 2).flatmap(lambda rank: st.tuples(*[st.integers(2, 5)] * rank, st.just(6))),
        {},
        {**_affine, "groups": st.sampled_from([-1, 1, 2, 3, 6])},
    ),
    "LSTM": Drawn(_steps, _units, {**_sequence, "recurrent_activation": _gates}),
    "LayerNormalization": Drawn(any_rank(3), {}, {**_affine, **axes(-1, 1, [1, -1], [-2, -1])}),
    "LeakyReLU": Drawn(any_rank(), {}, {"negative_slope": fractions}),
    "Normalization": Drawn(
        any_rank(), {"mean": fractions, "variance": st.floats(0.5, 2, width=16)}, {"invert": flags}
    ),
    "PReLU": Drawn(sizes(2), {}, {"shared_axes": st.sampled_from([None, [1], [1, 2], [3]])}),
    "Permute": Drawn(sizes(2), {"dims": st.permutations([1, 2, 3]).map(tuple)}, {}),
    "RMSNormalization": Drawn(any_rank(), {}, {**axes(-1, 1), "epsilon": epsilons}),
    "ReLU": Drawn(
        any_rank(),
        {},
        {"max_value": st.none() | fractions, "negative_slope": fractions, "threshold": fractions},
    ),
    "RepeatVector": Drawn(sizes(0), {"n": st.integers(1, 4)}, {}),
    "Rescaling": Drawn(any_rank(), {"scale": fractions}, {"offset": fractions}),
    "Reshape": Drawn(
        st.tuples(st.integers(1, 4), st.just(6)),
        {"target_shape": st.sampled_from([(-1,), (3, -1), (-1, 2), (-1, 3, 2), (2, -1, 1)])},
        {},
    ),
    "Resizing": Drawn(
        sizes(2),
        _length,
        {
            "interpolation": _interpolations,
            "crop_to_aspect_ratio": flags,
            "pad_to_aspect_ratio": flags,
            "fill_value": fractions,
            "antialias": flags,
        },
        True,
    ),
    "SimpleRNN": Drawn(_steps, _units, _sequence),
    "Softmax": Drawn(any_rank(), {}, axes(-1, 1, 2, [1, 2])),
    "UpSampling2D": Drawn(
        sizes(2, 1, 6), {}, {"size": each(2, 1, 4), "interpolation": _interpolations}, True
    ),
}
"""Class -> how it is drawn."""
