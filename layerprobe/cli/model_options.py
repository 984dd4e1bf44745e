"""The options that say what a model file needs beside itself, the same for every command."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from layerprobe.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])


def model_options(command: Command) -> Command:
    """Add --custom and what `file_options` adds; the command gets `custom` too."""
    custom = click.option(
        "--custom", multiple=True, metavar="FILE.py[:NAME]", help="Your code for the model's own classes."
    )
    return custom(file_options(command))


def file_options(command: Command) -> Command:
    """Add --weights, --lambda and --max-memory; the command gets `weights`, `lambdas` and `max_memory`."""
    for option in (
        click.option(
            "--max-memory",
            default="2G",
            show_default=True,
            callback=read_size,
            metavar="SIZE",
            help="What one layer may ask for.",
        ),
        click.option("--weights", metavar="W.h5", help="The weights, for a MODEL that came without them."),
        click.option(
            "--lambda", "lambdas", multiple=True, metavar="NAME='EXPR'", help="What a Lambda layer computes."
        ),
    ):
        command = option(command)
    return command


def read_custom(custom: Sequence[str]) -> dict[str, Any]:
    """The user's classes and functions by name; their files are run."""
    if not custom:
        return {}
    from layerprobe.loading.custom import read_custom_objects

    return read_custom_objects(custom)


def read_lambdas(lambdas: Sequence[str]) -> dict[str, str]:
    """NAME=EXPRESSION, by name; the expression may hold "=" too."""
    found = {}
    for text in lambdas:
        name, equals, expression = text.partition("=")
        if not (name and equals and expression):
            raise UsageError(
                f"--lambda wants NAME='EXPRESSION', as in --lambda scale='x / 255'. Received: {text!r}"
            )
        found[name] = expression
    return found


def read_size(_: click.Context, __: click.Parameter, text: str) -> int:
    """Bytes: a number, or one with K, M, G or T, each 1,024 of the one before, as in "512M" or "4GiB"."""
    match = re.fullmatch(r"(\d{1,18})\s*([KMGT]?)(?:I?B)?", text.strip().upper(), re.ASCII)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter(f"{text!r} is not a size: expected bytes, or a number with K, M, G or T.")
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")
