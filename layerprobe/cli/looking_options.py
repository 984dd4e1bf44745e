"""The arguments of commands that look into an output, or into a model that they run over inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from layerprobe.cli.model_options import model_options, read_custom, read_lambdas
from layerprobe.cli.running_options import size_option
from layerprobe.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])


def looking_options(command: Command) -> Command:
    """Add SOURCE, INPUTS and the options of running a model, which `run_options` reads."""
    for add in (
        click.option(
            "--engine",
            type=click.Choice(["auto", "graph", "keras"]),
            default="auto",
            show_default=True,
            help="What runs a model.",
        ),
        click.option(
            "--crop", type=click.Choice(["none", "center", "pad"]), default="none", show_default=True
        ),
        click.option(
            "--preprocess", default="auto", show_default=True, metavar="HOW", help="As for extract."
        ),
        size_option,
        model_options,
        click.argument("inputs", nargs=-1, type=click.Path(readable=False)),
        click.argument("source", type=click.Path(readable=False)),
    ):
        command = add(command)
    return command


RUNNING = ("engine", "crop", "preprocess", "size")
"""Options that say how a model is run."""


def run_options(
    options: Mapping[str, Any], *, of_model: bool, only_of_model: Sequence[str] = RUNNING
) -> dict[str, Any]:
    """The same options as `extract` of the library takes them.

    Args:
        options: As the command got them.
        of_model: Whether SOURCE is a model.
        only_of_model: Options that mean nothing for an output.

    Raises:
        UsageError: One of these is given with an output.
    """
    context = click.get_current_context()
    for parameter in () if of_model else context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in only_of_model and source is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(f"{parameter.opts[0]} says how a model is run: with an output, leave it out.")
    given = dict(options)
    custom_objects = read_custom(given.pop("custom"))
    return {**given, "custom_objects": custom_objects, "lambdas": read_lambdas(given["lambdas"])}
