"""What is decided before a training begins: network, settings, arithmetic and plan, by measuring this machine."""

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from darkroom import files
from darkroom.config import OURS, DataConfig, TrainConfig
from darkroom.data.batches import Batches
from darkroom.data.dataset import DataSet, suitable_size
from darkroom.errors import UsageError
from darkroom.models import networks
from darkroom.models.inference import batch_size_for, best_device, logits_of
from darkroom.models.networks import Architecture
from darkroom.models.summary import summarise
from darkroom.progress import say
from darkroom.provenance import hardware, provenance
from darkroom.training import machine
from darkroom.training.budget import UNMEASURED, Plan, Speed, plan_epochs, plan_minutes
from darkroom.training.candidates import candidate
from darkroom.training.display import clock
from darkroom.training.distributed import ALONE, Team
from darkroom.training.fit import forward_backward, resize
from darkroom.training.machine import Arithmetic
from darkroom.training.recipes import LADDERS, RECIPES, Rung, Settings, complete, moved_and_hidden
from darkroom.training.refit import first_share
from darkroom.training.schedules import Resolution
from darkroom.training.train import LEAST_PATIENCE, make_batches, optimiser_of, plain

if TYPE_CHECKING:
    from darkroom.training.frozen import Extraction

FEATURES_PART = 0.5
"""Most of the minutes that may go into features of a pre-trained network before it is trained; judgement."""

MIRRORED_PART = 0.1
"""Of them, most for features of mirror images, which gain little (docs/lab-notes.md)."""

FASTEST = "arithmetic.json"
"""File in the cache with what was measured to be fastest."""
PROBE_SECONDS = 0.5
VALIDATED = 256
"""Pictures whose validation is timed."""


def settle(dataset: DataSet, *, data_config: DataConfig, config: TrainConfig, team: Team = ALONE) -> dict[str, Any]:
    """Settle architecture, settings, arithmetic and plan: the content of config.json. Nothing is written yet.

    The leader of a team does this while the others wait; it measures what its share of a batch takes.

    Raises:
        UsageError: options do not fit the data, or the minutes are too few for what comes before training.
    """
    started = time.perf_counter()
    machine.use_threads(config.threads)
    if config.compile:
        _require_compilable(team)
    train_ids = dataset.manifest.indices("train")
    settings = complete(
        config,
        image_size=dataset.preprocessing.width,
        pictures=len(train_ids),
        own_size=suitable_size(dataset.manifest),
    )
    entrant = candidate(config.model, random_weights=config.random_weights)
    origin, normalisation = entrant.origin(data_config.seed), entrant.normalisation(dataset)
    batches = make_batches(dataset, settings, seed=data_config.seed, team=team)
    batch = next(iter(batches.epoch(0)))
    architecture = entrant.architecture(dataset, settings)
    arithmetic, threads = _fastest(architecture, settings, batch, config=config, memory=data_config.cache / FASTEST)
    arithmetic = replace(arithmetic, compiled=config.compile)
    probe = Probe(dataset, batches, arithmetic, partial(entrant.architecture, dataset))
    mirrored, ahead = settings.augmentation.flip, 0.0
    if config.frozen:
        plan, speed = plan_epochs(0, steps_an_epoch=batches.steps), UNMEASURED
    elif config.minutes is None:
        plan, speed = plan_epochs(settings.epochs, steps_an_epoch=batches.steps), UNMEASURED
    else:
        minutes = config.minutes * (first_share(dataset) if config.refit else 1)
        settings = _climb(probe, settings, config, seconds=60 * minutes)
        speed = probe.speed(settings)
        if config.model != OURS:
            from darkroom.training.frozen import Extraction

            mean, std = normalisation
            network = networks.build(architecture, mean=mean, std=std).to(best_device())
            extraction = Extraction(network, origin["sha256"], dataset, arithmetic, data_config.cache)  # type: ignore[arg-type]
            mirrored, ahead = _features_ahead(extraction, flip=mirrored, minutes=minutes)
        plan = plan_minutes(
            minutes,
            steps_an_epoch=batches.steps,
            spent=time.perf_counter() - started + ahead,
            speed=_on_average(speed, settings, side=dataset.preprocessing.width),
        )
    training = {
        "requested": plain(asdict(config)),
        "settings": _after_planning(settings, plan, config, side=dataset.preprocessing.width).to_json(),
        "arithmetic": asdict(arithmetic),
        "device": str(best_device()),
        "device_name": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": threads,
        "processes": team.size,
        "mirrored": mirrored,
        "mean": normalisation[0],
        "std": normalisation[1],
        "plan": plan.state_dict(),
        "speed": asdict(speed),
        "spent": time.perf_counter() - started,
    }
    return {
        **provenance(),
        "seed": data_config.seed,
        "data": {**dataset.to_json(), "requested": plain(asdict(data_config))},
        "training": training,
        "network": {
            "kind": entrant.kind,
            "origin": origin,
            "views": settings.views,
            **_describe(entrant.architecture(dataset, settings)),
        },
    }


