"""Every error that a user can cause, as one family.

::

    CompressorError            exit code 1   one clear line, no traceback
    ├── LoadError              1   a checkpoint that cannot be read or fits no architecture
    ├── DataError              1   a data set that is absent, unreadable or of the wrong shape
    ├── StageError             1   a stage that cannot do what its settings ask of this network
    ├── ArtifactError          1   a .dcz file that is damaged, hostile or of another version
    ├── ExportError            1   an ONNX file that cannot be written or does not match PyTorch
    ├── OutputError            1   an output that exists, cannot be written or is another run's
    ├── RankLost               1   another process of a distributed run has ended before its time
    ├── UsageError             2   an option or a recipe with a value that cannot be
    └── TargetMissed           3   everything was written, but a stated target was not met

A message names the thing, the values that are allowed and what to do next.
"""


class CompressorError(Exception):
    """Base of the family; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class LoadError(CompressorError):
    """A checkpoint that cannot be read safely or that fits no architecture."""


class DataError(CompressorError):
    """A data set that is absent, unreadable or of the wrong shape."""


class StageError(CompressorError):
    """A stage that cannot do what its settings ask of this network."""


class ArtifactError(CompressorError):
    """A .dcz file that is damaged, hostile or of an unknown version."""


class ExportError(CompressorError):
    """An ONNX file that cannot be written or does not compute what PyTorch computes."""


class OutputError(CompressorError):
    """An output that exists already, cannot be written or belongs to another run."""


class RankLost(CompressorError):
    """Another process of a distributed run has ended, and this one cannot go on without it."""


class UsageError(CompressorError):
    """An option or a recipe with a value that cannot be."""

    exit_code = 2


class TargetMissed(CompressorError):
    """All files were written, but a target that the user stated was not met."""

    exit_code = 3
