"""The command line: parse, call the library, print. One file per command."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from layerprobe.cli import signals
from layerprobe.cli.console import lost_stdout, say
from layerprobe.cli.room import check_room
from layerprobe.errors import LayerprobeError, StoppedError
from layerprobe.hiding import shown_within
from layerprobe.version import __version__

COMMANDS = {
    "bench": "layerprobe.cli.bench:bench",
    "cache": "layerprobe.cli.cache:cache",
    "cam": "layerprobe.cli.cam:cam",
    "check": "layerprobe.cli.check:check",
    "compare": "layerprobe.cli.compare:compare",
    "doctor": "layerprobe.cli.doctor:doctor",
    "extract": "layerprobe.cli.extract:extract",
    "info": "layerprobe.cli.info:info",
    "layers": "layerprobe.cli.layers:layers",
    "merge": "layerprobe.cli.merge:merge",
    "report": "layerprobe.cli.report:report",
    "show": "layerprobe.cli.show:show",
    "stats": "layerprobe.cli.stats:stats",
    "verify": "layerprobe.cli.verify:verify",
}


LONGEST_COMMAND = 2000
"""Characters of a command that are still worth printing; a shell may have put ten thousand names there."""


class _LazyGroup(click.Group):
    """Commands are imported when they are run or listed; none of them imports numpy at its top."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and args[0] not in COMMANDS:
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(
                f"there is no command {args[0]!r}: "
                + (f"did you mean {close[0]}?" if close else f"expected one of {', '.join(COMMANDS)}.")
            )
        return super().resolve_command(ctx, args)


@click.command(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="layerprobe %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Extract the activations of any layer of a saved Keras model.

    \b
    layerprobe layers  model.h5                                  what is in it
    layerprobe extract model.h5 --layer conv5_3 photo.jpg        its activations, in photo.npz
    layerprobe info    photo.npz                                 what was written
    layerprobe stats   photo.npz                                 what its numbers are like
    layerprobe show    photo.npz -o maps.png                     its feature maps as a picture
    layerprobe cam     model.h5 photo.jpg                        where on it the class is seen
    layerprobe report  photo.npz -o report.html                  all of it as a page to look around in
    layerprobe merge   all.h5 part1.h5 part2.h5                  what shards wrote, as one output
    layerprobe doctor  model.h5 photos                           which preprocessing it was trained with
    layerprobe bench   model.h5 photos                           how fast it is here, and what bounds it

    Exit codes: 0 done; 1 a bug; 2 usage; 3 done, but some inputs failed; 65 the model, the resume or
    the merge was refused; 66 no input; 69 a device, package or store is missing; 70 every input failed; 71
    not enough memory; 73 the output cannot be created; 74 write error; 75 another run holds the output; 77
    permission denied; 129, 130, 141, 143 ended by a signal.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        raise click.exceptions.Exit(2)
    if not {"-h", "--help"} & set(sys.argv):
        check_room(context.invoked_subcommand)


def main() -> NoReturn:
    """Run the command line; every way to end gives one line on stderr and the documented code."""
    _reserve_standard_streams()
    signals.install()
    sys.exit(run())


def run() -> int:
    """Run the command of `sys.argv`; every error a user can cause becomes one line and its code."""
    try:
        return _called()
    except StoppedError as error:
        say(str(error))
        _tell_how_to_resume(error)
        return 128 + (signals.received() or 0)
    except LayerprobeError as error:
        say(str(error))
        _tell_how_to_resume(error)
        return error.exit_code
    except SystemExit as error:
        _tell_how_to_resume(error)
        raise
    except click.UsageError as error:
        if error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        say(error.format_message())
        return 2
    except click.ClickException as error:
        say(error.format_message())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return 130
    except OSError as error:
        # Click prints help and versions by itself; every other OSError has the name of a file, or is a bug.
        if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        return lost_stdout(error)
    except MemoryError:
        say("not enough memory: give fewer or smaller images at once, or extract a smaller --batch-size")
        return 71


def _called() -> int:
    """Run the command; a signal that C code has made an error of its own of comes out as what it was."""
    try:
        result: Any = cli.main(prog_name="layerprobe", standalone_mode=False)
        _tell_notes()
        return result if isinstance(result, int) else 0
    except (LayerprobeError, click.ClickException, OSError):
        raise
    except Exception as error:  # only looked at: what is no signal and no lack of memory is a bug
        end = _ended_by_signal(error)
        if end is not None:
            raise end from None
        # What the dynamic loader, and threading, say of memory that they cannot have.
        if any(words in str(error) for words in ("failed to map", "can't start new thread")):
            raise MemoryError from error
        raise


def _ended_by_signal(error: Exception) -> BaseException | None:
    """Say how the program was told to end, where library code has made something else of that.

    Imports wrap it. HDF5, which a signal may find in one of its callbacks, loses it: what comes then is an
    error about the callback.
    """
    if isinstance(error, ImportError | SystemError) and isinstance(
        error.__cause__, KeyboardInterrupt | SystemExit
    ):
        return error.__cause__
    number = signals.ending()
    return None if number is None else SystemExit(128 + number)


def _tell_notes() -> None:
    """Say what was fetched and what had to be asked for again, where a command has not told it itself."""
    notes = sys.modules.get("layerprobe.stores.notes")
    if notes is not None and not {"-q", "--quiet"} & set(sys.argv):
        for note in notes.taken():
            say(note)


def _tell_how_to_resume(error: BaseException) -> None:
    """Say what is kept of a run that ended early, and the command that goes on with it."""
    for note in getattr(error, "__notes__", ()):
        say(note)
        if sys.argv[1:2] != ["extract"]:
            continue
        program = "layerprobe" if not sys.argv[0].endswith("__main__.py") else "python -m layerprobe"
        arguments = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--restart")]
        command = f"{program} {shlex.join([*arguments[:1], '--resume', *arguments[1:]])}"
        say(
            f"to go on: {command}"
            if len(command) < LONGEST_COMMAND and shown_within(command) == command
            else "the same command with --resume goes on"
        )


def _reserve_standard_streams() -> None:
    """Open what was started closed, so that no output file becomes descriptor 0, 1 or 2."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
