"""The calls that lead from given values to wanted ones, and how they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import keras

from layerprobe.backend_function.graph import Call, Tensor, arguments, get_mask, set_mask

Ref: TypeAlias = tuple[int, int]
"""A value of a plan: the number of the step that gives it, and which of that step's values it is."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A value that the caller gives."""

    needs: tuple[Ref, ...]
    """Its mask, if Keras has one for it."""
    position: int
    """Its place among the given values."""

    def run(self, needs: Sequence[Any], fed: Sequence[Any]) -> Sequence[Any]:
        """The value, with its mask attached."""
        value = fed[self.position]
        if needs:
            set_mask(value, needs[0])
        return [value]


@dataclass(frozen=True, slots=True)
class Make:
    """One call of a layer or operation."""

    needs: tuple[Ref, ...]
    """The call's `input_tensors`."""
    call: Call
    training: bool | None = None
    """The phase to call a layer in; None: as the call was made."""

    def run(self, needs: Sequence[Any], fed: Sequence[Any]) -> Sequence[Any]:
        """The outputs of the call, as a flat list."""
        args, kwargs = arguments(self.call, needs)
        if self.training is not None and isinstance(self.call.operation, keras.Layer):
            kwargs = {**kwargs, "training": self.training}
        outputs: list[Any] = keras.tree.flatten(self.call.operation(*args, **kwargs))
        return outputs


@dataclass(frozen=True, slots=True)
class Enter:
    """A value on its way into an opened model, converted as the model itself would."""

    needs: tuple[Ref, ...]
    """The value, and its mask if the model was called with one."""
    call: Call
    """Of the model."""
    inner: Tensor
    """The model's own input."""

    def run(self, needs: Sequence[Any], fed: Sequence[Any]) -> Sequence[Any]:
        """The value with the dtype and the number of axes that the model takes."""
        value, mask = needs[0], needs[1] if len(needs) > 1 else get_mask(needs[0])
        inner = self.inner
        entered = keras.ops.convert_to_tensor(value, dtype=inner.dtype, sparse=inner.sparse)
        if len(entered.shape) == len(inner.shape) + 1:
            entered = keras.ops.squeeze(entered, axis=-1)
        elif len(entered.shape) == len(inner.shape) - 1:
            entered = keras.ops.expand_dims(entered, axis=-1)
        if mask is not None:
            set_mask(entered, mask)
        return [entered]


@dataclass(frozen=True, slots=True)
class Leave:
    """A value on its way out of an opened model."""

    needs: tuple[Ref, ...]
    call: Call
    """Of the model."""

    def run(self, needs: Sequence[Any], fed: Sequence[Any]) -> Sequence[Any]:
        """The value as it is."""
        return needs


Step: TypeAlias = Feed | Make | Enter | Leave


@dataclass(frozen=True, slots=True)
class Plan:
    """How to get from the given values to the wanted ones."""

    steps: Mapping[int, Step]
    """By number, in order: each step after those whose values it needs."""
    wanted: Sequence[Ref]

    def in_phase(self, phases: Mapping[int, bool]) -> Plan:
        """The same plan, with some layers, by `id(layer)`, called in the phase given for each."""
        steps = {
            number: replace(step, training=phases.get(id(step.call.operation)))
            if isinstance(step, Make)
            else step
            for number, step in self.steps.items()
        }
        return Plan(steps, self.wanted)

    def in_training(self) -> Plan:
        """The same plan, with every layer called in the training phase."""
        return self.in_phase({id(operation): True for operation in self.operations()})

    def operations(self) -> list[Any]:
        """The layers and bare operations that it calls, once for each call."""
        return [step.call.operation for step in self.steps.values() if isinstance(step, Make)]

    def run(self, fed: Sequence[Any]) -> list[Any]:
        """Make the calls.

        Args:
            fed: Backend tensors, one for each tensor that is given.

        Returns:
            Backend tensors, one for each tensor that is wanted.
        """
        values: dict[int, Sequence[Any]] = {}
        for number, step in self.steps.items():
            values[number] = step.run([values[of][index] for of, index in step.needs], fed)
        return [values[of][index] for of, index in self.wanted]
