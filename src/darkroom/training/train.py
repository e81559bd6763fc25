"""One training: `settle` (settle.py) decides everything, `begin` writes it down, `carry_on` follows what is written.

A new run and a resumed one differ only in whether the first two are called: both then build all they need from
config.json, so that neither can know anything that the other does not.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darkroom import files
from darkroom.config import OURS, DataConfig, TrainConfig
from darkroom.data.batches import Batches, generator_for, resident
from darkroom.data.dataset import DataSet
from darkroom.errors import UsageError
from darkroom.models.inference import best_device
from darkroom.models.networks import architecture_of
from darkroom.models.stored import save_network
from darkroom.models.summary import Layer, layer_lines
from darkroom.progress import say
from darkroom.runs import Run
from darkroom.training import machine, state
from darkroom.training.budget import Plan, Speed
from darkroom.training.candidates import candidate_of
from darkroom.training.display import clock, live
from darkroom.training.distributed import ALONE, Team
from darkroom.training.fit import LOOK_SECONDS, Keeper, Validation, fit
from darkroom.training.machine import Arithmetic
from darkroom.training.normalisation import share_statistics
from darkroom.training.optimisers import build_optimiser
from darkroom.training.recipes import Settings
from darkroom.training.schedules import LearningRate, Resolution
from darkroom.training.state import State

LEAST_PATIENCE = 10
NOT_COMPARED = {"cache", "archive", "strict"}
"""Settings that do not change what is trained."""


def begin(dataset: DataSet, run: Run, content: dict[str, Any]) -> None:
    """Write manifest and table of layers, then config.json, with which the folder becomes a run."""
    dataset.manifest.write(run.manifest)
    content["data"]["manifest_sha256"] = files.sha256_of(run.manifest)
    layers = [Layer.from_json(row) for row in content["network"]["layers"]]
    files.write_text(run.layers, "\n".join(layer_lines(layers)) + "\n")
    run.write_config(content)


def carry_on(dataset: DataSet, run: Run, team: Team = ALONE) -> None:
    """Train what config.json describes from its last checkpoint, or from the beginning, and keep the best weights.

    All processes of a team call it together; the leader writes.

    Raises:
        TrainingError: the loss is not finite, or a process of the team was lost.
        TrainingStoppedError: the user stopped it, and the checkpoint holds all.
        RunError: the checkpoint is damaged.
    """
    started = time.perf_counter()
    content = run.read_config()
    training = content["training"]
    settings, arithmetic = Settings.from_json(training["settings"]), Arithmetic(**training["arithmetic"])
    _use_threads(training, team)
    if arithmetic.compiled:
        machine.require_compiler(best_device())
    now = _build_state(dataset, content, settings, arithmetic, team)
    run.sweep()
    if run.checkpoint.exists():
        state.restore(now, run.checkpoint, rank=team.rank)
        say(f"Going on from epoch {now.epoch}, step {now.step + 1}")
    elif content["network"]["kind"] != OURS:
        _begin_frozen(now, dataset, content, arithmetic, team)
    team.copy_leader(now.network, now.average)
    batches = make_batches(dataset, settings, seed=content["seed"], team=team)
    _announce(content, settings, arithmetic, now.plan)
    now.elapsed += time.perf_counter() - started
    with (
        RunKeeper(run, tensorboard=training["requested"]["tensorboard"], first_epoch=now.epoch, team=team) as keeper,
        live() as display,
    ):
        fit(
            now,
            batches=batches,
            validation=_validation(dataset),
            settings=settings,
            arithmetic=arithmetic,
            class_weights=_class_weights(dataset, settings),
            keeper=keeper,
            display=display,
            team=team,
            speed=Speed(**training["speed"]),
            look_seconds=0.0 if batches.device.type == "cpu" else LOOK_SECONDS,
        )
        if not now.plan.total_steps:
            keeper.save(now)
    if team.leads:
        _finish(run, content, now)


def _begin_frozen(now: State, dataset: DataSet, content: Mapping[str, Any], arithmetic: Arithmetic, team: Team) -> None:
    """Give a backbone the last layer that suits its features as they are: what training begins with, and must beat."""
    from darkroom.models.backbones import Backbone
    from darkroom.training.frozen import Extraction, train_probe

    if not isinstance(now.network, Backbone):
        raise TypeError(f"{type(now.network).__name__} is no backbone")
    mirrored = content["training"]["mirrored"]
    sha256, cache = content["network"]["origin"]["sha256"], Path(content["data"]["requested"]["cache"])
    extraction = Extraction(now.network, sha256, dataset, arithmetic, cache)
    balanced = content["training"]["settings"]["imbalance"] != "none"
    probe = team.in_turn(lambda: train_probe(extraction, mirrored=mirrored, balanced=balanced))
    probe.put_into(now.network)
    if now.average is not None:
        probe.put_into(now.average.module)
    weights = {name: value.clone() for name, value in now.validated.state_dict().items()}
    now.best = state.Best(epoch=0, accuracy=probe.accuracy, loss=probe.log_loss, weights=weights)
    say(f"Frozen: validation accuracy {probe.accuracy:.2%}, log loss {probe.log_loss:.3f}, no layer of it changed")


def _use_threads(training: Mapping[str, Any], team: Team) -> None:
    """As many as when the run began, since sums depend on it, unless other processes share the machine now."""
    before = training.get("processes", 1)
    if team.size == before:
        machine.use_threads(training["threads"])
        return
    machine.use_threads(training["requested"]["threads"])
    say(f"This run was begun by {before} processes and is continued by {team.size}: the same but for rounding")


def make_batches(dataset: DataSet, settings: Settings, *, seed: int, team: Team = ALONE) -> Batches:
    """Augmented batches of the training split, or this process's share of each.

    Raises:
        UsageError: there are too few pictures in a batch for so many processes.
    """
    batches = Batches(
        pixels=dataset.pixels,
        labels=dataset.manifest.labels(),
        indices=dataset.manifest.indices("train"),
        classes=len(dataset.manifest.classes),
        batch_size=settings.batch_size,
        seed=seed,
        device=best_device(),
        augmentation=settings.augmentation,
        imbalance=settings.imbalance,
        process=team.rank,
        processes=team.size,
        resident=resident(dataset.pixels, dataset.manifest.indices("train"), best_device()),
    )
    smallest = batches.pictures_in(batches.steps - 1)
    if team.size > 1 and smallest < team.size * settings.accumulate:
        raise UsageError(
            f"batches of {smallest} pictures cannot be shared by {team.size} processes in {settings.accumulate} parts: "
            "start fewer processes, or give a larger --batch-size"
        )
    return batches


def _build_state(
    dataset: DataSet, content: Mapping[str, Any], settings: Settings, arithmetic: Arithmetic, team: Team
) -> State:
    training = content["training"]
    architecture = architecture_of(content["network"])
    normalisation = (training["mean"], training["std"])
    network = candidate_of(content["network"]).new(
        dataset, architecture, seed=content["seed"], normalisation=normalisation
    )
    network = machine.arrange(network, arithmetic)
    if team.size > 1:
        if getattr(network, "random_start", False):
            raise UsageError(
                "--random-weights is for one process: of several, each would normalise by its own share of a batch; "
                "go on without torchrun, with --resume"
            )
        share_statistics(network)
    if not team.leads:  # the weights are the same everywhere, dropout is not
        torch.manual_seed(generator_for(content["seed"], 0, team.rank).initial_seed())
    return State(
        network=network,
        average=state.averaged(network, settings.ema_decay or 0.0),
        optimiser=optimiser_of(network, settings),
        learning_rate=LearningRate(settings.schedule),
        plan=Plan(**training["plan"]),
        patience=settings.patience or LEAST_PATIENCE,
        resolution=Resolution(architecture.image_size, settings.resize_from, training["speed"].get("fixed", 0.0)),
        elapsed=training["spent"],
    )


def optimiser_of(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimiser that the settings name, over the parameters of `network`."""
    return build_optimiser(
        network,
        name=settings.optimiser,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        layer_decay=settings.layer_decay,
    )


