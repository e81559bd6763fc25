"""The slides about how it was made: pictures, preprocessing, network and training; and what all slides share."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from darkroom.errors import ImageError
from darkroom.figures import style
from darkroom.preprocess import decode
from darkroom.report.canvas import MARGIN, ROOM, TOP, WIDTH, Box, Deck, Slide
from darkroom.report.facts import Facts
from darkroom.report.story import is_augmented, leaks, steps_done, told

LEFT: Box = (MARGIN, TOP, 7.4, ROOM)
RIGHT: Box = (8.3, TOP, WIDTH - MARGIN - 8.3, ROOM)
SHOWN_SAMPLES = 10


class Making:
    """The first half of a talk; each method adds a slide, or none where there is nothing to say."""

    def __init__(self, facts: Facts, figures: Mapping[str, Path], samples: Sequence[Path]) -> None:
        self.facts, self.figures, self.samples = facts, figures, samples
        self.deck = Deck()
        self.places: list[int] = []
        self.split = facts.value("insights.split")
        self.block = f"metrics.{self.split}"
        self.tell, self.words, self.has = facts.tell, facts.words, facts.has
        self.value = facts.value  # for decisions: what is shown comes from `tell` and `words`

    def mark(self) -> None:
        """Note on which slide the facts since the last mark were told."""
        self.places += [self.deck.number] * (len(self.facts.told) - len(self.places))

    def data(self) -> None:
        """How many pictures, for what, and what they look like."""
        tell = self.tell
        total, classes = tell("sum:config.data.counts", "count"), tell("count:config.data.classes", "count")
        test, refit = tell("sum:config.data.counts.test", "count"), self.has("config.training.refit")
        opened = "It has not been opened."
        if self.value("metrics.test_openings"):
            opened = f"It has been opened {tell('metrics.test_openings', 'times')}."
        slide = self.deck.slide(
            f"{total} pictures of {classes} classes, {test} of them for the test alone",
            notes="Train teaches the network, validation chooses among its epochs and settings"
            + (", and has taught the last network, too" if refit else "")
            + f"; test is opened at the end to judge what was chosen. {opened}",
        )
        rows = [
            (what, tell(f"sum:config.data.counts.{split}", "count"))
            for split, what in (
                ("train", "train: teaches"),
                ("validation", "validation: both" if refit else "validation: chooses"),
                ("test", "test: judges"),
                ("unused", "left aside"),
            )
            if self.has(f"config.data.counts.{split}")
        ]
        slide.table((MARGIN, TOP, 5.4, 2.2), ("split", "pictures"), rows, first=0.66, words="pictures of each split")
        slide.text((MARGIN, TOP + 2.6, 5.4, 2.7), self._found(), size=16, bullets=True)
        self._gallery(slide)

    def _found(self) -> list[str]:
        """What was found in looking through the pictures."""
        found = [
            f"copies of other pictures: {self.tell('insights.data.copies', 'count')}",
            f"training pictures copied in other splits: {self.tell(leaks(self.facts), 'count')}",
            f"files that could not be read: {self.tell('count:config.data.unreadable', 'count')}",
        ]
        if self.value("insights.data.conflicts"):
            found.append(f"copies with different labels: {self.tell('insights.data.conflicts', 'count')}")
        return found

    def _gallery(self, slide: Slide) -> None:
        columns, side = 4, 1.45
        for place, (name, picture) in enumerate(self._pictures()):
            left, top = 6.6 + place % columns * (side + 0.12), TOP + place // columns * (side + 0.25)
            slide.picture(picture, (left, top, side, side), words=f"a sample: {name}")

    def _pictures(self) -> Iterator[tuple[str, io.BytesIO]]:
        """Samples as PNG, upright, of whatever format they are."""
        for path in self.samples[:SHOWN_SAMPLES]:
            with suppress(ImageError):
                decode(path).save(stream := io.BytesIO(), "PNG")
                yield path.stem, stream

    def preprocessing(self) -> None:
        """The contract."""
        contract = "config.data.preprocessing"
        size = f"{self.tell(f'{contract}.width', 'count')} × {self.tell(f'{contract}.height', 'count')}"
        resize = {
            "cover": "the largest part in the middle is cut out",
            "pad": "bars fill what its shape leaves free",
            "stretch": "it is stretched to the target's shape",
        }[self.value(f"{contract}.resize")]
        learned = "training" if self.value("config.network.kind") == "cnn" else "its first training"
        slide = self.deck.slide(
            "Every picture is prepared the same way in training, evaluation and the server",
            notes="These steps are written down once, travel with the model and are checked with stored pictures "
            "whenever it is exported or served. Many models fail in use because their pictures are prepared otherwise.",
        )
        steps = [
            ("decode", "first frame, eight-bit colour, upright"),
            ("shape", resize),
            ("scale", f"to {size} pixels, {self.words(f'{contract}.interpolation')}"),
            ("normalise", f"in the network, by mean and deviation of {learned}"),
        ]
        _flow(slide, [list(step) for step in steps], top=TOP, height=1.7)
        if "preprocessing" in self.figures:
            path = self.figures["preprocessing"].with_suffix(".png")
            slide.picture(
                path, (MARGIN, TOP + 2.0, WIDTH - 2 * MARGIN, ROOM - 2.0), words="a picture on its way to the network"
            )

    def network(self) -> None:
        """Stages as shapes."""
        tell = self.tell
        parameters = tell("config.network.parameters", "amount")
        work = tell("config.network.multiply_adds", "amount")
        ours = self.value("config.network.kind") == "cnn"
        origin = "designed for these pictures" if ours else self._origin()
        slide = self.deck.slide(
            f"A network of {parameters} parameters, {origin}",
            notes=f"For one picture it multiplies and adds {work} times. From left to right the resolution falls and "
            "the number of channels grows: first edges and colours, then parts, then things.",
        )
        rows = self.value("insights.layers")
        places = range(len(rows)) if len(rows) <= 6 else [*range(3), *range(len(rows) - 3, len(rows))]
        stages = [
            [
                self.words(f"insights.layers.{place}.name").removeprefix("body."),
                tell(f"insights.layers.{place}.output_shape", "shape"),
                f"{tell(f'insights.layers.{place}.parameters', 'amount')} parameters",
            ]
            for place in places
        ]
        _flow(slide, stages, top=TOP + 0.1, height=2.3)
        lines = [f"{work} multiply-adds a picture; shapes are channels × height × width"]
        if len(places) < len(rows):
            lines.append(f"the first and the last of {tell('count:insights.layers', 'count')} stages are shown")
        lines += self._why_so(ours)
        slide.text((MARGIN, TOP + 2.8, WIDTH - 2 * MARGIN, 2.5), lines, bullets=True)

    def _why_so(self, ours: bool) -> list[str]:
        if not ours:
            return ["what it has learned of edges, textures and shapes serves these pictures too"]
        lines = ["filters begin by passing on what they see, so that few epochs are enough"]
        if self.value("config.network.architecture.stem") == "whitening":
            lines.append("whitening first: the first convolution is computed from patches of the pictures")
        if self.value("config.network.architecture.mirrored"):
            lines.append("half of the filters mirror the others, since a mirror image is of the same class")
        return lines

    def training(self) -> None:
        """Learning curves, where there are epochs."""
        if not self.value("config.training.result.epochs"):
            return self._last_layer()
        tell, augmented = self.tell, is_augmented(self.facts)
        best, result = self.value("config.training.result.best_epoch"), "config.training.result"
        chosen = f"epoch {tell(f'{result}.best_epoch', 'count')}" if best else "the fitted last layer alone"
        seconds, refit = tell("insights.time.seconds", "duration"), self.has("config.training.refit")
        slide = self.deck.slide(
            f"{tell(f'{result}.epochs', 'epochs')} in {seconds}; {chosen} was best on validation and "
            + ("was trained anew" if refit else "was kept"),
            notes="The lines show which share of the training views and of the validation pictures was right after "
            "each epoch. "
            + ("Training views are made harder by augmentation, so its line may lie below. " if augmented else "")
            + self._refit_notes(),
        )
        series = {
            "training views" if augmented else "training": self._column("history", "train_accuracy"),
            "validation": self._column("history", "validation_accuracy"),
        }
        epoch = self._column("history", "epoch")
        words = "share of right answers in training and validation after each epoch"
        slide.lines(LEFT, epoch, series, format="0%", across="epoch", up="accuracy", high=1, words=words)
        slide.text(RIGHT, self._settings(), bullets=True)

    def _last_layer(self) -> None:
        seconds = self.tell("insights.time.seconds", "duration")
        slide = self.deck.slide(
            f"A new last layer on a pre-trained network, fitted in {seconds}",
            notes="All pictures went through the network once; only a linear classifier on what came out was "
            "fitted. How strongly it is regularised was chosen on validation.",
        )
        accuracy = self.tell("config.training.result.best_validation_accuracy", "percent")
        pictures = self.tell("sum:config.data.counts.train", "count")
        width = (WIDTH - 2 * MARGIN - 0.6) / 3
        cards = [(accuracy, "of validation right"), (pictures, "training pictures"), (seconds, "in all")]
        for place, (value, label) in enumerate(cards):
            slide.card((MARGIN + place * (width + 0.3), TOP + 0.1, width, 2.1), value=value, label=label)
        lines = [
            "every picture went through the pre-trained network once, which stays as it is",
            "a linear classifier was fitted to what came out",
            "how strongly it is regularised was chosen on validation",
            self._machine(),
        ]
        slide.text((MARGIN, TOP + 2.6, WIDTH - 2 * MARGIN, 2.6), lines, bullets=True)

    def _settings(self) -> list[str]:
        """How it was trained, in lines."""
        tell, settings = self.tell, "config.training.settings"
        lines = [
            told(steps_done(self.facts), tell),
            f"{self.words(f'{settings}.optimiser')}, {self.words(f'{settings}.schedule')} schedule",
        ]
        if self.value(f"{settings}.label_smoothing"):
            lines.append(f"label smoothing {tell(f'{settings}.label_smoothing', 'number')}")
        if self.has("config.training.refit"):
            lines.append(f"refit on {tell('config.training.refit.pictures', 'pictures')}, validation among them")
        return [*lines, self._machine()]

    def _refit_notes(self) -> str:
        if not self.has("config.training.refit"):
            return ""
        steps = self.tell("config.training.refit.steps", "steps")
        return (
            f"Then a new network was trained with the same settings for {steps}, on train and validation together. "
            "It is the one that test judges; temperature and threshold are those of the network before."
        )

    def _machine(self) -> str:
        return f"{self.tell('config.hardware.cores', 'count')} cores, {self.words('config.hardware.processor')}"

    def _column(self, path: str, name: str, places: Sequence[int] | None = None) -> list[float]:
        """The values of that name in rows at `path` (all, or those at `places`), told since a chart shows them."""
        places = range(len(self.value(path))) if places is None else places
        for place in places:
            self.tell(f"{path}.{place}.{name}", "decimal")
        return [self.value(f"{path}.{place}.{name}") for place in places]

    def _origin(self) -> str:
        random = self.has("config.network.origin") and self.value("config.network.origin.random")
        return "begun from random weights" if random else "pre-trained on other pictures"


def _flow(slide: Slide, stages: Sequence[Sequence[str]], *, top: float, height: float) -> None:
    """Boxes with arrows between them, from left to right."""
    gap = 0.45
    width = (WIDTH - 2 * MARGIN - gap * (len(stages) - 1)) / len(stages)
    for place, words in enumerate(stages):
        left = MARGIN + place * (width + gap)
        slide.shape((left, top, width, height), color=style.WASH, words=words)
        if place:
            slide.arrow((left - gap + 0.08, top + height / 2 - 0.12, gap - 0.16, 0.24))
