"""The engine that the settings ask for."""

from pathlib import Path

from darkroom.config import MOST_WORKERS, EngineConfig, ServeConfig
from darkroom.engines.base import Engine
from darkroom.provenance import available_cores

THREADS = 4
"""Of the server, where there are no worker processes."""


def workers_of(settings: EngineConfig) -> int:
    """How many worker processes there will be: none where threads do the work, or another server."""
    if settings.engine == "tf-serving":
        return 0
    return min(available_cores(), MOST_WORKERS) if settings.workers is None else settings.workers


def threads_of(settings: ServeConfig) -> int:
    """How many threads ask the engine: of two for each worker, one's job is done while the other's lies ready."""
    return settings.threads or 2 * workers_of(settings) or THREADS


def open_engine(folder: Path, settings: EngineConfig) -> Engine:
    """Open and prove the bundle in `folder`; raises `BundleError` or `EngineError`."""
    if settings.engine == "tf-serving":
        from darkroom.engines.tf_serving import TfServingEngine

        return TfServingEngine.open(folder, settings)
    if workers := workers_of(settings):
        from darkroom.engines.pool import PooledEngine

        return PooledEngine.open(folder, workers)
    from darkroom.engines.onnx_runtime import OnnxRuntimeEngine

    # Requests are answered side by side: threads within each of them would only fight for the cores.
    return OnnxRuntimeEngine.open(folder, threads=1)