def _validation(dataset: DataSet) -> Validation:
    manifest = dataset.manifest
    return Validation(dataset.pixels, manifest.labels(), manifest.indices("validation"))


def _class_weights(dataset: DataSet, settings: Settings) -> Tensor | None:
    """Weights (K,) that make every class count the same in the loss, 1 on average over the pictures."""
    if settings.imbalance != "weighted-loss":
        return None
    manifest = dataset.manifest
    counts = np.bincount(manifest.labels()[manifest.indices("train")], minlength=len(manifest.classes))
    weights = counts.sum() / np.maximum(counts, 1) / np.count_nonzero(counts)
    return torch.tensor(weights, dtype=torch.float32, device=best_device())


def _announce(content: Mapping[str, Any], settings: Settings, arithmetic: Arithmetic, plan: Plan) -> None:
    network = content["network"]
    say(
        f"Network: {network['kind']}, {network['parameters']:,} parameters, "
        f"{network['multiply_adds'] / 1e6:,.1f} million multiply-adds a picture"
    )
    if not plan.total_steps:
        return
    budget = f" in {clock(plan.budget)}" if plan.budget else ""
    say(
        f"Training: {plan.total_steps / plan.steps_an_epoch:.1f} epochs{budget} of {plan.steps_an_epoch} steps with "
        f"{settings.batch_size} pictures, {settings.optimiser}, {settings.schedule}, {arithmetic.describe()}"
    )


