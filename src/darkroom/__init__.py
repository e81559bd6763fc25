"""darkroom develops a set of labelled pictures into an image classifier that can be trusted, explained and served.

    import darkroom

    run = darkroom.train("digits", darkroom.Run("runs/digits"), config=darkroom.TrainConfig(epochs=20))
    metrics = darkroom.evaluate(run)
    print(metrics["validation"]["accuracy"])
    darkroom.export_bundle(run)
    for answer in darkroom.predict(run.folder, run.samples):
        print(answer)

These are the functions that the command line calls. Each is imported when it is used for the first time, so that
`import darkroom` takes no time and a server needs no PyTorch. What is wrong is raised as a `DarkroomError`.

Scripts call them under `if __name__ == "__main__":`, since pictures are decoded by processes that import the script. A
name has two words where one is that of a module already: `darkroom.compare` is a module, `darkroom.compare_networks`
compares.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darkroom.ablate import ablate as ablate_training
    from darkroom.bundle import Bundle
    from darkroom.compare import compare as compare_networks
    from darkroom.comparison.folder import Comparison
    from darkroom.config import (
        AblateConfig,
        CompareConfig,
        DataConfig,
        EngineConfig,
        ExportConfig,
        ServeConfig,
        StorageConfig,
        TrainConfig,
    )
    from darkroom.data.dataset import DataSet
    from darkroom.engines.prediction import Failure, Prediction
    from darkroom.errors import DarkroomError
    from darkroom.notebook import write_notebook
    from darkroom.report.write import write_report
    from darkroom.runs import Run
    from darkroom.verify import verify as verify_run
    from darkroom.workflow import evaluate, examine, load_data, predict, run_all, serve, train
    from darkroom.workflow import export as export_bundle
    from darkroom.workflow import share as share_bundle
else:

    def __getattr__(name: str) -> Any:
        """What `PLACES` lists, from the module that holds it."""
        if name not in PLACES:
            raise AttributeError(f"module 'darkroom' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        module, _, attribute = PLACES[name].partition(":")
        return getattr(import_module(module), attribute or name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *PLACES})


__version__ = "0.1.0"

PLACES = {
    **dict.fromkeys(("AblateConfig", "CompareConfig", "DataConfig", "EngineConfig", "ExportConfig"), "darkroom.config"),
    **dict.fromkeys(("ServeConfig", "StorageConfig", "TrainConfig"), "darkroom.config"),
    **dict.fromkeys(("evaluate", "examine", "load_data", "predict"), "darkroom.workflow"),
    **dict.fromkeys(("run_all", "serve", "train"), "darkroom.workflow"),
    **dict.fromkeys(("Failure", "Prediction"), "darkroom.engines.prediction"),
    "Bundle": "darkroom.bundle",
    "Comparison": "darkroom.comparison.folder",
    "DarkroomError": "darkroom.errors",
    "DataSet": "darkroom.data.dataset",
    "Run": "darkroom.runs",
    "ablate_training": "darkroom.ablate:ablate",
    "compare_networks": "darkroom.compare:compare",
    "export_bundle": "darkroom.workflow:export",
    "share_bundle": "darkroom.workflow:share",
    "verify_run": "darkroom.verify:verify",
    "write_notebook": "darkroom.notebook",
    "write_report": "darkroom.report.write",
}
"""The module that holds each public name, and behind a colon the name that it has there, where that is another."""

__all__ = [
    "AblateConfig",
    "Bundle",
    "CompareConfig",
    "Comparison",
    "DarkroomError",
    "DataConfig",
    "DataSet",
    "EngineConfig",
    "ExportConfig",
    "Failure",
    "Prediction",
    "Run",
    "ServeConfig",
    "StorageConfig",
    "TrainConfig",
    "__version__",
    "ablate_training",
    "compare_networks",
    "evaluate",
    "examine",
    "export_bundle",
    "load_data",
    "predict",
    "run_all",
    "serve",
    "share_bundle",
    "train",
    "verify_run",
    "write_notebook",
    "write_report",
]
