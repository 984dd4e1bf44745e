"""From tensors that are given to tensors that are wanted: which calls to make, in which order.

Walking back from what is wanted is most of it. Two things need more:

- **One tensor under several names.** A Sequential model calls its layers anew for each layer that is added,
  so that `layers[1].output` and what `layers[2]` was last called on are different objects. Calls are numbered
  by what they are (value numbering): the same layer called on the same tensors is one call, made once.
- **Nested models.** The layers of an inner model are connected to that model's own input, not to what the
  outer model calls it on. Where a tensor inside is given or wanted, the inner model is opened: the calls of
  its layers replace its own, with `Enter` at each of its inputs and `Leave` at its output.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from layerprobe.backend_function.graph import (
    Call,
    Identities,
    Tensor,
    after_needs,
    arguments,
    call_key,
    call_of,
    calls_around,
    describe,
    get_mask,
    is_graph,
    operation_of,
    operations_within,
    parents,
)
from layerprobe.backend_function.plan import Enter, Feed, Leave, Make, Plan, Ref, Step
from layerprobe.errors import UsageError


def connect(given: Sequence[Tensor], wanted: Sequence[Tensor]) -> Plan:
    """Find how to compute some symbolic tensors from others.

    Raises:
        UsageError: Something else must be given too, or a tensor lies in a nested model that is called more
            than once from what is given.
    """
    return _Connection(given, wanted).plan()


def missing_inputs(given: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[Tensor]:
    """The inputs that must be given beside `given` to compute `wanted`.

    Where all that is wanted lies in a model that another one calls, the model's own input would do as well as
    what the other one calls it on; then both are named.
    """
    missing = _Connection(given, wanted).lack(wanted).inputs
    own = [tensor for tensor in after_needs(wanted, parents) if not parents(tensor)]
    if not missing or any(tensor is each for tensor in missing for each in own):
        return list(missing)
    return [*missing, *own]


@dataclass(frozen=True, slots=True)
class _Lack:
    """Why a tensor cannot be computed; false where nothing is lacking."""

    inputs: tuple[Tensor, ...] = ()
    """Inputs that are not given."""
    ambiguous: tuple[Any, ...] = ()
    """Nested models of which it is not clear which of their calls is meant."""
    circular: bool = False
    """It needs itself: it lies in a nested model that is called on its own output."""

    def __bool__(self) -> bool:
        return bool(self.inputs or self.ambiguous or self.circular)

    def __add__(self, other: _Lack) -> _Lack:
        inputs = {id(tensor): tensor for tensor in (*self.inputs, *other.inputs)}
        models = {id(model): model for model in (*self.ambiguous, *other.ambiguous)}
        return _Lack(tuple(inputs.values()), tuple(models.values()), self.circular or other.circular)


@dataclass(frozen=True, slots=True)
class _Binding:
    """What one call of a nested model gives to one of the model's inputs."""

    call: Call
    inner: Tensor
    outer: Tensor
    mask: Tensor | None
    """The `mask` argument, where the model was called with one."""
    phase: bool | None
    """The `training` argument."""

    @property
    def tensors(self) -> list[Tensor]:
        """What must be known to enter the model here."""
        return [self.outer] if self.mask is None else [self.outer, self.mask]


