"""The options that say what a model file needs beside itself, the same for every command that loads one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from layerprobe.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])


def model_options(command: Command) -> Command:
    """Add --custom, --weights and --lambda; the command gets `custom`, `weights` and `lambdas`."""
    for option in (
        click.option(
            "--custom", multiple=True, metavar="FILE.py[:NAME]", help="Your code for the model's own classes."
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
