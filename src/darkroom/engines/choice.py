"""The engine that the settings ask for."""

from pathlib import Path

from darkroom.config import EngineConfig
from darkroom.engines.base import Engine


def open_engine(folder: Path, settings: EngineConfig) -> Engine:
    """Open and prove the bundle in `folder`; raises `BundleError` or `EngineError`."""
    if settings.engine == "tf-serving":
        from darkroom.engines.tf_serving import TfServingEngine

        return TfServingEngine.open(folder, settings)
    from darkroom.engines.onnx_runtime import OnnxRuntimeEngine

    # Requests are answered side by side: threads within each of them would only fight for the cores.
    return OnnxRuntimeEngine.open(folder, threads=1)
