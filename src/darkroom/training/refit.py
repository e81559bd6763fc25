"""The second training of `--refit`: what validation has chosen, anew on training and validation pictures together."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from darkroom import files
from darkroom.data.dataset import DataSet
from darkroom.progress import say
from darkroom.runs import Run
from darkroom.training.budget import Plan
from darkroom.training.distributed import ALONE, Team
from darkroom.training.recipes import Settings
from darkroom.training.train import begin, carry_on, make_batches


def first_share(dataset: DataSet) -> float:
    """Share of the minutes for the first of the two trainings, in which the validation pictures are not trained on."""
    train, validation = (len(dataset.manifest.indices(split)) for split in ("train", "validation"))
    return train / (2 * train + validation)


def refit(dataset: DataSet, run: Run, team: Team = ALONE) -> None:
    """Train in RUN/refit, or go on with it, and replace the run's weights when it is done.

    The run must be evaluated before: no network that has seen the validation pictures can be judged by them, so the
    temperature and what is known of validation are those of the first training. Raises what `carry_on` does.
    """
    whole = replace(dataset, manifest=dataset.manifest.with_validation_to_train_on())
    again = Run(run.refit)
    if team.leads and not again.config.exists():
        begin(whole, again, _content(run.read_config(), whole))
    say(
        f"Refit: the same settings on {len(whole.manifest.indices('train')):,} pictures, those of validation among them"
    )
    with team.handed_out(again, goes_on=True) as shared:
        if shared is not None:
            carry_on(whole, shared, team)
    if team.leads:
        _put_in_place(run, again, pictures=len(whole.manifest.indices("train")))


def _content(content: Mapping[str, Any], whole: DataSet) -> dict[str, Any]:
    """config.json of the second training, from that of the first."""
    training = dict(content["training"])
    result = training.pop("result")
    steps_an_epoch = make_batches(whole, Settings.from_json(training["settings"]), seed=content["seed"]).steps
    done = result["steps"] / training["plan"]["steps_an_epoch"]
    epochs = min(result["best_epoch"], done)
    # Exact, whatever the clock says: no validation would tell of a training that was cut short.
    plan = Plan(max(1, round(epochs * steps_an_epoch)), steps_an_epoch)
    return {
        **content,
        "data": {**whole.to_json(), "requested": content["data"]["requested"]},
        "training": {**training, "plan": plan.state_dict(), "spent": 0.0},
    }


def _put_in_place(run: Run, again: Run, *, pictures: int) -> None:
    learned = again.read_config()
    result = learned["training"]["result"]
    with files.replacing(run.weights) as temporary:
        shutil.copyfile(again.weights, temporary)
    content = run.read_config()
    content["training"]["refit"] = {
        "pictures": pictures,
        "leaks": learned["data"]["leaks"],
        **{name: result[name] for name in ("epochs", "steps", "seconds")},
    }
    run.write_config(content)
