"""One training: `settle` decides everything, `begin` writes it down, `carry_on` follows what is written.

A new run and a resumed one differ only in whether the first two are called: both then build all they need from
config.json, so that neither can know anything that the other does not.
"""

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darkroom import files
from darkroom.config import DataConfig, TrainConfig
from darkroom.data.batches import Batches, channel_statistics
from darkroom.data.dataset import DataSet
from darkroom.errors import UsageError
from darkroom.models import cnn
from darkroom.models.inference import batch_size_for, best_device, logits_of
from darkroom.models.stored import save_network
from darkroom.models.summary import Layer, layer_lines, summarise
from darkroom.progress import say
from darkroom.provenance import provenance
from darkroom.runs import Run
from darkroom.training import machine, state
from darkroom.training.budget import Plan, Speed, plan_epochs, plan_minutes
from darkroom.training.display import clock, live
from darkroom.training.fit import Keeper, Validation, fit, forward_backward
from darkroom.training.machine import Arithmetic
from darkroom.training.optimisers import build_optimiser
from darkroom.training.recipes import Settings, complete
from darkroom.training.schedules import LearningRate
from darkroom.training.state import State

LEAST_PATIENCE = 10
NOT_COMPARED = {"cache", "archive", "strict"}
"""Settings that do not change what is trained."""


def settle(dataset: DataSet, *, data_config: DataConfig, config: TrainConfig) -> dict[str, Any]:
    """Settle architecture, settings, arithmetic and plan: the content of config.json. Nothing is written yet."""
    started = time.perf_counter()
    threads = machine.use_threads(config.threads)
    train_ids = dataset.manifest.indices("train")
    side, classes = dataset.preprocessing.width, len(dataset.manifest.classes)
    settings = complete(config, image_size=side, pictures=len(train_ids))
    architecture = cnn.design(
        image_size=side, classes=classes, pictures=len(train_ids), width=settings.width, dropout=settings.dropout
    )
    mean, std = channel_statistics(dataset.pixels, train_ids)
    torch.manual_seed(data_config.seed)
    network = cnn.build(architecture, mean=mean, std=std).to(best_device())
    batches = make_batches(dataset, settings, seed=data_config.seed)
    arithmetic = machine.choose_arithmetic(
        network, next(iter(batches.epoch(0))), precision=settings.precision, memory_format=settings.memory_format
    )
    plan, speed = _plan(network, batches, dataset, settings, arithmetic, config, started)
    training = {
        "requested": _plain(asdict(config)),
        "settings": _after_planning(settings, plan).to_json(),
        "arithmetic": asdict(arithmetic),
        "device": str(best_device()),
        "threads": threads,
        "mean": mean,
        "std": std,
        "plan": plan.state_dict(),
        "speed": asdict(speed),
        "spent": time.perf_counter() - started,
    }
    return {
        **provenance(),
        "seed": data_config.seed,
        "data": {**dataset.to_json(), "requested": _plain(asdict(data_config))},
        "training": training,
        "network": {"kind": config.model, **_describe(architecture, network)},
    }


def begin(dataset: DataSet, run: Run, content: dict[str, Any]) -> None:
    """Write manifest and table of layers, then config.json, with which the folder becomes a run."""
    dataset.manifest.write(run.manifest)
    content["data"]["manifest_sha256"] = files.sha256_of(run.manifest)
    layers = [Layer.from_json(row) for row in content["network"]["layers"]]
    files.write_text(run.layers, "\n".join(layer_lines(layers)) + "\n")
    run.write_config(content)


def _describe(architecture: cnn.Architecture, network: nn.Module) -> dict[str, Any]:
    layers = summarise(network, architecture.image_size)
    return {
        "architecture": architecture.to_json(),
        "layers": [layer.to_json() for layer in layers],
        "parameters": sum(layer.parameters for layer in layers),
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
    }


def carry_on(dataset: DataSet, run: Run) -> None:
    """Train what config.json describes from its last checkpoint, or from the beginning, and keep the best weights.

    Raises:
        TrainingError: the loss is not finite.
        TrainingStoppedError: the user stopped it, and the checkpoint holds all.
        RunError: the checkpoint is damaged.
    """
    content = run.read_config()
    training = content["training"]
    settings, arithmetic = Settings.from_json(training["settings"]), Arithmetic(**training["arithmetic"])
    machine.use_threads(training["threads"])
    now = _build_state(content, settings, arithmetic)
    run.sweep()
    if run.checkpoint.exists():
        state.restore(now, run.checkpoint)
        say(f"Going on from epoch {now.epoch}, step {now.step + 1}")
    _announce(content, settings, arithmetic, now.plan)
    with (
        RunKeeper(run, tensorboard=training["requested"]["tensorboard"], first_epoch=now.epoch) as keeper,
        live() as display,
    ):
        fit(
            now,
            batches=make_batches(dataset, settings, seed=content["seed"]),
            validation=_validation(dataset),
            settings=settings,
            arithmetic=arithmetic,
            class_weights=_class_weights(dataset, settings),
            keeper=keeper,
            display=display,
            speed=Speed(**training["speed"]),
        )
    _finish(run, content, now)


def make_batches(dataset: DataSet, settings: Settings, *, seed: int) -> Batches:
    """Augmented batches of the training split."""
    return Batches(
        pixels=dataset.pixels,
        labels=dataset.manifest.labels(),
        indices=dataset.manifest.indices("train"),
        classes=len(dataset.manifest.classes),
        batch_size=settings.batch_size,
        seed=seed,
        device=best_device(),
        augmentation=settings.augmentation,
        imbalance=settings.imbalance,
    )