def _fastest(
    architecture: Architecture, settings: Settings, batch: tuple[Tensor, Tensor], *, config: TrainConfig, memory: Path
) -> tuple[Arithmetic, int]:
    """Number format, layout and threads in which this machine computes this network fastest, measured once.

    They are kept in `memory`: where two are nearly equally fast a second measurement may come out otherwise, and two
    trainings from one seed would differ.
    """
    most = torch.get_num_threads()
    known = {
        "machine": hardware() | {"device": str(best_device()), "threads": most},
        "torch": torch.__version__,
        "batch": list(batch[0].shape),
        "asked": [settings.precision, settings.memory_format, config.threads],
        "network": architecture.to_json(),
    }
    key = json.dumps(known, sort_keys=True)
    chosen = files.read_remembered(memory).get(key)
    if not _is_choice(chosen):
        network = _network_to_time(architecture)
        arithmetic = machine.choose_arithmetic(
            network, batch, precision=settings.precision, memory_format=settings.memory_format
        )
        threads = most if config.threads else machine.choose_threads(network, batch, arithmetic)
        chosen = {"bf16": arithmetic.bf16, "channels_last": arithmetic.channels_last, "threads": threads}
        chosen = _remember(memory, key, chosen)
    torch.set_num_threads(chosen["threads"])
    return Arithmetic(bf16=chosen["bf16"], channels_last=chosen["channels_last"]), chosen["threads"]


