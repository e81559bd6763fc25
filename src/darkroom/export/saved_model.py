"""A run as a SavedModel that a stock TensorFlow Serving loads, proved to answer as the network.

    RUN/saved_model/NAME/VERSION/saved_model.pb, variables/   the graph and its weights
                                 assets.extra/                requests by which the server warms up
                                 bundle.json                  class names, preprocessing, proof, hashes of all of it

Signatures: `serving_default` takes "pixels" uint8 (N, H, W, 3), as the contract makes them; `encoded` takes "pictures",
the bytes of files (N,). Both give "logits" and "probabilities" float32 (N, K). A folder appears whole, under the next
number, which the server takes for a newer version.
"""

import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom import files
from darkroom.bundle import INFO_FILE, LOSSY_TOLERANCE, BundleInfo
from darkroom.data.dataset import DataSet
from darkroom.engines import tf_serving_messages as messages
from darkroom.engines.base import PIXELS_A_CALL, Answers, Engine
from darkroom.engines.tf_serving_transport import INPUT, SIGNATURE
from darkroom.errors import EngineError
from darkroom.export.description import describe
from darkroom.export.drawn import KINDS, drawn_pictures
from darkroom.export.onnx_bundle import Deployed, deployed_network, prove, spread
from darkroom.export.tensorflow_network import Network
from darkroom.export.tensorflow_pictures import pixels_of
from darkroom.export.tensorflow_runtime import quiet, tf
from darkroom.preprocess import Preprocessing, load
from darkroom.progress import say
from darkroom.runs import Run

ENCODED, PICTURES = "encoded", "pictures"
"""The signature for files, and its input."""

WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
"""Where TensorFlow Serving looks for it (saved_model_warmup.md of tensorflow/serving)."""

WARM_UP_BATCHES = (1, 8)
MEASURED = 64
"""Validation pictures whose files go through both preparations."""

Pixels = npt.NDArray[np.uint8]


def export_saved_model(run: Run, dataset: DataSet) -> Path:
    """Write the next version of a finished, evaluated run, and return its folder.

    Raises:
        DataError: a picture that is measured has changed since the run began.
        ExportError: the network cannot be expressed in TensorFlow's operators, or the graph answers differently.
        RunError: the run is not trained or not evaluated.
    """
    deployed = deployed_network(run)
    info = describe(run)
    say("Writing the network in TensorFlow's operators and comparing both on real pictures")
    module = build(deployed, info.preprocessing)
    encoded = measure_encoded(module, dataset)
    if not encoded["offered"]:
        say(f"without the signature for files: {encoded['why']}")
    base = run.saved_model / info.serving_name
    temporary = run.saved_model / f".{info.serving_name}.{secrets.token_hex(4)}"
    try:
        save(module, temporary, info, encoded=encoded["offered"])
        finish(temporary, info, encoded, deployed=deployed, run=run, dataset=dataset)
        base.mkdir(parents=True, exist_ok=True)
        return temporary.rename(base / str(next_version(base)))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def build(deployed: Deployed, preprocessing: Preprocessing) -> Any:
    """A `tf.Module` with the functions `answer` for pixels, `prepare` for files, and `answer_files` for both."""
    height, width = preprocessing.height, preprocessing.width
    network = Network(deployed, height=height, width=width)
    module = tf.Module()
    module.weights = dict(network.weights)

    def answer(pixels: Any) -> dict[str, Any]:
        # A server does not hold what it is sent against the signature, and some networks would answer any size.
        return network(tf.ensure_shape(pixels, (None, height, width, 3)))

    def prepare(pictures: Any) -> Any:
        return pixels_of(pictures, preprocessing)

    def answer_files(pictures: Any) -> Any:
        return module.answer(module.prepare(pictures))

    with quiet():
        module.answer = _function(answer, tf.TensorSpec((None, height, width, 3), tf.uint8, name=INPUT))
        module.prepare = _function(prepare, tf.TensorSpec((None,), tf.string, name=PICTURES))
        module.answer_files = _function(answer_files, tf.TensorSpec((None,), tf.string, name=PICTURES))
    return module


