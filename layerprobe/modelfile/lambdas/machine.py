"""A stack machine whose values are pieces of Python syntax; nothing is evaluated."""

from __future__ import annotations

import ast
from typing import Any

from layerprobe.modelfile.lambdas.unmarshal import BadCode, Code, Opaque

MAX_NODES = 2_000
"""Of one expression, shared parts counted as often as they are used."""


class Stop(Exception):
    """The code is valid, but is no straight-line expression; the reason is a clause for a sentence."""


class Null(ast.expr):
    """The empty slot that newer Pythons push beside a callable."""


class Machine:
    """Syntax instead of values: variables, constants, operators and calls."""

    def __init__(self, code: Code, version: tuple[int, int]) -> None:
        self.result: ast.expr | None = None
        self.version = version
        self.code = code
        self.stack: list[tuple[ast.expr, int]] = []
        """Each piece with the number of its nodes."""
        self._keywords: tuple[str, ...] = ()
        self._local: dict[str, tuple[ast.expr, int]] = {}

    def push(self, piece: ast.expr, nodes: int = 1) -> None:
        """Put a piece with that many nodes on the stack."""
        if nodes > MAX_NODES:
            raise Stop(f"its expression has more than {MAX_NODES} parts")
        if len(self.stack) >= self.code.stack_size:
            raise BadCode("the stack is higher than the function says")
        self.stack.append((piece, nodes))

    def pop(self) -> tuple[ast.expr, int]:
        """Take the topmost piece and its number of nodes."""
        if not self.stack:
            raise BadCode("the stack is empty")
        return self.stack.pop()

    def pop_many(self, count: int) -> tuple[list[ast.expr], int]:
        """The topmost pieces in the order they were pushed, and their nodes together."""
        if count > len(self.stack):
            raise BadCode("the stack is empty")
        taken = [self.stack.pop() for _ in range(count)][::-1]
        return [piece for piece, _ in taken], sum(nodes for _, nodes in taken)

    def name(self, table: tuple[str, ...], index: int) -> str:
        """Look a name up in one of the tables of the code object."""
        if index >= len(table):
            raise BadCode("a name is missing")
        return table[index]

    def constant_value(self, index: int) -> Any:
        """Look a constant up."""
        if index >= len(self.code.constants):
            raise BadCode("a constant is missing")
        return self.code.constants[index]

    def binary(self, operator: ast.operator) -> None:
        """Join the two topmost pieces."""
        (left, right), nodes = self.pop_many(2)
        self.push(ast.BinOp(left, operator, right), nodes + 1)

    def divide_as_python_2(self) -> None:
        """Python 2's `/` without `from __future__ import division`: whole numbers stay whole."""
        whole = len(self.stack) > 1 and all(_is_whole(piece) for piece, _ in self.stack[-2:])
        self.binary(ast.FloorDiv() if whole else ast.Div())

    def unary(self, operator: ast.unaryop) -> None:
        """Put an operator before the topmost piece."""
        piece, nodes = self.pop()
        self.push(ast.UnaryOp(operator, piece), nodes + 1)

    def compare(self, index: int) -> None:
        """COMPARE_OP; newer versions keep flags in the lowest bits."""
        index >>= {(3, 12): 4, (3, 13): 5}.get(self.version, 0)
        if index >= len(_COMPARISONS):
            raise Stop("it tests membership or identity")
        (left, right), nodes = self.pop_many(2)
        self.push(ast.Compare(left, [_COMPARISONS[index]()], [right]), nodes + 1)

    def binary_operation(self, index: int) -> None:
        """BINARY_OP, which numbers the operators."""
        if index >= len(_NUMBERED):
            raise BadCode("an operator is missing")
        self.binary(_NUMBERED[index]())

    def load_constant(self, index: int) -> None:
        """LOAD_CONST."""
        piece, nodes = literal(self.constant_value(index))
        self.push(piece, nodes)

    def load_local(self, index: int) -> None:
        """LOAD_FAST: an argument stays a name, a local variable is what was stored in it."""
        name = self.name(self.code.locals, index)
        inputs = self.code.locals[: self.code.argument_count + self.code.keyword_only_count]
        if name not in self._local and name not in inputs:
            raise Stop(f"it uses {name} before it has a value")
        self.push(*self._local.get(name, (ast.Name(name), 1)))

    def store_local(self, index: int) -> None:
        """STORE_FAST."""
        self._local[self.name(self.code.locals, index)] = self.pop()

    def load_free(self, index: int) -> None:
        """LOAD_DEREF: a variable of the outer function stays a name."""
        table = self.code.locals if self.version >= (3, 11) else self.code.cells
        name = self.name(table, index)
        if name not in self.code.free:
            raise Stop(f"an inner function uses {name}")
        self.push(ast.Name(name))

    def load_global(self, argument: int) -> None:
        """LOAD_GLOBAL: a name; from 3.11 on the lowest bit asks for an empty slot."""
        flagged = self.version >= (3, 11) and argument & 1
        name = self.name(self.code.names, argument >> 1 if self.version >= (3, 11) else argument)
        if self.version < (3, 0) and name in ("True", "False"):
            self.push(ast.Constant(name == "True"))
        else:
            self.push_callable(ast.Name(name), 1, bool(flagged))

    def load_attribute(self, argument: int) -> None:
        """LOAD_ATTR; from 3.12 on the lowest bit marks a method."""
        split = self.version >= (3, 12)
        name = self.name(self.code.names, argument >> 1 if split else argument)
        piece, nodes = self.pop()
        self.push_callable(ast.Attribute(piece, name), nodes + 1, split and bool(argument & 1))

    def load_method(self, argument: int) -> None:
        """LOAD_METHOD, of 3.7 to 3.11."""
        name = self.name(self.code.names, argument)
        piece, nodes = self.pop()
        self.push_callable(ast.Attribute(piece, name), nodes + 1, self.version == (3, 11))

    def push_callable(self, piece: ast.expr, nodes: int, with_null: bool) -> None:
        """The empty slot stands below the callable in 3.11 and 3.12, above it in 3.13."""
        if with_null and self.version < (3, 13):
            self.push(Null())
        self.push(piece, nodes)
        if with_null and self.version >= (3, 13):
            self.push(Null())

    def call(self, argument: int) -> None:
        """CALL_FUNCTION and CALL_METHOD up to 3.10; CALL from 3.11 on."""
        if self.version < (3, 6):
            pairs, nodes = self.pop_many(2 * (argument >> 8))
            keywords = [
                ast.keyword(_text(key), value) for key, value in zip(pairs[::2], pairs[1::2], strict=True)
            ]
            self.finish_call(argument & 0xFF, keywords, nodes)
            return
        names, self._keywords = self._keywords, ()
        values, nodes = self.pop_many(len(names))
        keywords = [ast.keyword(key, value) for key, value in zip(names, values, strict=True)]
        self.finish_call(argument - len(names), keywords, nodes)

    def call_with_names(self, argument: int) -> None:
        """CALL_FUNCTION_KW and, in 3.13, CALL_KW: the names of the keywords are on top."""
        names, _ = self.pop()
        self._keywords = tuple(_text(name) for name in getattr(names, "elts", ()))
        self.call(argument)

    def name_keywords(self, index: int) -> None:
        """KW_NAMES, of 3.11 and 3.12: the next call takes its last arguments by these names."""
        names = self.constant_value(index)
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise BadCode("keywords are not names")
        self._keywords = names

    def finish_call(self, positional: int, keywords: list[ast.keyword], nodes: int) -> None:
        """Take the positional arguments and the function, and push the call."""
        if positional < 0:
            raise BadCode("a call has fewer arguments than keywords")
        arguments, more = self.pop_many(positional)
        below, function_nodes = self.pop_many(2 if self.version >= (3, 11) else 1)
        functions = [piece for piece in below if not isinstance(piece, Null)]
        if len(functions) != 1:
            raise BadCode("a call has no function")
        self.push(ast.Call(functions[0], arguments, keywords), nodes + more + function_nodes + 1)


