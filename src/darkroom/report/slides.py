"""The slides: one message each, from the same facts as the report, with notes that explain it in plain words."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from darkroom.errors import ImageError
from darkroom.figures import style
from darkroom.preprocess import decode
from darkroom.report.canvas import MARGIN, ROOM, TITLE, TOP, WIDTH, Box, Deck, Slide
from darkroom.report.facts import Facts, join
from darkroom.report.story import METRICS, advice_of, headings, more_pictures, title_of

WHOLE: Box = (MARGIN, TOP, WIDTH - 2 * MARGIN, ROOM)
LEFT: Box = (MARGIN, TOP, 7.4, ROOM)
RIGHT: Box = (8.3, TOP, WIDTH - MARGIN - 8.3, ROOM)
BARS = 12
"""Bars of a chart that can be told apart from the last row."""
SHOWN_SAMPLES = 10


@style.look()
def deck(facts: Facts, figures: Mapping[str, Path], samples: Sequence[Path] = ()) -> tuple[bytes, list[int]]:
    """The file, and for each fact that was told the number of its slide."""
    talk = Talk(facts, figures, samples)
    for part in (
        talk.headline,
        talk.data,
        talk.preprocessing,
        talk.network,
        talk.training,
        talk.metrics,
        talk.classes,
        talk.confusions,
        talk.calibration,
        talk.mistakes,
        talk.comparison,
        talk.ablation,
        talk.next_steps,
        talk.again,
    ):
        part()
        talk.mark()
    return talk.deck.to_bytes(title=title_of(facts)), talk.places


class Talk:
    """The slides in their order; each method adds one, or none where there is nothing to say."""

    def __init__(self, facts: Facts, figures: Mapping[str, Path], samples: Sequence[Path]) -> None:
        self.facts, self.figures, self.samples = facts, figures, samples
        self.deck = Deck()
        self.places: list[int] = []
        self.split = facts.value("insights.split")
        self.block = f"metrics.{self.split}"
        self.tell, self.value, self.has = facts.tell, facts.value, facts.has

    def mark(self) -> None:
        """Note on which slide the facts since the last mark were told."""
        self.places += [self.deck.number] * (len(self.facts.told) - len(self.places))

    def headline(self) -> None:
        """What it is and how good."""
        tell, block = self.tell, self.block
        accuracy, n = tell(f"{block}.accuracy.value", "percent"), tell(f"{block}.n", "count")
        low, high = tell(f"{block}.accuracy.low", "percent"), tell(f"{block}.accuracy.high", "percent")
        classes = tell("count:config.data.classes", "count")
        slide = self.deck.slide(
            f"{title_of(self.facts)}: {accuracy} of {n} {self.split} pictures are right",
            notes=f"The network was shown {n} pictures that took no part in its training. It put {accuracy} of them "
            f"into the right one of {classes} classes. With other pictures of the kind the value would lie between "
            f"{low} and {high} in {tell('darkroom.confidence', 'whole percent')} of all cases.",
        )
        cards = [
            (accuracy, f"accuracy on {n} {self.split} pictures ({low} to {high})"),
            (tell(f"{block}.macro_f1.value", "percent"), "macro F1: every class counts the same"),
            (tell(f"{block}.ece.value", "points"), "calibration error of its confidence"),
        ]
        width = (WIDTH - 2 * MARGIN - 0.6) / 3
        for place, (value, label) in enumerate(cards):
            slide.card((MARGIN + place * (width + 0.3), TOP + 0.2, width, 2.1), value=value, label=label)
        lines = [self._what_it_is(), self._what_goes_wrong()]
        slide.text((MARGIN, TOP + 2.7, WIDTH - 2 * MARGIN, 2.2), lines)

    def _what_it_is(self) -> str:
        seconds = self.tell("config.training.result.seconds", "duration")
        if self.has("comparison"):
            chosen, n = self.tell("comparison.choice.chosen", "text"), self.tell("count:comparison.candidates", "count")
            return f"It is {chosen}, chosen among {n} candidates; its training took {seconds}."
        if self.value("config.network.kind") == "cnn":
            parameters = self.tell("config.network.parameters", "amount")
            return f"It is a convolutional network of {parameters} parameters, trained from scratch in {seconds}."
        return (
            f"It is {self.value('config.network.kind')}, trained on other pictures before, and on these in {seconds}."
        )

    def _what_goes_wrong(self) -> str:
        if not self.has("insights.confused.both"):
            return "No picture was put into a wrong class."
        one, other = (self.value(f"insights.confused.both.{which}") for which in ("one", "other"))
        share = self.tell("insights.confused.both.share", "percent")
        return f"What goes wrong most: {one} and {other} are taken for each other ({share} of all mistakes)."

    def data(self) -> None:
        """How many pictures, for what, and what they look like."""
        tell = self.tell
        total, classes = tell("sum:config.data.counts", "count"), tell("count:config.data.classes", "count")
        slide = self.deck.slide(
            f"{total} pictures of {classes} classes, and the test pictures kept apart from the start",
            notes="Train teaches the network, validation chooses among its epochs and settings, and test is opened at "
            f"the end to judge what was chosen. It has been opened {tell('metrics.test_openings', 'times')}.",
        )
        rows = [
            (what, tell(f"sum:config.data.counts.{split}", "count"))
            for split, what in (
                ("train", "train: teaches"),
                ("validation", "validation: chooses"),
                ("test", "test: judges"),
                ("unused", "left aside"),
            )
            if self.has(f"config.data.counts.{split}")
        ]
        slide.table((MARGIN, TOP, 5.4, 2.0), ("split", "pictures"), rows, first=0.6)
        found = [
            f"copies of other pictures: {tell('insights.data.copies', 'count')}",
            f"training pictures with a copy in validation or test: {tell('config.data.leaks', 'count')}",
            f"files that could not be read: {tell('count:config.data.unreadable', 'count')}",
        ]
        slide.text((MARGIN, TOP + 2.5, 5.4, 2.6), found, size=16, bullets=True)
        self._gallery(slide)

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
        slide = self.deck.slide(
            "Every picture is prepared the same way in training, evaluation and the server",
            notes="These steps are written down once, travel with the model and are checked with stored pictures "
            "whenever it is exported or served. Many models fail in use because their pictures are prepared otherwise.",
        )
        steps = [
            ("decode", "first frame, eight-bit colour, upright"),
            ("shape", resize),
            ("scale", f"to {size} pixels, {self.value(f'{contract}.interpolation')}"),
            ("normalise", "in the network, by mean and deviation of training"),
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
        origin = "designed for these pictures" if ours else "pre-trained on other pictures"
        slide = self.deck.slide(
            f"A network of {parameters} parameters, {origin}",
            notes=f"For one picture it multiplies and adds {work} times. From left to right the resolution falls and "
            "the number of channels grows: first edges and colours, then parts, then things.",
        )
        rows = self.value("insights.layers")
        shown = rows if len(rows) <= 6 else [*rows[:3], *rows[-3:]]
        stages = []
        for row in shown:
            path = f"insights.layers.{rows.index(row)}"
            stages.append(
                [
                    row["name"].removeprefix("body."),
                    tell(f"{path}.output_shape", "shape"),
                    f"{tell(f'{path}.parameters', 'amount')} parameters",
                ]
            )
        _flow(slide, stages, top=TOP + 0.2, height=1.9)
        lines = [f"{work} multiply-adds for a picture"]
        if len(shown) < len(rows):
            lines.append(f"the first and the last of {tell('count:insights.layers', 'count')} stages are shown")
        if ours and self.value("config.network.architecture.stem") == "whitening":
            lines.append("whitening first: the first convolution is computed from patches of the pictures")
        if ours:
            lines.append("filters begin by passing on what they see, so that few epochs are enough")
        slide.text((MARGIN, TOP + 2.6, WIDTH - 2 * MARGIN, 2.4), lines, bullets=True)

    def training(self) -> None:
        """Learning curves, where there are epochs."""
        tell = self.tell
        seconds = tell("config.training.result.seconds", "duration")
        if not self.value("config.training.result.epochs"):
            slide = self.deck.slide(
                f"A new last layer on a pre-trained network, fitted in {seconds}",
                notes="All pictures went through the network once; only a linear classifier on what came out was "
                "fitted. How strongly it is regularised was chosen on validation.",
            )
            accuracy = tell("config.training.result.best_validation_accuracy", "percent")
            slide.card((MARGIN, TOP, 4.5, 2.1), value=accuracy, label="of validation right")
            lines = [
                "every picture went through the pre-trained network once, which stays as it is",
                "a linear classifier was fitted to what came out",
                "how strongly it is regularised was chosen on validation",
                self._machine(),
            ]
            slide.text((MARGIN, TOP + 2.5, WIDTH - 2 * MARGIN, 2.6), lines, bullets=True)
            return
        epochs, best = (
            tell("config.training.result.epochs", "count"),
            tell("config.training.result.best_epoch", "count"),
        )
        kept = (
            f"epoch {best} was"
            if self.value("config.training.result.best_epoch")
            else "the fitted last layer alone was"
        )
        slide = self.deck.slide(
            f"{epochs} epochs in {seconds}; {kept} best on validation and was kept",
            notes="The lines show which share of the training views and of the validation pictures was right after "
            "each epoch. Training views are made harder by augmentation, so its line may lie below.",
        )
        series = {
            "training views": self._column("history", "train_accuracy"),
            "validation": self._column("history", "validation_accuracy"),
        }
        epoch = self._column("history", "epoch")
        slide.lines(LEFT, epoch, series, format="0%", across="epoch", up="accuracy", high=1)
        settings = "config.training.settings"
        slide.text(
            RIGHT,
            [
                f"{self.value(f'{settings}.optimiser')}, {self.value(f'{settings}.schedule')} schedule",
                f"{tell(f'{settings}.batch_size', 'count')} pictures a step",
                f"label smoothing {tell(f'{settings}.label_smoothing', 'number')}",
                self._machine(),
            ],
            bullets=True,
        )

    def _machine(self) -> str:
        return f"{self.tell('config.hardware.cores', 'count')} cores, {self.value('config.hardware.processor')}"

    def _column(self, path: str, name: str) -> list[float]:
        """The values of that name in all rows at `path`, told one by one, since a chart shows them."""
        places = range(len(self.value(path)))
        for place in places:
            self.tell(f"{path}.{place}.{name}", "decimal")
        return [self.value(f"{path}.{place}.{name}") for place in places]

    def metrics(self) -> None:
        """All metrics with intervals."""
        tell, block = self.tell, self.block
        f1, log_loss = tell(f"{block}.macro_f1.value", "percent"), tell(f"{block}.log_loss.value", "decimal")
        slide = self.deck.slide(
            f"Macro F1 {f1}, log loss {log_loss}",
            notes="Accuracy counts pictures, macro averages count classes. Log loss punishes confident mistakes. The "
            "intervals say how far the values may be off because of the choice of pictures.",
        )
        rows = []
        for name, title, kind in METRICS:
            path = f"{block}.{name}"
            if self.has(path):
                interval = f"{tell(f'{path}.low', kind)} to {tell(f'{path}.high', kind)}"
                rows.append((title, tell(f"{path}.value", kind), interval))
        level = tell("darkroom.confidence", "whole percent")
        slide.table((MARGIN, TOP, 9.5, 4.6), ("metric", "value", f"{level} interval"), rows, first=0.4)

    def classes(self) -> None:
        """F1 a class, the weakest first."""
        ranking = self.value("insights.ranking")
        shown = ranking[:BARS]
        path = {name: f"{self.block}.{join('per_class', name)}.f1" for name in ranking}
        worst, best = self.tell(path[ranking[0]], "percent"), self.tell(path[ranking[-1]], "percent")
        slide = self.deck.slide(
            f"Weakest is {_short(ranking[0])} (F1 {worst}), strongest {_short(ranking[-1])} ({best})",
            notes=f"The weakest class is {ranking[0]}, the strongest {ranking[-1]}. "
            "F1 is high only where a class is both found (recall) and not named wrongly (precision). "
            + ("All classes are shown." if len(shown) == len(ranking) else "Only the weakest classes are shown."),
        )
        values = {name: self.value(path[name]) for name in shown}
        for name in shown:
            self.tell(path[name], "percent")
        slide.bars(WHOLE, values, format="0.0%", series="F1", low=0, high=1)

    def confusions(self) -> None:
        """The most frequent mistakes."""
        if not self.has("insights.confused.both"):
            return
        tell = self.tell
        one, other = (self.value(f"insights.confused.both.{which}") for which in ("one", "other"))
        often, share = tell("insights.confused.both.n", "times"), tell("insights.confused.both.share", "percent")
        slide = self.deck.slide(
            f"{_short(one)} and {_short(other)} are taken for each other {often}: {share} of all mistakes",
            notes=f"These are {one} and {other}. "
            f"Of {tell('insights.mistakes.of', 'count')} pictures {tell('insights.mistakes.n', 'count')} got a "
            "wrong answer. The bars show the most frequent mistakes, from the true class to the answer.",
        )
        values = {}
        for place, pair in enumerate(self.value("insights.confused.pairs")):
            tell(f"insights.confused.pairs.{place}.count", "count")
            values[f"{pair['true']} → {pair['said']}"] = pair["count"]
        slide.bars(WHOLE, values, format="#,##0", series="pictures", low=0, color=style.VERMILLION)

    def calibration(self) -> None:
        """Accuracy over confidence."""
        tell = self.tell
        ece = tell(f"{self.block}.ece.value", "points")
        slide = self.deck.slide(
            f"Its confidence is off by {ece} on average",
            notes="If of all answers given with a certain confidence that share is right, the points lie on the "
            "diagonal. The confidence was calibrated on validation, by a temperature.",
        )
        bins = "insights.calibration"
        slide.points(
            LEFT,
            {
                "answers": (self._column(bins, "confidence"), self._column(bins, "accuracy")),
                "ideal": ([0, 1], [0, 1]),
            },
            guide="ideal",
            high=(1, 1),
            formats=("0%", "0%"),
            across="confidence",
            up="share that is right",
        )
        lines = [f"temperature {tell('metrics.temperature', 'decimal')}, fitted on validation"]
        if self.has("insights.not_sure.accuracy"):
            lines += [
                f"below {tell('insights.not_sure.threshold', 'percent')} the answer is “not sure”: "
                f"{tell('insights.not_sure.share', 'percent')} of the pictures",
                f"of the others {tell('insights.not_sure.accuracy', 'percent')} are right",
            ]
        slide.text(RIGHT, lines, bullets=True)

    def mistakes(self) -> None:
        """The surest mistakes as pictures."""
        if "surest_mistakes" not in self.figures or not self.value("insights.mistakes.n"):
            return
        sure = self.tell("insights.mistakes.sure", "count") if self.value("insights.mistakes.sure") else None
        bound = self.tell("insights.mistakes.sure_from", "whole percent")
        slide = self.deck.slide(
            f"In {sure} mistakes it is at least {bound} sure: are all these labels right?"
            if sure
            else f"In none of its mistakes it is as much as {bound} sure",
            notes="These are the mistakes of which the network is surest, with the true class, the answer and its "
            "confidence. Some may be wrong labels; most show what it has not understood.",
        )
        path = self.figures["surest_mistakes"].with_suffix(".png")
        slide.picture(path, WHOLE, words="pictures put into a wrong class with high confidence")

    def comparison(self) -> None:
        """Accuracy against latency, and the table."""
        if not self.has("comparison"):
            return
        tell = self.tell
        chosen = tell("comparison.choice.chosen", "text")
        slide = self.deck.slide(
            f"{chosen} is chosen among {tell('count:comparison.candidates', 'count')} networks",
            notes=f"The rule: {tell('comparison.choice.rule', 'text')}. Only validation was looked at to choose. "
            "Accuracies are those of validation, milliseconds those for one picture in ONNX Runtime on this machine.",
        )
        rows, drawn = [], {}
        candidates = self.value("comparison.candidates")
        order = sorted(range(len(candidates)), key=lambda place: -candidates[place]["validation"]["accuracy"]["value"])
        for place in order[:8]:
            path = f"comparison.candidates.{place}"
            row = candidates[place]
            accuracy = tell(f"{path}.validation.accuracy.value", "percent")
            latency = tell(f"{path}.serving.milliseconds", "milliseconds")
            rows.append((f"{'▶ ' if row['chosen'] else ''}{row['name']}", accuracy, f"{latency} ms"))
            drawn[row["name"]] = ([row["serving"]["milliseconds"]], [row["validation"]["accuracy"]["value"]])
        slide.table((MARGIN, TOP, 5.9, ROOM), ("network", "accuracy", "a picture"), rows, first=0.5)
        slide.points(
            (6.7, TOP, WIDTH - MARGIN - 6.7, ROOM),
            drawn,
            formats=("0.0%", "0"),
            across="milliseconds for one picture",
            up="validation accuracy",
        )

    def ablation(self) -> None:
        """Effects as bars."""
        if not self.has("ablation"):
            return
        effects = self.value("ablation.effects")
        order = sorted(range(len(effects)), key=lambda place: effects[place]["mean"])[:BARS]
        choices = [place for place in order if effects[place].get("factor") != "pictures"]  # nobody chooses fewer
        sure = [place for place in choices or order if effects[place]["low"] > 0 or effects[place]["high"] < 0]
        title = "None of the choices that were tried matters more than chance may"
        if sure:
            most = f"ablation.effects.{max(sure, key=lambda place: abs(effects[place]['mean']))}"
            what, effect = self.tell(f"{most}.what", "text"), self.tell(f"{most}.mean", "signed points")
            title = f"What matters most: {what}, {effect} points"
        slide = self.deck.slide(
            title,
            notes="One thing at a time was taken away or exchanged, in trainings of equal budget with "
            f"{self.tell('count:ablation.seeds', 'count')} seeds. The report has the interval of each effect.",
        )
        values = {}
        for place in order:
            self.tell(f"ablation.effects.{place}.mean", "signed points")
            values[effects[place]["what"]] = 100 * effects[place]["mean"]
        slide.bars(WHOLE, values, format="+0.0;−0.0", series="points of validation accuracy")

    def next_steps(self) -> None:
        """What the evidence says would help."""
        words, advice = headings(self.facts), advice_of(self.facts)
        slide = self.deck.slide(
            f"What would help next: {words[advice[0]]}"
            if advice
            else "The evidence names nothing that would help next",
            notes="Each of these follows from a number of the report by a stated rule; see its section on limits.",
        )
        in_vain = ["More training pictures of the same kind would help little."]
        lines = [words[name] for name in advice] + (in_vain if more_pictures(self.facts) == "little" else [])
        lines += [
            "It knows these classes only: anything else gets one of them, too.",
            f"The figures hold for pictures like those of {self.value('config.data.name')}.",
        ]
        slide.text(WHOLE, lines, bullets=True)

    def again(self) -> None:
        """How to make it again and use it."""
        slide = self.deck.slide(
            "Everything can be made again, checked and tried",
            notes="verify computes every number of report and slides again from the files of the run.",
        )
        lines = [
            self.tell("insights.command", "text"),
            f"seed {self.tell('config.seed', 'text')}, darkroom {self.tell('darkroom.version', 'text')}",
            "check all numbers: darkroom verify RUN",
            "try it in the browser: darkroom serve RUN",
        ]
        slide.text(WHOLE, lines, bullets=True)


def _short(name: str) -> str:
    """A name that leaves room for others in a title."""
    return style.shorten(name, 2.8, size=TITLE, weight="bold")


def _flow(slide: Slide, stages: Sequence[Sequence[str]], *, top: float, height: float) -> None:
    """Boxes with arrows between them, from left to right."""
    gap = 0.45
    width = (WIDTH - 2 * MARGIN - gap * (len(stages) - 1)) / len(stages)
    for place, words in enumerate(stages):
        left = MARGIN + place * (width + gap)
        slide.shape((left, top, width, height), color=style.WASH, words=words)
        if place:
            slide.arrow((left - gap + 0.08, top + height / 2 - 0.12, gap - 0.16, 0.24))