def _finish(run: Run, content: dict[str, Any], final: State) -> None:
    if content["training"].pop("refit", None):  # its weights were lost, and those of before it come back first
        run.write_config(content)
    save_network(run, final.best.weights)
    judged = math.isfinite(final.best.accuracy)  # a refit is not: it leaves no picture to judge it
    content["training"]["result"] = {
        "best_epoch": final.best.epoch,
        "best_validation_accuracy": final.best.accuracy if judged else None,
        "epochs": len(final.history),
        "steps": final.plan.done,
        "planned_steps": final.plan.total_steps,
        "stopped_early": final.stopped_early,
        "seconds": final.elapsed,
    }
    run.write_config(content)
    why = "no better result for a while" if final.stopped_early else "plan done"
    best = f"; best epoch {final.best.epoch}, validation accuracy {final.best.accuracy:.2%}" if judged else ""
    say(f"Trained in {clock(final.elapsed)} ({why}){best}")


def require_same(run: Run, data: str, *, data_config: DataConfig, config: TrainConfig) -> None:
    """Raise `UsageError` where an option given now contradicts the run that is to be resumed."""
    content = run.read_config()
    if data != content["data"]["argument"]:
        raise UsageError(f"{run.folder} was started on {content['data']['argument']}, not {data}: give another --out")
    pairs = (
        (data_config, content["data"]["requested"]),
        (config, content["training"]["requested"]),
    )
    for given, before in pairs:
        now, default = plain(asdict(given)), plain(asdict(type(given)()))
        for name in now.keys() - NOT_COMPARED:
            then = before.get(name, default[name])
            if now[name] not in (default[name], then):
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option} is {now[name]} but the run was started with {then}: leave it out to resume")


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


class RunKeeper(Keeper):
    """Keeps checkpoints, history and, where wanted, TensorBoard logs in the run folder; only the leader writes."""

    def __init__(self, run: Run, *, tensorboard: bool, first_epoch: int, team: Team = ALONE) -> None:
        self._run, self._team = run, team
        self._writer = _tensorboard_writer(run, first_epoch) if tensorboard and team.leads else None

    def __enter__(self) -> "RunKeeper":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def save(self, now: State) -> None:
        """Replace history and checkpoint; in this order, a process killed between them leaves no row missing."""
        random = self._team.gather(state.random_state())
        if self._team.leads:
            self._run.write_history(now.history)
            state.save(now, self._run.checkpoint, random=random)

    def report(self, row: Mapping[str, float]) -> None:
        """Log one epoch."""
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, global_step=int(row["epoch"]))


def _tensorboard_writer(run: Run, first_epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard needs its package: pip install 'darkroom[tensorboard]'") from error
    return SummaryWriter(str(run.tensorboard), purge_step=first_epoch)
