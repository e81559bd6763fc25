"""Every error that darkroom raises on purpose.

    DarkroomError                 one clear line for the user; the command line exits with code 2
    ├── UsageError                options that contradict each other, or a value out of range
    ├── DataError                 the data set cannot be used as it is
    │   ├── ArchiveError          an archive is broken, unsafe or too large
    │   ├── DownloadError         a download failed or has the wrong checksum
    │   └── ImageError            one picture cannot be decoded
    ├── RunError                  a run folder is missing, incomplete, or belongs to other data
    ├── ModelError                a network is unknown, or its weights are not at hand
    ├── TrainingError             training cannot go on (a loss that is not finite)
    │   └── TrainingStoppedError  the user stopped it; it can be resumed (exit code 130)
    ├── ExportError               a network cannot be written in a format, or the graph does not answer as it does
    ├── ReportError               a report cannot be made, or what it says does not hold
    ├── BundleError               a bundle is missing, changed, or of another version
    ├── EngineError               an engine cannot answer
    └── ServerError               a server that was asked refuses or cannot be reached

Messages say what was wrong, the value, and what to do. Exceptions of other libraries are translated where they enter.
"""


class DarkroomError(Exception):
    """Base of all errors that are the user's to mend; its text is one line fit to be shown."""


class UsageError(DarkroomError):
    """Options that contradict each other, or a value out of range."""


class DataError(DarkroomError):
    """The data set cannot be used as it is."""


class ArchiveError(DataError):
    """An archive is broken, unsafe or too large."""


class DownloadError(DataError):
    """A download failed or has the wrong checksum."""


class ImageError(DataError):
    """One picture cannot be decoded."""


class RunError(DarkroomError):
    """A run folder is missing, incomplete, or belongs to other data."""


class ModelError(DarkroomError):
    """A network is unknown, or its weights are not at hand."""


class TrainingError(DarkroomError):
    """Training cannot go on."""


class TrainingStoppedError(TrainingError):
    """The user stopped the training; its state is saved and can be resumed."""


class ExportError(DarkroomError):
    """A network cannot be written in a format, or the exported graph does not answer as it does."""


class ReportError(DarkroomError):
    """A report cannot be made, or what it says does not hold."""


class BundleError(DarkroomError):
    """A bundle is missing, changed, or of another version."""


class EngineError(DarkroomError):
    """An engine cannot answer."""


class ServerError(DarkroomError):
    """A server that was asked refuses, or cannot be reached."""
