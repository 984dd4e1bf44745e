"""Straight-line byte code -> the Python expression it was compiled from, as an `ast` tree.

A stack machine whose values are pieces of syntax: `LOAD_FAST x` pushes the name x, `BINARY_MULTIPLY` pops two
pieces and pushes their product. Nothing is evaluated. A loop, a branch, an inner function or any opcode that
is not in the tables at the foot ends it with `Stop`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from layerprobe.modelfile.lambdas.instructions import MAX_INSTRUCTIONS, Instruction, instructions
from layerprobe.modelfile.lambdas.machine import BINARY, Machine, Null, Stop
from layerprobe.modelfile.lambdas.unmarshal import BadCode, Code


def decompile(code: Code, version: tuple[int, int]) -> ast.expr:
    """Give the expression that the function returns; its arguments and globals stay names.

    Raises:
        BadCode: The code cannot have been compiled by this version.
        Stop: It does more than return one expression.
    """
    machine = Machine(code, version)
    resumed = version < (3, 11)
    for count, instruction in enumerate(instructions(code.code, version)):
        if machine.result is not None:
            raise Stop("it goes on after its first return")
        if count > MAX_INSTRUCTIONS:
            raise Stop(f"it has more than {MAX_INSTRUCTIONS} instructions")
        resumed = resumed or instruction.name == "RESUME"
        if not resumed and instruction.name not in _BEFORE_RESUME:
            raise BadCode("the function does not begin as this version's do")
        _step(machine, instruction)
    if machine.result is None:
        raise BadCode("the function does not return")
    return machine.result


def _step(machine: Machine, instruction: Instruction) -> None:
    """Carry out one instruction, or raise Stop or BadCode."""
    name, argument = instruction.name, instruction.argument
    if name in BINARY:
        machine.binary(BINARY[name]())
    elif name in ("BINARY_DIVIDE", "INPLACE_DIVIDE"):
        machine.divide_as_python_2()
    elif name in _HANDLERS:
        _HANDLERS[name](machine, argument)
    else:
        raise Stop(_reason(name))


def _subscript(machine: Machine, _: int) -> None:
    (value, key), nodes = machine.pop_many(2)
    machine.push(ast.Subscript(value, key), nodes + 1)


def _build_slice(machine: Machine, count: int) -> None:
    if count not in (2, 3):
        raise BadCode("a slice has two or three parts")
    bounds, nodes = machine.pop_many(count)
    machine.push(_slice(*bounds), nodes + 1)


def _binary_slice(machine: Machine, _: int) -> None:
    (value, start, stop), nodes = machine.pop_many(3)
    machine.push(ast.Subscript(value, _slice(start, stop)), nodes + 2)


def _slice_2(machine: Machine, has_start: bool, has_stop: bool) -> None:
    """Python 2's SLICE+0 to SLICE+3 (xdis writes SLICE_0): `v[:]`, `v[a:]`, `v[:b]`, `v[a:b]`."""
    (value, *bounds), nodes = machine.pop_many(1 + has_start + has_stop)
    start = bounds.pop(0) if has_start else None
    machine.push(ast.Subscript(value, ast.Slice(start, bounds[0] if bounds else None)), nodes + 2)


def _build_tuple(machine: Machine, count: int) -> None:
    items, nodes = machine.pop_many(count)
    machine.push(ast.Tuple(items), nodes + 1)


def _build_list(machine: Machine, count: int) -> None:
    items, nodes = machine.pop_many(count)
    machine.push(ast.List(items), nodes + 1)


def _extend_list(machine: Machine, _: int) -> None:
    """`[1, 2, 3]` from 3.9 on: an empty list that is extended with a constant tuple."""
    (target, more), nodes = machine.pop_many(2)
    if not isinstance(target, ast.List) or not isinstance(more, ast.Tuple | ast.List):
        raise Stop("it unpacks a list")
    machine.push(ast.List([*target.elts, *more.elts]), nodes)


def _unpack(machine: Machine, count: int) -> None:
    if count > machine.code.stack_size:
        raise BadCode("the stack is higher than the function says")
    piece, nodes = machine.pop()
    if isinstance(piece, ast.Tuple | ast.List):
        if len(piece.elts) != count:
            raise Stop("it unpacks a tuple of another length")
        parts = list(piece.elts)
    else:
        parts = [ast.Subscript(piece, ast.Constant(place)) for place in range(count)]
    for part in reversed(parts):
        machine.push(part, nodes + 2)


def _load_module(machine: Machine, index: int) -> None:
    """`import a.b` gives a, `import a.b as c` takes b off it, `from a.b import c` gives a.b."""
    (_, members), _ = machine.pop_many(2)
    first, *rest = machine.name(machine.code.names, index).split(".")
    module: ast.expr = ast.Name(first)
    for member in rest if isinstance(members, ast.Tuple) else ():
        module = ast.Attribute(module, member)
    machine.push(module, 1 + len(rest))


def _load_member(machine: Machine, index: int) -> None:
    piece, nodes = machine.pop()
    machine.push(piece, nodes)
    machine.push(ast.Attribute(piece, machine.name(machine.code.names, index)), nodes + 1)


def _rotate(machine: Machine, count: int) -> None:
    top = machine.pop()
    if count - 1 > len(machine.stack):
        raise BadCode("the stack is empty")
    machine.stack.insert(len(machine.stack) - count + 1, top)


def _swap(machine: Machine, count: int) -> None:
    if not 2 <= count <= len(machine.stack):
        raise BadCode("the stack is empty")
    machine.stack[-1], machine.stack[-count] = machine.stack[-count], machine.stack[-1]


