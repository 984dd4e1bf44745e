"""Layer addresses and patterns, as the user writes them -> the places to record.

::

    conv5_3               a layer, by its exact address
    backbone/conv1        a layer of a nested model
    conv1                 ... by its bare name, where only one layer has it
    conv5_*   **/conv*    a glob: `*` and `?` stay within a name, `**` crosses "/"
    re:conv[45]_3$        a regular expression, found anywhere in the address
    class:Conv2D          every layer of a class
    #3   #-1              model.layers[3], model.layers[-1]
    output                the model's own output, or outputs

    in:conv1              what goes into the layer
    pre:predictions       the value before the layer's fused activation, such as logits
    lstm:1                the second of the layer's output tensors
    encoder@1             the second call of a shared layer, in the order the model was built
    in:encoder@1:0        all together

A text that is exactly a layer's address always means that layer. Without `@` and `:`, all calls and all
tensors are meant. Patterns pass over layers that cannot be extracted; naming such a layer is an error.
"""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Sequence
from typing import cast

from layerprobe.errors import UnknownLayerError, UnrecordableLayerError, UsageError
from layerprobe.records import LayerInfo, Tap, TapKind

_PREFIXES: dict[str, TapKind] = {"in": "input", "pre": "preactivation"}
_SUFFIXES = re.compile(r"(?P<pattern>.*?)(?:@(?P<call>\d+))?(?::(?P<output>\d+))?", re.DOTALL)


def select(texts: Sequence[str], layers: Sequence[LayerInfo]) -> tuple[Tap, ...]:
    """Resolve what the user asked for, in the order asked for; what is named twice is taken once.

    Args:
        texts: Addresses and patterns, in the grammar above.
        layers: Every layer of the model.

    Raises:
        UnknownLayerError: A text matches no layer, or a bare name matches several.
        UnrecordableLayerError: A named layer cannot be extracted.
        UsageError: A text is not in the grammar.
    """
    taps = dict.fromkeys(tap for text in texts for tap in _taps(text, layers))
    return tuple(taps)


def match(text: str, layers: Sequence[LayerInfo]) -> list[LayerInfo]:
    """The layers that one address or pattern means; those with a problem are included.

    Raises:
        UnknownLayerError: It matches no layer, or a bare name matches several.
        UsageError: A regular expression or an index is malformed.
    """
    return [layer for layer in layers if layer.address == text] or _match_pattern(text, layers)


def _taps(text: str, layers: Sequence[LayerInfo]) -> list[Tap]:
    kind, pattern, call, output = _parse(text, layers)
    if pattern == "output" and not any(layer.address == "output" for layer in layers):
        if kind != "output" or call is not None:
            raise UsageError(
                f"{text!r}: `output` is the model's result, not a layer: name its last layer instead."
            )
        return [Tap("", "output", None, output)]
    found = match(pattern, layers)
    usable = [layer for layer in found if layer.problem is None]
    if not usable or (len(usable) < len(found) and not _is_pattern(pattern)):
        raise UnrecordableLayerError(f"layer {found[0].address!r} cannot be extracted: {found[0].problem}.")
    for layer in usable:
        if call is not None and call >= layer.calls > 1:
            raise UnknownLayerError(
                f"{text!r}: layer {layer.address!r} is called {layer.calls} times, @0 to @{layer.calls - 1}."
            )
    return [Tap(layer.address, kind, call, output) for layer in usable]


def _parse(text: str, layers: Sequence[LayerInfo]) -> tuple[TapKind, str, int | None, int | None]:
    """Split a text into kind, pattern, call and output; an exact address is never split."""
    addresses = {layer.address for layer in layers}
    kind: TapKind = "output"
    head, colon, rest = text.partition(":")
    if colon and head in _PREFIXES and text not in addresses:
        kind, text = _PREFIXES[head], rest
    if text in addresses or text.startswith("re:"):
        return kind, text, None, None
    parts = _SUFFIXES.fullmatch(text)
    assert parts is not None  # every text matches: the suffixes are optional
    call, output = (None if digits is None else int(digits) for digits in parts.group("call", "output"))
    return kind, parts["pattern"], call, output


def _is_pattern(text: str) -> bool:
    return text.startswith(("re:", "class:")) or bool(re.search(r"[*?\[]", text))


def _match_pattern(text: str, layers: Sequence[LayerInfo]) -> list[LayerInfo]:
    if text.startswith("#"):
        return [_at_index(text, layers)]
    if text.startswith("class:"):
        found = [layer for layer in layers if layer.class_name == text[len("class:") :]]
        names = [layer.class_name for layer in layers]
        return found or _fail(text, names, "no layer is of that class", prefix="class:")
    if _is_pattern(text):
        expression = _compile(text)
        found = [layer for layer in layers if expression.search(layer.address)]
    else:
        found = [layer for layer in layers if layer.address.endswith("/" + text)]
        if len(found) > 1:
            candidates = ", ".join(layer.address for layer in found)
            raise UnknownLayerError(
                f"{text!r} is the name of {len(found)} layers: say which of {candidates}."
            )
    what = "no layer matches" if _is_pattern(text) else "no layer has that name"
    return found or _fail(text, [layer.address for layer in layers], what)


def _at_index(text: str, layers: Sequence[LayerInfo]) -> LayerInfo:
    numbered = sorted(
        (layer for layer in layers if layer.index is not None), key=lambda layer: cast(int, layer.index)
    )
    try:
        return numbered[int(text[1:])]
    except ValueError:
        raise UsageError(
            f"{text!r} is not an index: expected # and a whole number, as in #3 or #-1."
        ) from None
    except IndexError:
        last = len(numbered) - 1
        raise UnknownLayerError(f"{text!r} is out of range: the model's layers are #0 to #{last}.") from None


def _compile(text: str) -> re.Pattern[str]:
    if not text.startswith("re:"):
        return re.compile(_glob_to_regex(text), re.DOTALL)
    try:
        return re.compile(text[len("re:") :])
    except re.error as error:
        raise UsageError(f"{text!r} is not a regular expression: {error}.") from None


def _glob_to_regex(glob: str) -> str:
    """`*`, `?` and `[...]` as in a shell; "/" separates names and `**` crosses it."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", glob)
    rules = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    turned = [
        rules.get(piece)
        or (_character_set(piece) if piece.startswith("[") and len(piece) > 2 else re.escape(piece))
        for piece in pieces
    ]
    return r"\A" + "".join(turned) + r"\Z"


def _character_set(piece: str) -> str:
    content = piece[1:-1].replace("\\", "\\\\")
    return f"[^{content[1:]}]" if content.startswith("!") else f"[{content}]"


def _fail(text: str, names: Sequence[str], what: str, prefix: str = "") -> list[LayerInfo]:
    """Raise, naming the three closest; a nested layer's bare name counts as much as its address."""
    wanted = text.removeprefix(prefix)

    def likeness(name: str) -> float:
        return max(
            difflib.SequenceMatcher(None, wanted, part).ratio() for part in (name, name.rsplit("/", 1)[-1])
        )

    closest = ", ".join(prefix + name for name in heapq.nlargest(3, dict.fromkeys(names), key=likeness))
    raise UnknownLayerError(
        f"{text!r}: {what}; the closest are {closest or '(the model has no layers)'}: "
        "`layerprobe layers MODEL` lists all of them."
    )
