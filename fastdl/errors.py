"""The exceptions that fastdl raises on purpose. The command line shows their message and nothing else."""

from __future__ import annotations


class InputError(ValueError):
    """What the caller gave cannot be used: the message says what was expected, what came and how to mend it."""


class ModelFileError(InputError):
    """A file is no fastdl model, or was truncated or altered."""


class DivergedError(ArithmeticError):
    """The training loss became NaN or infinite; the parameters are those of the last good epoch."""


class MissingExtraError(ImportError):
    """A feature needs an optional package that is not installed."""


class OptionError(InputError):
    """An option of the command line has a value that cannot be used, alone or with the data that came."""


class EngineError(RuntimeError):
    """Compiled code was about to be given arrays that do not fit together: a fault of fastdl's own, not of the caller's."""
