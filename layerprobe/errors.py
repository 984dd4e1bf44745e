"""Every error that layerprobe raises on purpose, with the exit code of the command line.

::

    LayerprobeError                  1
    ├── UsageError                   2   an argument that cannot be meant
    │   └── UnknownLayerError        2   no layer, or more than one, has that address
    ├── ModelError                  65   the model file is refused or cannot be understood
    │   ├── UnsafeModelError        65   ... because of what it could run, read or allocate
    │   └── UnrecordableLayerError  65   the layer exists, but its values cannot be recorded
    ├── OutputFormatError           65   a file that `open` or `info` was given is none of ours
    ├── MergeError                  65   parts that do not make one whole
    ├── ResumeError                 65   an unfinished output belongs to a different run, or is damaged
    ├── FailedRowsError             65   more rows failed than the caller allows; it can be resumed
    ├── NoInputError                66   a named file does not exist, or there is nothing to read
    ├── UnavailableError            69   a device or an optional package is not there
    ├── AllInputsFailedError        70   not one row could be computed
    ├── ResourceError               71   not enough memory
    ├── OutputError                 73   the output cannot be created
    ├── WriteError                  74   writing failed half-way: disk full, I/O error
    ├── StoppedError                75   the caller asked a run to stop; trying again goes on
    ├── BusyError                   75   another run holds the output
    ├── AccessError                 77   the system denies access
    └── SampleError                  -   one input is broken; becomes that row's Failure

The codes follow sysexits.h. A message is one sentence that names the thing, says what was expected
(`Received: ...`) and what to do. Anything else that escapes is a bug and keeps its traceback.
"""

from layerprobe.hiding import shown_within


class LayerprobeError(Exception):
    """The root: catch this to catch every error that layerprobe raises on purpose.

    Whatever names a message has in it, passwords and signatures of URLs are none of it.
    """

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(shown_within(arg) if isinstance(arg, str) else arg for arg in args))


class UsageError(LayerprobeError, ValueError):
    """An argument or option that cannot be meant."""

    exit_code = 2


class UnknownLayerError(UsageError, LookupError):
    """No layer, or more than one, has the address that was asked for."""


class ModelError(LayerprobeError):
    """A model file that is broken, incomplete, or not a Keras model."""

    exit_code = 65


class UnsafeModelError(ModelError):
    """A model file that could run code, touch other files or exhaust the machine."""


class UnrecordableLayerError(ModelError):
    """A layer whose values cannot be recorded: it runs inside a loop, or not at all."""


class OutputFormatError(LayerprobeError):
    """A file that was to be read back was not written by layerprobe, or is damaged."""

    exit_code = 65


class MergeError(LayerprobeError):
    """Outputs that are to be joined, and are not all parts of one run, each of them once."""

    exit_code = 65


class ResumeError(LayerprobeError):
    """An unfinished output that cannot be gone on with: another run's, or damaged."""

    exit_code = 65


class FailedRowsError(LayerprobeError):
    """More rows failed than the caller allows, so that the run ended early; it can be resumed."""

    exit_code = 65


class NoInputError(LayerprobeError):
    """A named file does not exist, or a folder or list holds nothing to read."""

    exit_code = 66


class UnavailableError(LayerprobeError):
    """A device or an optional package that was asked for is not there."""

    exit_code = 69


class PrecisionError(UnavailableError):
    """The processor does not compute in the precision that was asked for."""


class AllInputsFailedError(LayerprobeError):
    """Every input failed; no file was written."""

    exit_code = 70


class ResourceError(LayerprobeError):
    """Not enough memory for what was asked."""

    exit_code = 71


class OutputError(LayerprobeError):
    """The output cannot be created where it was asked for."""

    exit_code = 73


class WriteError(LayerprobeError):
    """Writing failed half-way; nothing was left under the output's name."""

    exit_code = 74


class StoppedError(LayerprobeError):
    """A run ended early because its caller asked for that; it can be resumed."""

    exit_code = 75


class BusyError(LayerprobeError):
    """Another run holds the output; trying again later can succeed."""

    exit_code = 75


class AccessError(LayerprobeError):
    """The system denies access to a file."""

    exit_code = 77


class SampleError(LayerprobeError):
    """One input that cannot be read, decoded or preprocessed.

    The pipeline turns it into the `Failure` of that row; the other rows go on.
    """
