"""The embedded engine: ONNX Runtime on the processor."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from darkroom.bundle import Bundle, BundleInfo
from darkroom.engines.base import Answers, Engine, check_golden
from darkroom.errors import EngineError
from darkroom.provenance import available_cores

INPUT = "pixels"
OUTPUTS = ("logits", "probabilities")


class OnnxRuntimeEngine(Engine):
    """Answers from a bundle's model.onnx; ONNX Runtime lets threads share one session."""

    def __init__(self, bundle: BundleInfo, session: onnxruntime.InferenceSession) -> None:
        super().__init__(bundle)
        self._session: onnxruntime.InferenceSession | None = session

    @classmethod
    def open(cls, folder: Path, *, threads: int | None = None) -> "OnnxRuntimeEngine":
        """Open and prove a bundle, with `threads` per answer (all cores when not given).

        Raises `BundleError` for a bundle that is changed or prepares pictures differently here, and `EngineError` for
        a graph that cannot be loaded or answers the golden pictures differently.
        """
        bundle = Bundle.open(folder)
        bundle.check_preprocessing()
        engine = cls(bundle.info, open_session(bundle.model, threads or available_cores()))
        check_golden(engine, bundle.golden)
        return engine

    def run(self, pixels: npt.NDArray[np.uint8]) -> Answers:
        """Answer for one batch (N, H, W, 3)."""
        session = self._session
        if session is None:
            raise EngineError("the engine is closed: open it again")
        try:
            return Answers(*session.run(OUTPUTS, {INPUT: np.ascontiguousarray(pixels)}))
        except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
            raise EngineError(f"ONNX Runtime cannot answer: {_one_line(error)}") from error

    def close(self) -> None:
        """Let go of the session; answers under way in other threads are finished."""
        self._session = None


def open_session(model: Path | bytes, threads: int, *, optimised: bool = True) -> onnxruntime.InferenceSession:
    """A session for a graph, in a file or in memory, of the form that bundles have; raises `EngineError`.

    Without optimisation, a quantised graph is computed in fp32, node by node as it is written.
    """
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A thread that waits in a spin takes a core away from decoding and from the other requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        name = "the graph" if isinstance(model, bytes) else model
        raise EngineError(f"ONNX Runtime cannot load {name}: {_one_line(error)}") from error
    _check_signature(session, "the graph" if isinstance(model, bytes) else str(model))
    return session


def _check_signature(session: onnxruntime.InferenceSession, model: str) -> None:
    inputs = [(node.name, node.type) for node in session.get_inputs()]
    outputs = {node.name: node.type for node in session.get_outputs()}
    if inputs != [(INPUT, "tensor(uint8)")] or any(outputs.get(name) != "tensor(float)" for name in OUTPUTS):
        raise EngineError(
            f"{model} takes {inputs} and gives {sorted(outputs.items())}, where uint8 {INPUT!r} and float "
            f"{' and '.join(map(repr, OUTPUTS))} belong: make the bundle with `darkroom export RUN`"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
