"""Single options that say how a model is run, the same for every command that has them."""

from __future__ import annotations

import click

ENGINES = ("graph", "converted", "keras")

engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", *ENGINES]),
    default="auto",
    show_default=True,
    help="What runs MODEL; graph needs no TensorFlow.",
)

device_option = click.option(
    "--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, gpu, or gpu:N."
)

precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="What MODEL computes in.",
)

size_option = click.option(
    "--size", metavar="N|HxW", help="Height and width of the images. [default: the model's]"
)
