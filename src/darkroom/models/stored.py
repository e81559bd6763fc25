"""The chosen network of a run: written as safetensors, rebuilt from config.json."""

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from darkroom import files
from darkroom.errors import RunError
from darkroom.models import cnn, networks
from darkroom.models.views import with_views
from darkroom.runs import Run


def save_network(run: Run, weights: Mapping[str, Tensor]) -> None:
    """Replace model.safetensors."""
    with files.replacing(run.weights) as temporary:
        save_file({name: value.contiguous().cpu() for name, value in weights.items()}, temporary)


def load_network(run: Run) -> nn.Module:
    """The chosen network, in evaluation mode, on the CPU; it averages over views where the run was asked to.

    Raises:
        RunError: the run has no weights yet, or they do not fit its architecture.
    """
    content = run.read_config()
    if not run.trained:
        raise RunError(f"the training of {run.folder} has not ended: go on with `darkroom train … --resume`")
    network = networks.build(networks.architecture_of(content["network"]))
    try:
        network.load_state_dict(load_file(run.weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise RunError(f"{run.weights} cannot be read ({reason}): train again with --overwrite") from error
    return with_views(cnn.written_out(network), content["network"].get("views", 1)).eval()
