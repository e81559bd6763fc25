"""What a bundle says of itself, from the files of its run alone: `darkroom verify` asks again, without PyTorch."""

from darkroom import files
from darkroom.bundle import BundleInfo
from darkroom.engines.novelty import fit_novelty
from darkroom.errors import RunError
from darkroom.evaluation.metrics import headline
from darkroom.preprocess import Preprocessing
from darkroom.runs import Run


def describe(run: Run) -> BundleInfo:
    """What a bundle of the run says of itself before anything is compared; raises `RunError` where too little is known.

    The proof of parity and the hashes of its own files are still to come.
    """
    content, metrics = run.read_config(), run.read_metrics()
    data, network = content["data"], content["network"]
    if run.refitted and "test" not in metrics:
        raise RunError(
            f"nothing is known of the refitted network of {run.folder} yet: open the test split first, with "
            f"`darkroom evaluate {run.folder} --split test`"
        )
    return BundleInfo(
        name=f"{data['name']}-{network['kind']}",
        classes=tuple(data["classes"]),
        preprocessing=Preprocessing.from_json(data["preprocessing"]),
        temperature=metrics["temperature"],
        threshold=metrics["threshold"],
        novelty=fit_novelty(run.read_predictions("validation").logits, metrics["temperature"]),
        model={name: network[name] for name in ("kind", "views", "parameters", "multiply_adds")},
        provenance={
            "source": data["name"],
            "fingerprint": data["fingerprint"],
            "weights_sha256": files.sha256_of(run.weights),
            "run_sha256": run.hashes(),
            "seed": content["seed"],
            "versions": content["versions"],
            "created": content["created"],
            "refit": run.refitted,
        },
        metrics={split: headline(metrics[split]) for split in run.judges()},
    )