def _is_choice(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is what `_fastest` keeps: a cache may have been edited."""
    if not isinstance(value, dict) or not all(isinstance(value.get(name), bool) for name in ("bf16", "channels_last")):
        return False
    threads = value.get("threads")
    return isinstance(threads, int) and not isinstance(threads, bool) and threads >= 1


def _remember(memory: Path, key: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """What `memory` keeps for `key` from now on: what another training wrote meanwhile, or `chosen`."""
    kept = files.read_remembered(memory)
    if not _is_choice(kept.get(key)):
        kept.pop(key, None)
        with suppress(OSError):  # a cache that cannot be written costs only a measurement
            files.write_json(memory, kept | {key: chosen})
    remembered: dict[str, Any] = kept.get(key, chosen)
    return remembered


def _require_compilable(team: Team) -> None:
    if team.size > 1:
        raise UsageError("--compile is not tried with several processes: leave it out, or start one")
    machine.require_compiler(best_device())


def _on_average(speed: Speed, settings: Settings, *, side: int) -> Speed:
    """With the mean time of a step, where pictures are small at first."""
    growth = Resolution(side, settings.resize_from, speed.fixed).cost_to_go(0)
    return replace(speed, step_seconds=speed.step_seconds * growth)


def _network_to_time(architecture: Architecture) -> nn.Module:
    """Neither fitted to the data nor with its weights: that takes time, and makes no difference to that of a step."""
    return networks.build(architecture).to(best_device())


def _features_ahead(extraction: "Extraction", *, flip: bool, minutes: float) -> tuple[bool, float]:
    """Whether features of mirror images are computed too, and the seconds that go into all that are not kept yet.

    Raises:
        UsageError: even without mirror images they take too much of the minutes.
    """
    missing = {mirrored: extraction.missing(mirrored=mirrored) for mirrored in (flip, False)}
    a_view = extraction.seconds_a_view() if any(missing.values()) else 0.0
    for mirrored, views in missing.items():
        more = a_view * (views - missing[False])
        if a_view * views <= FEATURES_PART * 60 * minutes and more <= MIRRORED_PART * 60 * minutes:
            if flip and not mirrored:
                say("For want of time, the last layer begins without features of mirror images")
            return mirrored, a_view * views
    enough = math.ceil(a_view * missing[False] / 60 / FEATURES_PART)
    raise UsageError(
        f"the features of {missing[False]:,} pictures would take {clock(a_view * missing[False])} here, more than "
        f"{FEATURES_PART:.0%} of --minutes {minutes:g}: give --minutes {enough}, or --frozen without minutes"
    )


def _climb(probe: "Probe", settings: Settings, config: TrainConfig, *, seconds: float) -> Settings:
    """The settings on the highest rung of the recipe's ladder of whose network enough epochs fit into the seconds.

    From below, so that little time is not spent on timing networks that are out of reach; what seems too slow is timed
    twice, since machines are shared and pause for a second now and then.
    """
    growth = Resolution(probe.dataset.preprocessing.width, settings.resize_from).cost_to_go(0)
    cheapest, *dearer = LADDERS[settings.recipe]
    reached = _on(cheapest, settings, config)
    for rung in dearer:
        tried = _on(rung, settings, config)
        if tried == reached:  # width and depth were given
            continue
        most = seconds / (rung.epochs * growth * probe.batches.steps)
        if probe.step_seconds(tried) > most and probe.step_seconds(tried, again=True) > most:
            break
        reached = tried
    return reached


def _on(rung: Rung, settings: Settings, config: TrainConfig) -> Settings:
    """The settings with the network of that rung, where the user has left it open."""
    width = rung.width if config.width is None else config.width
    convolutions = rung.convolutions if config.convolutions is None else config.convolutions
    return replace(settings, width=width, convolutions=convolutions)


@dataclass(frozen=True)
class Probe:
    """Measures networks on this machine, each once."""

    dataset: DataSet
    batches: Batches
    arithmetic: Arithmetic
    architecture: Callable[[Settings], Architecture]
    measured: dict[str, float] = field(default_factory=dict)

    def speed(self, settings: Settings) -> Speed:
        """Seconds a step and a validation, and which part of a step does not depend on the size of the pictures."""
        validation = self.dataset.manifest.indices("validation")
        sample = validation[: min(VALIDATED, batch_size_for(self.dataset.preprocessing.width))]
        trial = self._arranged(settings)

        def validate() -> None:
            logits_of(trial, self.dataset.pixels, sample, device=self.batches.device, bf16=self.arithmetic.bf16)

        sample_seconds = float(np.median(machine.timed(validate, seconds=0.2)))
        epoch_seconds = sample_seconds * len(validation) / len(sample) / self.batches.processes
        return Speed(self.step_seconds(settings), epoch_seconds, self._fixed(settings))

    def step_seconds(self, settings: Settings, *, again: bool = False) -> float:
        """The median step, augmentation and optimiser included; if timed `again`, the shorter of both."""
        architecture = self.architecture(settings)
        key = repr(architecture)
        if again or key not in self.measured:
            seconds = self.time_steps(settings, side=architecture.image_size)
            self.measured[key] = min(seconds, self.measured.get(key, seconds))
        return self.measured[key]

    def _fixed(self, settings: Settings) -> float:
        if settings.resize_from == 1:
            return 0.0
        resolution = Resolution(self.dataset.preprocessing.width, settings.resize_from)
        small = self.time_steps(settings, side=resolution.side(0)) / self.step_seconds(settings)
        pixels = resolution.cost(0)
        return min(1.0, max(0.0, (small - pixels) / (1 - pixels)))

    def time_steps(self, settings: Settings, *, side: int) -> float:
        """The median step of a new network on pictures of `side`."""
        step = step_to_time(self._arranged(settings), settings, self.batches, self.arithmetic, side=side)
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
            return float(np.median(machine.timed(step, seconds=PROBE_SECONDS)))

    def _arranged(self, settings: Settings) -> nn.Module:
        return machine.arrange(_network_to_time(self.architecture(settings)), self.arithmetic)


def step_to_time(
    network: nn.Module, settings: Settings, batches: Batches, arithmetic: Arithmetic, *, side: int
) -> Callable[[], None]:
    """One step after the other of a training of `network`, on pictures of `side`; nothing of it is kept."""
    optimiser = optimiser_of(network.train(), settings)
    # Epoch 0 is never trained on, so what is drawn here is drawn nowhere else.
    endless = (batch for _ in iter(int, 1) for batch in batches.epoch(0))

    def step() -> None:
        pictures, targets = next(endless)
        forward_backward(network, optimiser, resize(pictures, side), targets, settings, arithmetic, None)
        optimiser.step()

    return step


def _after_planning(settings: Settings, plan: Plan, config: TrainConfig, *, side: int) -> Settings:
    """Settings that follow from the length of the training: averaging over its last 5 %, patience for half of it.

    Less patience would cut off a schedule that only lowers the learning rate, and with it the error, towards its end.
    """
    decay = (
        settings.ema_decay
        if settings.ema_decay is not None
        else min(0.9995, max(0.8, 1 - 20 / max(1, plan.total_steps)))
    )
    patience = settings.patience or max(LEAST_PATIENCE, plan.epochs // 2)
    fixed = RECIPES[settings.recipe] | {name: value for name, value in vars(config).items() if value is not None}
    by_length = moved_and_hidden(settings.recipe, epochs=plan.epochs, side=side)
    changed = {name: value for name, value in by_length.items() if name not in fixed}
    augmentation = replace(settings.augmentation, **changed)
    return replace(settings, epochs=plan.epochs, ema_decay=decay, patience=patience, augmentation=augmentation)


def _describe(architecture: Architecture) -> dict[str, Any]:
    layers = summarise(networks.build(architecture), architecture.image_size)
    return {
        "architecture": architecture.to_json(),
        "layers": [layer.to_json() for layer in layers],
        "parameters": sum(layer.parameters for layer in layers),
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
    }