def _function(function: Any, specification: Any) -> Any:
    return tf.function(function, input_signature=[specification], autograph=False)


def save(module: Any, folder: Path, info: BundleInfo, *, encoded: bool) -> None:
    """Write the graph, its weights and the warm-up requests into a new folder."""
    signatures = {SIGNATURE: module.answer.get_concrete_function()}
    if encoded:
        signatures[ENCODED] = module.answer_files.get_concrete_function()
    with quiet():
        tf.saved_model.save(module, str(folder), signatures=signatures)
    path = folder / WARM_UP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in warm_up_requests(info, encoded=encoded):
            writer.write(messages.warm_up_record(request))


def warm_up_requests(info: BundleInfo, *, encoded: bool) -> list[Any]:
    """Requests with black pictures and a drawn one, so that no picture of the data goes along."""
    contract = info.preprocessing
    most = max(1, PIXELS_A_CALL // (contract.width * contract.height))
    sizes = sorted({min(size, most) for size in WARM_UP_BATCHES})
    black = [np.zeros((size, contract.height, contract.width, 3), np.uint8) for size in sizes]
    request = partial(messages.predict_request, model=info.serving_name)
    requests = [request(SIGNATURE, INPUT, messages.pixels_tensor(pixels)) for pixels in black]
    if encoded:
        requests.append(request(ENCODED, PICTURES, messages.strings_tensor([drawn_pictures(contract)[0]])))
    return requests


def finish(
    folder: Path, info: BundleInfo, encoded: dict[str, Any], *, deployed: Deployed, run: Run, dataset: DataSet
) -> None:
    """Load what was written, prove that it answers as the network, and add bundle.json."""
    with SavedModelEngine.load(folder, info) as engine:
        parity = prove(engine, deployed, run, dataset)
        if encoded["offered"]:
            encoded = {**encoded, "largest_difference": _compare_answers(engine, dataset)}
    provenance = {**info.provenance, "tensorflow": tf.__version__}
    hashes = {path.relative_to(folder).as_posix(): files.sha256_of(path) for path in _files_in(folder)}
    info = replace(info, provenance=provenance, parity={**parity, "encoded": encoded}, files=hashes)
    files.write_text(folder / INFO_FILE, info.to_text())


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def next_version(base: Path) -> int:
    """One more than the largest number that a folder in `base` has for a name."""
    return max((int(path.name) for path in base.iterdir() if path.name.isdecimal()), default=0) + 1


class SavedModelEngine(Engine):
    """Answers from a SavedModel, in this process: for the proof, not for serving."""

    def __init__(self, bundle: BundleInfo, loaded: Any) -> None:
        super().__init__(bundle)
        self._loaded = loaded  # its functions do not keep the weights that they read

    @classmethod
    def load(cls, folder: Path, bundle: BundleInfo) -> "SavedModelEngine":
        """Load a folder that `save` wrote; raises `EngineError` where TensorFlow cannot."""
        try:
            with quiet():
                return cls(bundle, tf.saved_model.load(str(folder)))
        except Exception as error:  # TensorFlow's own are of many kinds
            raise EngineError(f"TensorFlow cannot load {folder}: {_one_line(error)}") from error

    def run(self, pixels: Pixels) -> Answers:
        """Answer for one batch (N, H, W, 3)."""
        return self._ask(SIGNATURE, **{INPUT: tf.constant(np.ascontiguousarray(pixels))})

    def run_files(self, pictures: Sequence[bytes]) -> Answers:
        """Answer for the bytes of files."""
        return self._ask(ENCODED, **{PICTURES: tf.constant(list(pictures), tf.string)})

    def close(self) -> None:
        """Let go of the model."""
        self._loaded = None

    def _ask(self, signature: str, **inputs: Any) -> Answers:
        if self._loaded is None:
            raise EngineError("the engine is closed: open it again")
        try:
            outputs = self._loaded.signatures[signature](**inputs)
        except Exception as error:  # as above
            raise EngineError(f"TensorFlow cannot answer: {_one_line(error)}") from error
        return Answers(*(outputs[name].numpy() for name in Answers._fields))


def measure_encoded(module: Any, dataset: DataSet) -> dict[str, Any]:
    """How far TensorFlow's preparation of files is from the contract's, in grey levels, and whether to offer it.

    It is not offered where a validation picture cannot be read, or comes out further from the contract than what the
    builds of one decoder differ by.
    """
    contract = dataset.preprocessing
    measured = [_differences(module, content, contract) for content in _some_files(dataset)]
    read = [difference for difference in measured if difference is not None]
    result = {
        "signature": ENCODED,
        "pictures": len(measured),
        "not_read": len(measured) - len(read),
        "mean_grey_levels": float(np.mean([mean for mean, _ in read])) if read else None,
        "worst_mean_grey_levels": max((mean for mean, _ in read), default=None),
        "largest_grey_levels": max((largest for _, largest in read), default=None),
        "allowed_mean_grey_levels": LOSSY_TOLERANCE,
        "drawn": {kind: _told(_differences(module, content, contract)) for kind, content in _drawn(contract).items()},
    }
    why = _objection(result)
    return {"offered": why is None, **({} if why is None else {"why": why}), **result}


def _objection(measured: dict[str, Any]) -> str | None:
    """Why files cannot be prepared by TensorFlow as the contract says, or None."""
    if measured["not_read"]:
        return (
            f"TensorFlow cannot read {measured['not_read']} of {measured['pictures']} validation pictures "
            "(it knows JPEG, PNG, GIF and BMP)"
        )
    worst = measured["worst_mean_grey_levels"]
    if worst > LOSSY_TOLERANCE:
        return f"TensorFlow prepares pictures differently, by up to {worst:.2g} grey levels on average"
    return None


def _some_files(dataset: DataSet) -> Iterable[bytes]:
    ids = dataset.manifest.indices("validation")
    return (dataset.manifest.content(int(id)) for id in spread(ids, min(MEASURED, len(ids))))


def _differences(module: Any, content: bytes, contract: Preprocessing) -> tuple[float, int] | None:
    """Mean and largest absolute difference of one file's pixels, in grey levels; None where TensorFlow refuses it."""
    try:
        prepared = module.prepare(tf.constant([content])).numpy()[0]
    except tf.errors.OpError:
        return None
    difference = np.abs(prepared.astype(np.int16) - load(content, contract))
    return float(difference.mean()), int(difference.max())


def _told(difference: tuple[float, int] | None) -> dict[str, Any]:
    if difference is None:
        return {"read": False}
    return {"read": True, "mean_grey_levels": difference[0], "largest_grey_levels": difference[1]}


def _drawn(contract: Preprocessing) -> dict[str, bytes]:
    """Drawn pictures by format, mode and size as multiples of the contract's."""
    names = [
        f"{kind.format} {kind.mode} {kind.scale[0]:g}×{kind.scale[1]:g}{' turned' if kind.orientation != 1 else ''}"
        for kind in KINDS
    ]
    return dict(zip(names, drawn_pictures(contract), strict=True))


def _compare_answers(engine: SavedModelEngine, dataset: DataSet) -> float:
    """Largest difference in probability between a picture's file and its pixels by the contract."""
    contents = list(_some_files(dataset))
    worst = 0.0
    for start in range(0, len(contents), engine.rows):
        part = contents[start : start + engine.rows]
        pixels = np.stack([load(content, dataset.preprocessing) for content in part])
        difference = np.abs(engine.run_files(part).probabilities - engine.run(pixels).probabilities)
        worst = max(worst, float(difference.max()))
    return worst


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