def literal(value: Any) -> tuple[ast.expr, int]:
    """A constant of a code object, or of JSON, as syntax, and the number of its nodes.

    Raises:
        Stop: It is something that an expression cannot hold, or larger than `MAX_NODES`.
    """
    if isinstance(value, tuple | list):
        items: list[ast.expr] = []
        total = 1
        for item in value:
            piece, nodes = literal(item)
            items.append(piece)
            total += nodes
            if total > MAX_NODES:
                raise Stop("a constant of it is too large")
        return (ast.Tuple(items) if isinstance(value, tuple) else ast.List(items)), total
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, Code):
        raise Stop("it defines an inner function")
    if isinstance(value, Opaque) or not isinstance(value, bool | int | float | str | type(None) | type(...)):
        raise Stop(f"it contains {value.kind if isinstance(value, Opaque) else 'an unknown constant'}")
    return ast.Constant(value), 1


def _is_whole(piece: ast.expr) -> bool:
    """Whether a piece is a whole number for certain: a constant, a size, arithmetic of these."""
    if isinstance(piece, ast.Constant):
        return type(piece.value) is int
    if isinstance(piece, ast.BinOp):
        return not isinstance(piece.op, ast.Div) and _is_whole(piece.left) and _is_whole(piece.right)
    return isinstance(piece, ast.Subscript) and _is_shape(piece.value)


def _is_shape(piece: ast.expr) -> bool:
    if isinstance(piece, ast.Call):
        piece = piece.func
    if isinstance(piece, ast.Attribute) and piece.attr == "as_list":
        return _is_shape(piece.value)
    name = piece.attr if isinstance(piece, ast.Attribute) else getattr(piece, "id", "")
    return name in ("shape", "int_shape", "get_shape")


def _text(piece: ast.expr) -> str:
    if not isinstance(piece, ast.Constant) or not isinstance(piece.value, str):
        raise BadCode("a keyword is not a name")
    return piece.value


BINARY: dict[str, type[ast.operator]] = {
    f"{prefix}_{name}": operator
    for prefix in ("BINARY", "INPLACE")
    for name, operator in (
        ("ADD", ast.Add),
        ("SUBTRACT", ast.Sub),
        ("MULTIPLY", ast.Mult),
        ("TRUE_DIVIDE", ast.Div),
        ("FLOOR_DIVIDE", ast.FloorDiv),
        ("MODULO", ast.Mod),
        ("POWER", ast.Pow),
        ("MATRIX_MULTIPLY", ast.MatMult),
        ("AND", ast.BitAnd),
        ("OR", ast.BitOr),
    )
}
_NUMBERED: tuple[type[ast.operator], ...] = (
    *(ast.Add, ast.BitAnd, ast.FloorDiv, ast.LShift, ast.MatMult, ast.Mult, ast.Mod),
    *(ast.BitOr, ast.Pow, ast.RShift, ast.Sub, ast.Div, ast.BitXor),
) * 2
"""The argument of BINARY_OP, from 3.11 on: NB_ADD ... NB_XOR, then the same in place."""
_COMPARISONS = (ast.Lt, ast.LtE, ast.Eq, ast.NotEq, ast.Gt, ast.GtE)