class _Connection:
    """The walk behind `connect`: `_found` says where each tensor's value comes from, or what it lacks."""

    def __init__(self, given: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
        self._given, self._wanted = given, wanted
        self._identity = Identities()
        self._positions = {self._identity(tensor): position for position, tensor in enumerate(given)}
        if len(self._positions) < len(given):
            raise UsageError(f"one tensor is given twice: {', '.join(map(describe, given))}; name each once.")
        self._steps: list[Step] = []
        self._numbers: dict[Hashable, int] = {}
        self._found: dict[int, Ref | _Lack] = {}
        ends = [*given, *wanted]
        starts = {id(operation_of(tensor)) for tensor in after_needs(ends, parents) if not parents(tensor)}
        calls = _nested_calls(ends)
        self._within = {id(call.operation): operations_within(call.operation) for call in calls}
        self._open = {
            model for model, inside in self._within.items() if not starts.isdisjoint(map(id, inside))
        }
        self._entrances: dict[int, list[_Binding]] = {}
        for call in calls:
            for binding in _bindings(call):
                # A model called on what is computed from its own input does not give that input its value.
                if all(tensor is not binding.inner for tensor in after_needs([binding.outer], parents)):
                    self._entrances.setdefault(id(binding.inner), []).append(binding)
        for tensor in after_needs(wanted, self._needs):
            self._found[id(tensor)] = self._resolve(tensor)

    def lack(self, tensors: Iterable[Tensor]) -> _Lack:
        """All that some tensors lack."""
        total = _Lack()
        for tensor in tensors:
            found = self._found.get(id(tensor), _Lack(circular=True))
            if isinstance(found, _Lack):
                total += found
        return total

    def plan(self) -> Plan:
        """The steps that the wanted tensors need, and no others."""
        for tensor in self._wanted:
            if self.lack([tensor]):
                raise UsageError(self._refusal(tensor))
        wanted = self._refs(self._wanted)
        assert not isinstance(wanted, _Lack)
        needed = {number for number, _ in wanted}
        for number in range(len(self._steps) - 1, -1, -1):
            if number in needed:
                needed.update(of for of, _ in self._steps[number].needs)
        steps = {number: self._steps[number] for number in sorted(needed)}
        self._refuse_two_exits(steps.values())
        return Plan(steps, wanted).in_phase(self._phases(steps.values()))

    def _needs(self, tensor: Tensor) -> Sequence[Tensor]:
        """What must be known before `_resolve` can say where a tensor's value comes from."""
        position = self._positions.get(self._identity(tensor))
        if position is not None:
            mask = get_mask(self._given[position])
            return [] if mask is None else [mask]
        call, index = call_of(tensor)
        if call is None:
            return [each for binding in self._entrances.get(id(tensor), []) for each in binding.tensors]
        if id(call.operation) in self._open:
            return [call.operation.outputs[index], *call.input_tensors]
        return parents(tensor)

    def _resolve(self, tensor: Tensor) -> Ref | _Lack:
        position = self._positions.get(self._identity(tensor))
        if position is not None:
            refs = self._refs(self._needs(tensor))
            return refs if isinstance(refs, _Lack) else self._add(("feed", position), Feed(refs, position))
        call, index = call_of(tensor)
        if call is None:
            return self._enter(tensor)
        inside = self._leave(call, index) if id(call.operation) in self._open else None
        if inside is not None:
            return inside
        refs = self._refs(call.input_tensors)
        return refs if isinstance(refs, _Lack) else self._add(call_key(call, refs), Make(refs, call), index)

    def _enter(self, inner: Tensor) -> Ref | _Lack:
        """The value of an input that is not given: what the only possible call of its model gives it."""
        possible: dict[Hashable, Enter] = {}
        total = _Lack()
        for binding in self._entrances.get(id(inner), []):
            refs = self._refs(binding.tensors)
            if isinstance(refs, _Lack):
                total += replace(refs, ambiguous=(binding.call.operation,)) if refs.circular else refs
            else:
                possible.setdefault((refs, binding.phase), Enter(refs, binding.call, inner))
        if len(possible) > 1:
            total += _Lack(ambiguous=tuple(step.call.operation for step in possible.values()))
        if total.ambiguous:
            return _Lack(ambiguous=total.ambiguous)
        for key, step in possible.items():
            return self._add(("enter", id(inner), key), step)
        return total or _Lack(inputs=(inner,))

    def _leave(self, call: Call, index: int) -> Ref | None:
        """The value that the call of an opened model gives; None if what is known inside is not its own."""
        refs = self._refs([call.operation.outputs[index]])
        if isinstance(refs, _Lack) or not all(map(self._belongs, _bindings(call))):
            return None
        return self._add(("leave", self._identity(call.outputs[0]), refs), Leave(refs, call))

    def _belongs(self, binding: _Binding) -> bool:
        """Whether the value of a model's input, if it has one, is what this call gives it."""
        inner, outer = self._found.get(id(binding.inner)), self._found.get(id(binding.outer))
        if not isinstance(inner, tuple):
            return True
        step = self._steps[inner[0]]
        if not isinstance(outer, tuple):
            return isinstance(step, Feed)  # given inside, in place of what the call would have brought
        return inner == outer or (isinstance(step, Enter) and step.needs[0] == outer)

    def _refs(self, tensors: Sequence[Tensor]) -> tuple[Ref, ...] | _Lack:
        """Where the values of some tensors come from, or all that they lack."""
        found = [self._found.get(id(tensor)) for tensor in tensors]
        refs = tuple(each for each in found if isinstance(each, tuple))
        return refs if len(refs) == len(found) else self.lack(tensors)

    def _add(self, key: Hashable, step: Step, index: int = 0) -> Ref:
        number = self._numbers.setdefault(key, len(self._steps))
        if number == len(self._steps):
            self._steps.append(step)
        return number, index

    def _refuse_two_exits(self, steps: Iterable[Step]) -> None:
        """A tensor given inside a model that is called twice would stand in for itself in both calls."""
        exits: dict[int, int] = {}
        for step in steps:
            if isinstance(step, Leave):
                identity = self._identity(step.call.outputs[0])
                if exits.setdefault(id(step.call.operation), identity) != identity:
                    raise UsageError(_several_calls("what is given inside", step.call.operation))

    def _phases(self, steps: Iterable[Step]) -> dict[int, bool]:
        """By `id(operation)`: the phase in which the opened model around it is called, where one is set."""
        calls = {id(s.call.operation): s.call for s in steps if isinstance(s, (Enter, Leave))}
        outermost_last = sorted(calls, key=lambda model: len(self._within[model]))
        phases: dict[int, bool] = {}
        for model in outermost_last:
            phase = _phase(calls[model])
            if phase is not None:
                phases.update((id(operation), phase) for operation in self._within[model])
        return phases

    def _refusal(self, tensor: Tensor) -> str:
        """Why a wanted tensor cannot be computed, and what to do."""
        lack = self.lack([tensor])
        if lack.circular and not lack.inputs:
            lack = self.lack(self._wanted)  # what it lacks was found out after it
        if lack.ambiguous and not lack.inputs:
            return _several_calls(describe(tensor), lack.ambiguous[0])
        return (
            f"{describe(tensor)} cannot be computed from the given inputs alone: it also depends on "
            f"{' and '.join(map(describe, lack.inputs))}, so add that to `inputs`. "
            f"Received: {', '.join(map(describe, self._given)) or 'no inputs'}."
        )


def _several_calls(what: str, model: Any) -> str:
    return (
        f"{what} is ambiguous, because model {model.name!r}, in which it lies, is called more than once: "
        f"give the inputs of {model.name!r} itself, or those of a model that calls it once."
    )


def _nested_calls(tensors: Iterable[Tensor]) -> list[Call]:
    """Every call of a nested model in the graphs of the tensors, before, after or beside them."""
    calls: dict[int, Call] = {}
    seen: set[int] = set()
    todo = [operation_of(tensor) for tensor in tensors]
    while todo:
        operation = todo.pop()
        if operation is None or id(operation) in seen:
            continue
        seen.add(id(operation))
        for call in calls_around(operation):
            todo += [call.operation, *map(operation_of, call.input_tensors)]
            if is_graph(call.operation):
                calls[id(call)] = call
                todo += map(operation_of, [*call.operation.inputs, *call.operation.outputs])
    return list(calls.values())


def _bindings(call: Call) -> list[_Binding]:
    """What a call of a nested model gives to each of the model's inputs."""
    model = call.operation
    args, kwargs = arguments(call, call.input_tensors)
    given = args[0] if args else kwargs["inputs"]
    if isinstance(given, dict) and not isinstance(model.input, dict):
        given = [given.get(inner.name) for inner in model.inputs]
    outers = keras.tree.flatten(given)
    masks = keras.tree.flatten(kwargs.get("mask"))
    if len(masks) != len(outers):
        masks = [None] * len(outers)
    return [
        _Binding(call, inner, outer, mask, _phase(call))
        for inner, outer, mask in zip(model.inputs, outers, masks, strict=True)
        if isinstance(outer, keras.KerasTensor)
    ]


def _phase(call: Call) -> bool | None:
    """The `training` argument of a call."""
    phase: bool | None = arguments(call, call.input_tensors)[1].get("training")
    return phase
