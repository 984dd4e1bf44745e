"""The networks of `keras.applications`, made into a file that is then read as any other."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import re
import secrets
import socket
import urllib.request
from difflib import get_close_matches
from urllib.parse import parse_qsl

from layerprobe.errors import UnavailableError, UsageError, WriteError
from layerprobe.loading.backend import choose_backend
from layerprobe.stores.cache_place import alone_in, model_folder
from layerprobe.stores.notes import note

NAMES = (
    *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
    *(f"DenseNet{depth}" for depth in (121, 169, 201)),
    *(f"EfficientNetB{size}" for size in range(8)),
    *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    *("InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small"),
    *("NASNetLarge", "NASNetMobile"),
    *(f"ResNet{depth}{version}" for depth in (50, 101, 152) for version in ("", "V2")),
    *("VGG16", "VGG19", "Xception"),
)
_SERVER = ("storage.googleapis.com", 443)
_SECONDS = 4
"""How long the server of the weights may take to answer."""
_SIZE = (224, 224, 3)
"""What those were trained with whose files leave it open."""
SEED = 0
"""Of random weights, so that they are the same ones each time."""


def made(asked: str) -> str:
    """Make the file of a network.

    Args:
        asked: "ResNet50", with the weights that Keras has for it; "ResNet50?weights=none", with random ones.

    Returns:
        The path of a `.keras` file in the cache, where it may have been already.

    Raises:
        UsageError: There is no such network.
        UnavailableError: Its weights cannot be fetched.
        WriteError: It cannot be kept.
    """
    name, weights = _parsed(asked)
    version = importlib.metadata.version("keras")
    folder = model_folder(f"app-{name}-{weights or 'none'}-{version}")
    path = os.path.join(folder, f"{name}.keras")
    if os.path.exists(path):
        return path
    with alone_in(folder):  # Keras writes what it fetches to the final name: two processes would spoil that
        if not os.path.exists(path):
            _make(name, weights, folder, path)
            said = "random weights" if weights is None else "the weights of Keras"
            note(f"app:{name} was made by Keras {version}, with {said}, and is kept in {path}")
    return path


def _make(name: str, weights: str | None, folder: str, path: str) -> None:
    """Make the file, whole or not at all."""
    if weights is not None and not _downloaded(name):
        _check_reachable(name)
    part = os.path.join(folder, f"{secrets.token_hex(4)}.part.keras")
    try:
        _save(name, weights, part)
        os.replace(part, path)
    except OSError as error:
        raise WriteError(f"app:{name} cannot be kept in {folder!r}: {error}.") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def _parsed(asked: str) -> tuple[str, str | None]:
    """Name and weights; None for random ones."""
    typed, _, query = asked.partition("?")
    name = next((known for known in NAMES if known.lower() == typed.lower()), None)
    if name is None:
        close = get_close_matches(typed, NAMES, 3, 0.5) or NAMES
        raise UsageError(f"keras.applications has no network {typed!r}: it has {', '.join(close)}.")
    options = dict(parse_qsl(query, keep_blank_values=True))
    weights = options.pop("weights", "imagenet")
    if options or weights not in ("imagenet", "none"):
        raise UsageError(f"app:{name} takes ?weights=imagenet or ?weights=none. Received: app:{asked}")
    return name, None if weights == "none" else weights


def _downloaded(name: str) -> bool:
    """Whether Keras has fetched the weights before, as far as the names of its files tell."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    try:
        files = [re.sub("[^a-z0-9]", "", file.lower()) for file in os.listdir(os.path.join(home, "models"))]
    except OSError:
        return False
    return any(file.startswith(name.lower()) and "notop" not in file for file in files)


def _check_reachable(name: str) -> None:
    """Say at once what Keras would find out after it was imported, and after a minute."""
    if "https" in urllib.request.getproxies():
        return
    try:
        socket.create_connection(_SERVER, _SECONDS).close()
    except OSError as error:
        raise _unavailable(name, str(error.strerror or error)) from error


def _unavailable(name: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"the weights of app:{name} come from {_SERVER[0]}, which cannot be reached ({why}): connect, give "
        f"the path of a model, or app:{name}?weights=none for random weights."
    )


def _save(name: str, weights: str | None, path: str) -> None:
    choose_backend()
    import keras

    with contextlib.redirect_stdout(io.StringIO()):  # It tells there how far a download is.
        keras.utils.set_random_seed(SEED)
        try:
            model = getattr(keras.applications, name)(weights=weights)
            if None in model.inputs[0].shape[1:]:
                model = getattr(keras.applications, name)(weights=weights, input_shape=_SIZE)
        except Exception as error:  # Keras raises that very class where a download fails
            if "URL fetch failure" in str(error):
                raise _unavailable(name, " ".join(str(error).split())[:200]) from error
            if "Incomplete or corrupted file" in str(error):
                raise UnavailableError(
                    f"the weights of app:{name} did not come whole from {_SERVER[0]}, or another program "
                    "fetches them at the same time: try again."
                ) from error
            raise
        model.save(path)