def _copy(machine: Machine, count: int) -> None:
    if not 1 <= count <= len(machine.stack):
        raise BadCode("the stack is empty")
    machine.push(*machine.stack[-count])


def _drop(machine: Machine, _: int) -> None:
    piece, _ = machine.pop()
    if any(isinstance(node, ast.Call) for node in ast.walk(piece)):
        raise Stop(f"it calls {ast.unparse(piece)[:80]} and drops the result")


def _finish(machine: Machine, _: int) -> None:
    machine.result, _ = machine.pop()
    if machine.stack:
        raise BadCode("the function leaves values on the stack")


def _finish_constant(machine: Machine, index: int) -> None:
    machine.load_constant(index)
    _finish(machine, index)


def _load_two(machine: Machine, argument: int) -> None:
    machine.load_local(argument >> 4)
    machine.load_local(argument & 15)


def _store_and_load(machine: Machine, argument: int) -> None:
    machine.store_local(argument >> 4)
    machine.load_local(argument & 15)


def _store_two(machine: Machine, argument: int) -> None:
    machine.store_local(argument >> 4)
    machine.store_local(argument & 15)


def _intrinsic(machine: Machine, number: int) -> None:
    if number not in (5, 6):
        raise Stop("it imports, prints or defines types")
    if number == 6:
        _list_to_tuple(machine, 0)
    else:
        machine.unary(ast.UAdd())


def _list_to_tuple(machine: Machine, _: int) -> None:
    piece, nodes = machine.pop()
    if not isinstance(piece, ast.List):
        raise Stop("it makes a tuple of something unknown")
    machine.push(ast.Tuple(piece.elts), nodes)


def _slice(start: ast.expr, stop: ast.expr, step: ast.expr | None = None) -> ast.Slice:
    bounds = (
        None if isinstance(bound, ast.Constant) and bound.value is None else bound
        for bound in (start, stop, step)
    )
    return ast.Slice(*bounds)


def _reason(name: str) -> str:
    if "JUMP" in name or name in ("FOR_ITER", "SEND", "SETUP_LOOP", "GET_ITER"):
        return "it has a branch or a loop"
    if name.startswith(("STORE_", "DELETE_")):
        return f"it changes something outside itself ({name})"
    if name in ("MAKE_FUNCTION", "MAKE_CLOSURE", "LOAD_CLOSURE", "MAKE_CELL"):
        return "it defines an inner function"
    return f"it needs the instruction {name}"


_BEFORE_RESUME = ("COPY_FREE_VARS", "MAKE_CELL", "POP_TOP", "RETURN_GENERATOR")
_HANDLERS: dict[str, Callable[[Machine, int], None]] = {
    "BINARY_OP": Machine.binary_operation,
    "BINARY_SLICE": _binary_slice,
    "BINARY_SUBSCR": _subscript,
    "BUILD_LIST": _build_list,
    "BUILD_SLICE": _build_slice,
    "BUILD_TUPLE": _build_tuple,
    "CALL": Machine.call,
    "CALL_FUNCTION": Machine.call,
    "CALL_FUNCTION_KW": Machine.call_with_names,
    "CALL_INTRINSIC_1": _intrinsic,
    "CALL_KW": Machine.call_with_names,
    "CALL_METHOD": Machine.call,
    "COMPARE_OP": Machine.compare,
    "COPY": _copy,
    "COPY_FREE_VARS": lambda machine, _: None,
    "DUP_TOP": lambda machine, _: _copy(machine, 1),
    "IMPORT_FROM": _load_member,
    "IMPORT_NAME": _load_module,
    "KW_NAMES": Machine.name_keywords,
    "LIST_EXTEND": _extend_list,
    "LIST_TO_TUPLE": _list_to_tuple,
    "LOAD_ATTR": Machine.load_attribute,
    "LOAD_CONST": Machine.load_constant,
    "LOAD_DEREF": Machine.load_free,
    "LOAD_FAST": Machine.load_local,
    "LOAD_FAST_CHECK": Machine.load_local,
    "LOAD_FAST_LOAD_FAST": _load_two,
    "LOAD_GLOBAL": Machine.load_global,
    "LOAD_METHOD": Machine.load_method,
    "NOP": lambda machine, _: None,
    "POP_TOP": _drop,
    "PRECALL": lambda machine, _: None,
    "PUSH_NULL": lambda machine, _: machine.push(Null()),
    "RESUME": lambda machine, _: None,
    "RETURN_CONST": _finish_constant,
    "RETURN_VALUE": _finish,
    "ROT_FOUR": lambda machine, _: _rotate(machine, 4),
    "ROT_THREE": lambda machine, _: _rotate(machine, 3),
    "ROT_TWO": lambda machine, _: _rotate(machine, 2),
    "SLICE_0": lambda machine, _: _slice_2(machine, False, False),
    "SLICE_1": lambda machine, _: _slice_2(machine, True, False),
    "SLICE_2": lambda machine, _: _slice_2(machine, False, True),
    "SLICE_3": lambda machine, _: _slice_2(machine, True, True),
    "STORE_FAST": Machine.store_local,
    "STORE_FAST_LOAD_FAST": _store_and_load,
    "STORE_FAST_STORE_FAST": _store_two,
    "SWAP": _swap,
    "UNARY_NEGATIVE": lambda machine, _: machine.unary(ast.USub()),
    "UNARY_NOT": lambda machine, _: machine.unary(ast.Not()),
    "UNARY_POSITIVE": lambda machine, _: machine.unary(ast.UAdd()),
    "UNPACK_SEQUENCE": _unpack,
}
"""Every instruction that a straight-line expression can need, over all versions."""
