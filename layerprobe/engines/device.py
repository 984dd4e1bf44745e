"""Which device computes, and which framework runs Keras; no framework is imported to find out."""

from __future__ import annotations

import glob
import itertools
import os
import re
import sys
from collections.abc import Sequence

from layerprobe.errors import UnavailableError, UsageError
from layerprobe.loading.backend import choose_backend
from layerprobe.registry import KERAS_ENGINES, missing

_FRAMEWORKS = (
    "layerprobe runs Keras on TensorFlow or JAX: set KERAS_BACKEND to tensorflow or jax. Received: {}"
)


def check_device(device: object) -> None:
    """Raise UsageError unless it is "auto", "cpu", "gpu" (the first one) or "gpu:N", N from 0."""
    if not (isinstance(device, str) and re.fullmatch(r"auto|cpu|gpu(:\d{1,4})?", device, re.ASCII)):
        raise UsageError(f"device must be auto, cpu, gpu or gpu:N, as gpu:0. Received: {device!r}")


def find_gpu(device: str, gpus: Sequence[str]) -> int | None:
    """Which of a framework's GPUs is meant; None for the processor.

    Args:
        device: See `check_device`; "auto" is the first GPU where there is one.
        gpus: Their names, in the framework's order.

    Raises:
        UnavailableError: There is no such GPU.
    """
    if device == "cpu" or (device == "auto" and not gpus):
        return None
    number = int(device.partition(":")[2] or 0)
    if not gpus:
        raise UnavailableError(
            f"Keras sees no GPU here, so device {device} cannot be had: leave --device out, or install the "
            "driver and the framework's packages for it."
        )
    if number >= len(gpus):
        raise UnavailableError(
            f"Keras sees gpu:0 to gpu:{len(gpus) - 1} here: choose one. Received: {device}"
        )
    return number


def may_have_gpu() -> bool:
    """Whether anything speaks for a GPU: a driver, or a variable that somebody set; asks no framework."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    nvidia = chosen or any(map(glob.glob, ("/dev/nvidia[0-9]*", "/proc/driver/nvidia/gpus/*", "/dev/dxg")))
    if nvidia and chosen != "" and not (chosen or "").startswith("-"):
        return True
    return os.path.exists("/dev/kfd") or (sys.platform == "darwin" and _has_metal())


def visible_gpus() -> list[str]:
    """NVIDIA's GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; asks no framework."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number, _ in enumerate(glob.glob("/dev/nvidia[0-9]*"))]
    # What follows a negative number does not count.
    named = itertools.takewhile(lambda name: not name.startswith("-"), map(str.strip, chosen.split(",")))
    return [name for name in named if name]


def keras_backend() -> str:
    """The framework that Keras runs on in this process; see `loading.backend` for how that is decided.

    Raises:
        UnavailableError: Keras or its framework is not installed, or it is another than in `KERAS_ENGINES`.
    """
    choose_backend()
    asked = os.environ.get("KERAS_BACKEND")
    if asked and asked not in KERAS_ENGINES:
        raise UnavailableError(_FRAMEWORKS.format(asked))
    try:
        import keras
    except ModuleNotFoundError as error:
        raise missing("Keras", error.name or "keras") from error
    backend = str(keras.backend.backend())
    if backend not in KERAS_ENGINES:
        raise UnavailableError(_FRAMEWORKS.format(backend))
    return backend


def _has_metal() -> bool:
    """Whether a framework's plug-in for Apple's GPUs is installed."""
    # Imported here: it takes as long as to list a model.
    from importlib import metadata

    for package in ("tensorflow-metal", "jax-metal"):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        return True
    return False
