"""The engine that the settings ask for."""

from pathlib import Path

from darkroom.config import EngineConfig
from darkroom.engines.base import Engine
from darkroom.provenance import available_cores


def open_engine(folder: Path, settings: EngineConfig) -> Engine:
    """Open and prove the bundle in `folder`; raises `BundleError` or `EngineError`."""
    if settings.engine == "tf-serving":
        from darkroom.engines.tf_serving import TfServingEngine

        return TfServingEngine.open(folder, settings)
    if settings.workers != 0:
        from darkroom.engines.pool import PooledEngine

        return PooledEngine.open(folder, settings.workers or available_cores())
    from darkroom.engines.onnx_runtime import OnnxRuntimeEngine

    # Requests are answered side by side: threads within each of them would only fight for the cores.
    return OnnxRuntimeEngine.open(folder, threads=1)