def _build_state(content: Mapping[str, Any], settings: Settings, arithmetic: Arithmetic) -> State:
    training = content["training"]
    torch.manual_seed(content["seed"])
    network: nn.Module = cnn.build(
        cnn.Architecture.from_json(content["network"]["architecture"]),
        mean=training["mean"],
        std=training["std"],
    )
    network = machine.arrange(network.to(best_device()), arithmetic)
    return State(
        network=network,
        average=state.averaged(network, settings.ema_decay or 0.0),
        optimiser=_optimiser(network, settings),
        learning_rate=LearningRate(settings.schedule),
        plan=Plan(**training["plan"]),
        patience=settings.patience or LEAST_PATIENCE,
        elapsed=training["spent"],
    )


def _optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    return build_optimiser(
        network,
        name=settings.optimiser,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
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


def _plan(
    network: nn.Module,
    batches: Batches,
    dataset: DataSet,
    settings: Settings,
    arithmetic: Arithmetic,
    config: TrainConfig,
    started: float,
) -> tuple[Plan, Speed]:
    """The epochs wished for, or as many steps as fit into the minutes, by measuring a few on a copy of the network."""
    if config.minutes is None:
        return plan_epochs(settings.epochs, steps_an_epoch=batches.steps), Speed(0.0, 0.0)
    speed = _measure(network, batches, dataset, settings, arithmetic)
    spent = time.perf_counter() - started
    return plan_minutes(config.minutes, steps_an_epoch=batches.steps, spent=spent, speed=speed), speed


def _measure(
    network: nn.Module, batches: Batches, dataset: DataSet, settings: Settings, arithmetic: Arithmetic
) -> Speed:
    trial = machine.arrange(copy.deepcopy(network).train(), arithmetic)
    optimiser = _optimiser(trial, settings)
    # Epoch 0 is never trained on, so what is drawn here is drawn nowhere else.
    endless = (batch for _ in iter(int, 1) for batch in batches.epoch(0))

    def step() -> None:
        pictures, targets = next(endless)
        forward_backward(trial, optimiser, pictures, targets, settings, arithmetic, None)
        optimiser.step()

    validation = dataset.manifest.indices("validation")
    sample = validation[: batch_size_for(dataset.preprocessing.width)]

    def validate() -> None:
        logits_of(trial, dataset.pixels, sample, device=batches.device, bf16=arithmetic.bf16)

    with torch.random.fork_rng():
        step_seconds = float(np.median(machine.timed(step, seconds=1.0)))
        validation_seconds = float(np.median(machine.timed(validate, seconds=0.2))) * len(validation) / len(sample)
    return Speed(step_seconds, validation_seconds)


def _after_planning(settings: Settings, plan: Plan) -> Settings:
    """Settings that follow from the length of the training: averaging over its last 5 %, patience for half of it.

    Less patience would cut off a schedule that only lowers the learning rate, and with it the error, towards its end.
    """
    decay = settings.ema_decay if settings.ema_decay is not None else min(0.9995, max(0.8, 1 - 20 / plan.total_steps))
    patience = settings.patience or max(LEAST_PATIENCE, plan.epochs // 2)
    return replace(settings, epochs=plan.epochs, ema_decay=decay, patience=patience)


def _announce(content: Mapping[str, Any], settings: Settings, arithmetic: Arithmetic, plan: Plan) -> None:
    network = content["network"]
    say(
        f"Network: {len(network['architecture']['widths'])} stages, {network['parameters']:,} parameters, "
        f"{network['multiply_adds'] / 1e6:,.1f} million multiply-adds a picture"
    )
    budget = f" in {clock(plan.budget)}" if plan.budget else ""
    say(
        f"Training: {plan.total_steps / plan.steps_an_epoch:.1f} epochs{budget} of {plan.steps_an_epoch} steps with "
        f"{settings.batch_size} pictures, {settings.optimiser}, {settings.schedule}, {arithmetic.describe()}"
    )


def _finish(run: Run, content: dict[str, Any], final: State) -> None:
    save_network(run, final.best.weights)
    content["training"]["result"] = {
        "best_epoch": final.best.epoch,
        "best_validation_accuracy": final.best.accuracy,
        "epochs": len(final.history),
        "steps": final.plan.done,
        "planned_steps": final.plan.total_steps,
        "stopped_early": final.stopped_early,
        "seconds": final.elapsed,
    }
    run.write_config(content)
    why = "no better result for a while" if final.stopped_early else "plan done"
    say(
        f"Trained in {clock(final.elapsed)} ({why}); best epoch {final.best.epoch}, "
        f"validation accuracy {final.best.accuracy:.2%}"
    )


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
        now, default = _plain(asdict(given)), _plain(asdict(type(given)()))
        for name in now.keys() - NOT_COMPARED:
            if now[name] != default[name] and now[name] != before[name]:
                option = "--" + name.replace("_", "-")
                raise UsageError(
                    f"{option} is {now[name]} but the run was started with {before[name]}: leave it out to resume"
                )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


class RunKeeper(Keeper):
    """Keeps checkpoints and history in the run folder, and TensorBoard logs where they are wanted."""

    def __init__(self, run: Run, *, tensorboard: bool, first_epoch: int) -> None:
        self._run = run
        self._writer = _tensorboard_writer(run, first_epoch) if tensorboard else None

    def __enter__(self) -> "RunKeeper":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def save(self, now: State) -> None:
        """Replace history and checkpoint; in this order, a process killed between them leaves no row missing."""
        self._run.write_history(now.history)
        state.save(now, self._run.checkpoint)

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
