"""`function`, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, partial
from threading import Lock
from typing import Any

import keras
import tensorflow as tf

from layerprobe.backend_function.connect import connect
from layerprobe.backend_function.graph import Tensor, describe
from layerprobe.backend_function.parsing import parse_inputs, parse_outputs, parse_updates
from layerprobe.backend_function.plan import Plan
from layerprobe.backend_function.values import signature, to_dense, to_tensor
from layerprobe.errors import ResourceError, UnavailableError, UsageError
from layerprobe.taps import variables_unchanged


def function(
    inputs: Sequence[Any],
    outputs: Any,
    updates: Sequence[Any] | None = None,
    name: str | None = None,
    **unknown: Any,
) -> BackendFunction:
    """Make a function from some tensors of a Keras model to others: `K.function` for Keras 3.

    >>> import keras
    >>> from layerprobe.backend_function import function
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(), keras.layers.Softmax()])
    >>> get_output = function([model.layers[0].input], [model.layers[0].output, model.layers[-1].output])
    >>> rectified, probabilities = get_output([[[3.0, -1.0]]])
    >>> rectified
    array([[3., 0.]], dtype=float32)

    Layers run as they were called when the model was made: in the inference phase, unless called with
    `training=True` or told otherwise by `learning_phase`. Weights are read at each call. Only what the
    outputs and updates need is computed; a layer called twice on the same tensors is called once.

    Args:
        inputs: A list of symbolic tensors, from anywhere in a model. An empty list among them, which is
            what Keras 3 gives for `model.layers[0].input`, stands for the one input that the outputs need
            and that is not given; `model.inputs[0]` says which one is meant.
        outputs: Symbolic tensors and variables: a list, a dictionary, nested ones, or one alone. A tensor
            inside a nested model has the value that it has in the outer model's call.
        updates: Done at each call, after the outputs are computed: `(variable, new value)` pairs, where all
            new values (symbolic tensors, variables or arrays) are computed before the first is assigned;
            symbolic tensors, computed for their effect; callables without arguments, which TensorFlow
            traces once.
        name: Shown by `repr`.
        **unknown: Refused, with a sentence.

    Returns:
        A function of a list of values, in the order of `inputs`, that returns arrays in the structure of
        `outputs`.

    Raises:
        TypeError: An argument holds something that is no symbolic tensor.
        UsageError: The outputs or updates need more than the inputs; a nested model is called more than
            once from the inputs; a new value does not fit its variable; an argument is not known.
        UnavailableError: Keras runs on another backend than TensorFlow.
    """
    if keras.config.backend() != "tensorflow":
        raise UnavailableError(
            "function() needs Keras on TensorFlow: set the environment variable KERAS_BACKEND=tensorflow. "
            f"Received: {keras.config.backend()}."
        )
    if unknown:
        raise UsageError(
            f"function() has no argument {next(iter(unknown))!r}: it takes inputs, outputs, updates and name."
        )
    return BackendFunction(inputs, outputs, updates, name)


@cache
def learning_phase() -> Tensor:
    """The scalar that chooses the phase: one of the `inputs` of `function`, as `K.learning_phase()` was.

    Called with 1 for it, the function calls every layer with `training=True`; with 0, it runs as without it.
    """
    return keras.KerasTensor((), dtype="bool", name="learning_phase")


class BackendFunction:
    """Computes tensors of a model from others; made by `function`.

    TensorFlow traces the model at the first call, once for all batch sizes. Several threads can call at once;
    with updates, one at a time.
    """

    def __init__(self, inputs: Any, outputs: Any, updates: Any, name: str | None) -> None:
        self.name = name
        self._outputs = parse_outputs(outputs)
        self._updates = parse_updates(updates)
        self._leaves = keras.tree.flatten(self._outputs)
        if not (self._leaves or self._updates):
            raise UsageError("there is nothing to compute: give `outputs`, `updates` or both.")
        read = [*self._leaves, *(update.value for update in self._updates)]
        self._wanted = [leaf for leaf in read if isinstance(leaf, keras.KerasTensor)]
        self._inputs = parse_inputs(inputs, self._wanted)
        self._plan = connect(self._inputs, self._wanted)
        self._traced: dict[bool, Callable[..., Any]] = {}
        self._lock = Lock()

    def __call__(self, values: Sequence[Any]) -> Any:
        """Compute the outputs, then do the updates.

        Args:
            values: A list or tuple with one value for each of the inputs: anything NumPy can convert, a SciPy
                sparse matrix or a `tf.SparseTensor`, of the input's shape, batch axis included. It is cast to
                the input's dtype.

        Returns:
            NumPy arrays in the structure of `outputs`; sparse tensors come back dense.

        Raises:
            TypeError: `values` is neither list nor tuple.
            UsageError: Their number, a shape or a dtype is wrong, or the model cannot compute with them.
            ResourceError: There is not enough memory for so many rows.
        """
        if not isinstance(values, (list, tuple)):
            raise TypeError(
                f"expected a list or tuple of {self._takes()}. Received: {type(values).__name__}."
            )
        if len(values) != len(self._inputs):
            raise UsageError(f"expected {self._takes()}. Received: {len(values)}.")
        fed = [to_tensor(value, tensor) for value, tensor in zip(values, self._inputs, strict=True)]
        training = any(
            bool(value) for value, t in zip(fed, self._inputs, strict=True) if t is learning_phase()
        )
        try:
            traced = self._trace(training)
            with self._lock if self._updates else nullcontext():
                computed = traced(*fed)
        except tf.errors.ResourceExhaustedError as error:
            raise ResourceError(
                f"not enough memory for values of {_shapes(fed)}: give fewer rows."
            ) from error
        except tf.errors.InvalidArgumentError as error:
            reason = error.message.split("[[{{")[0].strip().splitlines()[-1]  # without the place in the graph
            raise UsageError(f"the model cannot compute with values of {_shapes(fed)}: {reason}") from error
        return keras.tree.pack_sequence_as(self._outputs, [value.numpy() for value in computed])

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<BackendFunction{name} of {', '.join(map(describe, self._inputs)) or 'no inputs'}>"

    def _takes(self) -> str:
        named = f" ({', '.join(map(describe, self._inputs))})" if self._inputs else ""
        return f"{len(self._inputs)} value{'' if len(self._inputs) == 1 else 's'}{named}"

    def _trace(self, training: bool) -> Callable[..., Any]:
        """The plan as a TensorFlow graph; made once for each phase."""
        with self._lock:
            if training not in self._traced:
                plan = self._plan.in_training() if training else self._plan
                graph = tf.function(partial(self._run, plan), autograph=False)
                self._traced[training] = graph.get_concrete_function(*map(signature, self._inputs))
            return self._traced[training]

    def _run(self, plan: Plan, *fed: Any) -> list[Any]:
        """Compute the outputs, then the new values, then assign."""
        with variables_unchanged(plan.operations()):
            results = plan.run(fed)
        computed = dict(zip(map(id, self._wanted), results, strict=True))

        def value_of(leaf: Any) -> Any:
            if isinstance(leaf, keras.Variable):
                return tf.identity(leaf.value)  # read now, before any update
            return computed.get(id(leaf), leaf)

        outputs = [to_dense(value_of(leaf)) for leaf in self._leaves]
        new = [value_of(update.value) for update in self._updates]
        for (variable, _), value in zip(self._updates, new, strict=True):
            if variable is not None:
                variable.assign(value)
            elif callable(value):
                value()
        return outputs


def _shapes(fed: Sequence[Any]) -> str:
    return "shape " + " and ".join(str(tuple(value.shape)) for value in fed) if fed else "no shape"
