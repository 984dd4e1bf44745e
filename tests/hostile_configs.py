"""Configs that try to run code, read other files or exhaust the machine."""

from __future__ import annotations

import base64
import marshal
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from small_models import Layer, around, dense, document, layer


def payload(marker: Path) -> str:
    """Byte code of this very Python that touches the marker when it is run, in base64."""
    source = f"lambda x: [x, __import__('pathlib').Path({str(marker)!r}).touch()][0]"
    code = next(c for c in compile(source, "x", "eval").co_consts if isinstance(c, types.CodeType))
    return base64.b64encode(marshal.dumps(code)).decode()


def function(module: str, name: str) -> dict[str, Any]:
    """A function by its name, as Keras 3 files it."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}


def byte_code(code: str) -> dict[str, Any]:
    """A lambda, as Keras 3 files it."""
    return {"class_name": "__lambda__", "config": {"code": code, "defaults": None, "closure": None}}


def layers_that_run_code(folder: Path, marker: Path) -> Iterator[tuple[str, Layer, str]]:
    """(name, layer, a word of the refusal)."""
    code = payload(marker)
    secret = str(folder / "outside.txt")
    lambda_ = layer("Lambda", "middle", function=byte_code(code))
    inner = {"name": "middle", "layers": [layer("InputLayer", "in", batch_shape=[None, 3]), lambda_]}
    yield "lambda", lambda_, "--lambda"
    stored = {"function": [code, None, None], "function_type": "lambda"}
    yield "lambda_old", layer("Lambda", "middle", None, **stored), "--lambda"
    yield "lambda_nested", layer("Sequential", "middle", "keras") | {"config": inner}, "--lambda"
    yield "lambda_time_distributed", layer("TimeDistributed", "middle", layer=lambda_), "--lambda"
    yield "lambda_initializer", dense("middle", 3, kernel_initializer=byte_code(code)), "byte code"
    set_floatx = function("keras.config", "set_floatx")
    yield "lambda_set_floatx", layer("Lambda", "middle", function=set_floatx), "set_floatx"
    for name, activation, says in (
        ("byte_code", byte_code(code), "byte code"),
        ("set_floatx", set_floatx, "set_floatx"),
        ("os_system", function("os", "system"), "os.system"),
        ("get_file", function("keras.utils", "get_file"), "get_file"),
        ("unsafe", function("keras.config", "enable_unsafe_deserialization"), "enable_unsafe"),
        ("deserialize", function("keras.src.legacy.saving.serialization", "deserialize"), "deserialize"),
    ):
        yield f"activation_{name}", dense("middle", 3, activation=activation), says
    yield "eval_class", layer("eval", "middle", "builtins"), "builtins.eval"
    evil = layer("Evil", "middle", "evilmod")
    yield "evil_class", evil, "--custom"
    yield "evil_registered", evil | {"registered_name": "evil>Evil"}, "--custom"
    yield "get_file", layer("get_file", "middle", "keras.utils", origin=f"file://{secret}"), "get_file"
    yield "load_model", layer("load_model", "middle", "keras.models", filepath=secret), "load_model"
    for name in ("StringLookup", "IntegerLookup", "TextVectorization"):
        yield name, layer(name, "middle", vocabulary=secret), "outside.txt"
    url = "https://example.org/words.txt"
    yield "vocabulary_url", layer("StringLookup", "middle", vocabulary=url), "example.org"
    module = base64.b64encode(b"PK").decode()
    yield "torch_module", layer("TorchModuleWrapper", "middle", module=module), "TorchModuleWrapper"
    yield "jax_layer", layer("JaxLayer", "middle", call_fn=byte_code(code)), "JaxLayer"
    yield "flax_layer", layer("FlaxLayer", "middle", module=byte_code(code)), "FlaxLayer"
    yield "tfsm_layer", layer("TFSMLayer", "middle", filepath=str(folder)), "TFSMLayer"


def layers_that_are_too_large() -> Iterator[tuple[str, Layer, str]]:
    """(name, layer, a word of the refusal)."""
    huge = 1_000_000_000
    yield "dense_huge", dense("middle", 2 * huge), "units=2000000000"
    embedding = layer("Embedding", "middle", input_dim=huge, output_dim=huge)
    yield "embedding_huge", embedding, "GiB"
    yield "repeat_huge", layer("RepeatVector", "middle", n=huge), "GiB"
    yield "upsampling_huge", layer("UpSampling2D", "middle", size=[huge, huge]), "GiB"
    yield "padding_huge", layer("ZeroPadding1D", "middle", padding=[huge, huge]), "GiB"
    yield "resizing_huge", layer("Resizing", "middle", height=10**5, width=10**5), "height=100000"
    strides = layer("Conv2DTranspose", "middle", filters=1, kernel_size=[1, 1], strides=[huge, huge])
    yield "strides_huge", strides, "strides"
    yield "reshape_huge", layer("Reshape", "middle", target_shape=[huge, huge]), "GiB"


def harmless_models(marker: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Models with constructs that nothing ever uses."""
    code = byte_code(payload(marker))
    yield "lambda_compile", document(dense("first", 3), dense("last", 2), compile_config={"loss": code})
    relu = function("keras.ops", "relu")
    yield "lambda_output_shape", around(layer("Lambda", "middle", function=relu, output_shape=code))
