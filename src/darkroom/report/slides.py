"""The slides: one message each, from the same facts as the report, with notes that explain it in plain words."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from string import ascii_uppercase

from darkroom.errors import ImageError
from darkroom.figures import style
from darkroom.preprocess import decode
from darkroom.report.canvas import MARGIN, ROOM, SMALL, TITLE, TOP, WIDTH, Box, Deck, Slide
from darkroom.report.facts import REMEDY, Facts, damage_told, join
from darkroom.report.story import (
    METRICS,
    advice_of,
    evidence,
    fitted_on,
    headings,
    is_augmented,
    leaks,
    more_pictures,
    steps_done,
    strongest,
    title_of,
    told,
    weakest,
    wrong,
)

WHOLE: Box = (MARGIN, TOP, WIDTH - 2 * MARGIN, ROOM)
LEFT: Box = (MARGIN, TOP, 7.4, ROOM)
RIGHT: Box = (8.3, TOP, WIDTH - MARGIN - 8.3, ROOM)
BARS = 12
"""Bars of a chart that can be told apart from the last row."""
SHOWN_SAMPLES = 10


@style.look()
def deck(facts: Facts, figures: Mapping[str, Path], samples: Sequence[Path] = ()) -> tuple[bytes, list[int]]:
    """The file, and for each fact that was told the number of its slide."""
    with damage_told("what the slides read", REMEDY):
        talk = Talk(facts, figures, samples)
        _hold(talk)
    return talk.deck.to_bytes(title=title_of(facts)), talk.places


def _hold(talk: "Talk") -> None:
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


class Talk:
    """The slides in their order; each method adds one, or none where there is nothing to say."""

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

    def headline(self) -> None:
        """What it is and how good."""
        tell, block = self.tell, self.block
        accuracy, n = tell(f"{block}.accuracy.value", "percent"), tell(f"{block}.n", "count")
        low, high = tell(f"{block}.accuracy.low", "percent"), tell(f"{block}.accuracy.high", "percent")
        classes = tell("count:config.data.classes", "count")
        slide = self.deck.slide(
            f"{title_of(self.facts)}: {accuracy} of {n} {self.split} pictures are right",
            notes=f"The network was shown {n} pictures {self._how_apart()}. It put {accuracy} of them into the right "
            f"one of {classes} classes. They are a sample: the interval, {low} to {high}, holds the true accuracy in "
            f"{tell('darkroom.confidence', 'whole percent')} of such samples.",
        )
        cards = [
            (accuracy, f"accuracy on {n} {self.split} pictures ({low} to {high})"),
            (tell(f"{block}.macro_f1.value", "percent"), "macro F1: every class counts the same"),
            (tell(f"{block}.ece.value", "points"), "calibration error of its confidence"),
        ]
        width = (WIDTH - 2 * MARGIN - 0.6) / 3
        for place, (value, label) in enumerate(cards):
            slide.card((MARGIN + place * (width + 0.3), TOP, width, 1.75), value=value, label=label)
        rows = [
            ("which network", self._what_it_is()),
            ("how trained", self._how_trained()),
            ("how sure", self._how_sure()),
            ("what goes wrong", self._what_goes_wrong()),
        ]
        slide.listing((MARGIN, TOP + 2.0, WIDTH - 2 * MARGIN, ROOM - 2.0), rows)

    def _how_apart(self) -> str:
        """Whether the pictures that judge had a part in anything."""
        if self.split == "test":
            return "that took no part in its training"
        return "that it was not trained on, but that chose among its epochs and settings, which flatters a little"

    def _what_it_is(self) -> str:
        if self.has("comparison"):
            chosen, n = self.tell("comparison.choice.chosen", "text"), self.tell("count:comparison.candidates", "count")
            return f"{chosen}, chosen among {n} candidates by accuracy and speed."
        if self.value("config.network.kind") == "cnn":
            parameters = self.tell("config.network.parameters", "amount")
            return f"A convolutional network of {parameters} parameters, designed for these pictures."
        return f"{self.words('config.network.kind')}, {self._origin()}."

    def _origin(self) -> str:
        random = self.has("config.network.origin") and self.value("config.network.origin.random")
        return "begun from random weights" if random else "pre-trained on other pictures"

    def _how_trained(self) -> str:
        seconds = self.tell("insights.time.seconds", "duration")
        done = told(steps_done(self.facts), self.tell) or "a new last layer on features computed once"
        again = ", then anew with the validation pictures" if self.has("config.training.refit") else ""
        return f"{done}{again}; it took {seconds}."

    def _how_sure(self) -> str:
        if not self.has("insights.not_sure.accuracy"):
            return "It is never sure enough for an answer."
        share = self.tell("insights.not_sure.share", "percent")
        return f"“not sure” for {share}; {self.tell('insights.not_sure.accuracy', 'percent')} of the others are right."

    def _what_goes_wrong(self) -> str:
        if not self.has("insights.confused.both"):
            return "No picture was put into a wrong class."
        pair = wrong(self.facts, "is ")
        if not pair:
            return f"{self.tell('insights.mistakes.n', 'mistakes')}, among which no two classes stand out."
        return f"{pair}: {self.tell('insights.confused.both.share', 'percent')} of all mistakes."

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
        head = ("metric", "value", f"{level} interval")
        slide.table(WHOLE, head, rows, first=0.4, words=f"metrics on {self.split} with their intervals")

    def classes(self) -> None:
        """F1 a class, the weakest first."""
        ranking, alike = self.value("insights.ranking"), self.value("insights.alike")
        shown = ranking[:BARS]
        path = {name: f"{self.block}.{join('per_class', name)}.f1" for name in ranking}
        worst, best = (told(part(self.facts), self.tell) for part in (weakest, strongest))
        title = f"{worst[:1].upper()}{worst[1:]}"
        if alike["lowest"] == 1 and alike["flawless"] <= 1 and alike["highest"] == 1:
            weak, strong = self.tell(path[ranking[0]], "percent"), self.tell(path[ranking[-1]], "percent")
            title = f"Weakest is {_short(ranking[0])} (F1 {weak}), strongest {_short(ranking[-1])} ({strong})"
        slide = self.deck.slide(
            title,
            notes=f"Of the classes, {worst}. {best} "
            "F1 is high only where a class is both found (recall) and not named wrongly (precision). "
            + ("All classes are shown." if len(shown) == len(ranking) else "Only the weakest classes are shown."),
        )
        values = {name: self.value(path[name]) for name in shown}
        for name in shown:
            self.tell(path[name], "percent")
        slide.bars(WHOLE, values, format="0.0%", series="F1", low=0, high=1, words="F1 of classes, the weakest first")

    def confusions(self) -> None:
        """The most frequent mistakes."""
        if not self.has("insights.confused.both"):
            return
        tell, wrongs = self.tell, self.tell("insights.mistakes.n", "count")
        title = self._confused() or f"{tell('insights.mistakes.n', 'mistakes')}, among which no two classes stand out"
        slide = self.deck.slide(
            title,
            notes=(f"In full, {wrong(self.facts, 'is ')}. " if wrong(self.facts) else "")
            + f"Of {tell('insights.mistakes.of', 'count')} pictures {wrongs} got a "
            "wrong answer. The bars show the most frequent mistakes, from the true class to the answer.",
        )
        values = {}
        for place, pair in enumerate(self.value("insights.confused.pairs")):
            tell(f"insights.confused.pairs.{place}.count", "count")
            values[" → ".join((pair["true"], pair["said"]))] = pair["count"]
        words = "the most frequent mistakes, from the true class to the answer, with their number"
        slide.bars(WHOLE, values, format="#,##0", series="pictures", low=0, color=style.VERMILLION, words=words)

    def _confused(self) -> str:
        """Which two classes are mixed up most, in a title; empty where no two stand out."""
        if not wrong(self.facts):
            return ""
        both = self.value("insights.confused.both")
        one, other = (_short(both[which]) for which in ("one", "other"))
        ways = f"{one} and {other} are taken for each other" if both["back"] else f"{one} is taken for {other}"
        often = self.tell("insights.confused.both.n", "times")
        share = self.tell("insights.confused.both.share", "percent")
        return f"{ways} {often}: {share} of all mistakes"

    def calibration(self) -> None:
        """Accuracy over confidence."""
        tell, fitted = self.tell, fitted_on(self.facts)
        ece = tell(f"{self.block}.ece.value", "points")
        bins, few = "insights.calibration", self.value("darkroom.few")
        enough = [place for place, row in enumerate(self.value(bins)) if row["n"] >= few]
        drawn = enough * 2 if len(enough) == 1 else enough  # LibreOffice would lose a single point
        slide = self.deck.slide(
            f"Its confidence is off by {ece} on average",
            notes="If of all answers given with a certain confidence that share is right, the points lie on the "
            f"diagonal. The confidence was calibrated by a temperature, {fitted}.",
        )
        slide.points(
            LEFT,
            {
                "answers": (self._column(bins, "confidence", drawn), self._column(bins, "accuracy", drawn)),
                "ideal": ([0, 1], [0, 1]),
            },
            guide="ideal",
            high=(1, 1),
            formats=("0%", "0%"),
            across="confidence",
            up="share that is right",
            words="share of right answers over the confidence; on the diagonal they agree",
        )
        lines = [f"temperature {tell('metrics.temperature', 'decimal')}, {fitted}"]
        if len(enough) < len(self.value(bins)):
            lines.append(f"confidences that fewer than {tell('darkroom.few', 'pictures')} have are left out")
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
        candidates = self.value("comparison.candidates")
        order = sorted(range(len(candidates)), key=lambda place: -candidates[place]["validation"]["accuracy"]["value"])
        rows, drawn = [], {}
        for letter, place in zip(ascii_uppercase, order[:8], strict=False):
            path, row = f"comparison.candidates.{place}", candidates[place]
            accuracy = tell(f"{path}.validation.accuracy.value", "percent")
            latency = tell(f"{path}.serving.milliseconds", "milliseconds")
            mark = f"{letter} ◀" if row["chosen"] else letter
            rows.append((mark, self.words(f"{path}.name"), accuracy, f"{latency} ms"))
            drawn[letter] = ([row["serving"]["milliseconds"]], [row["validation"]["accuracy"]["value"]])
        head, widths = ("", "network", "accuracy", "a picture"), (0.09, 0.57, 0.165, 0.175)
        words = "candidates with accuracy on validation and time for a picture, the most accurate first"
        slide.table((MARGIN, TOP, 7.8, ROOM), head, rows, widths=widths, left=2, words=words)
        if (taken := 0.52 * (len(rows) + 1) + 0.25) < ROOM - 1:
            rule = f"The rule: {tell('comparison.choice.rule', 'text')}."
            slide.text((MARGIN, TOP + taken, 7.8, ROOM - taken), [rule], size=SMALL)
        slide.points(
            (8.6, TOP, WIDTH - MARGIN - 8.6, ROOM),
            drawn,
            formats=("0%", "0"),
            across="milliseconds a picture",
            up="validation accuracy",
            high=(1, None),
            named=True,
            words="accuracy on validation over milliseconds for a picture; the letters are those of the table",
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
            place = max(sure, key=lambda place: abs(effects[place]["mean"]))
            most = f"ablation.effects.{place}"
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
        words = "effect of each change on the accuracy on validation, in points"
        slide.bars(WHOLE, values, format="+0.0;−0.0", series="points of validation accuracy", words=words)

    def next_steps(self) -> None:
        """What the evidence says would help."""
        words, advice, why = headings(self.facts), advice_of(self.facts), evidence(self.facts)
        slide = self.deck.slide(
            "What would help next: " + words[advice[0]]
            if advice
            else "The evidence names nothing that would help next",
            notes="Each of these follows from a number of the report by a stated rule; see its section on limits.",
        )
        rows = [(words[name], told(why[name], self.tell)) for name in advice[:4]]
        if more_pictures(self.facts) == "little":
            rows.append(("not more of the same", "More training pictures of the same kind would help little."))
        rows += [
            ("what it cannot", "It knows these classes only: anything else gets one of them, too."),
            ("what holds", f"The figures hold for pictures like those of {self.words('config.data.name')}."),
        ]
        if not self.has("ablation") and len(rows) < 6:
            rows.append(("one training", "Another seed would give a somewhat different network."))
        slide.listing(WHOLE, rows, first=0.3)

    def again(self) -> None:
        """How to make it again and use it."""
        slide = self.deck.slide(
            "Everything can be made again, checked and tried",
            notes="verify computes every number of report and slides again from the files of the run.",
        )
        tell, versions = self.tell, self.value("config.versions")
        made = [f"{name} {tell(join('config', 'versions', name), 'text')}" for name in list(versions)[:4]]
        rows = [
            ("make it again", tell("insights.command", "text")),
            ("check all numbers", "darkroom verify RUN"),
            ("try it", "darkroom serve RUN, then open the address that it prints"),
            ("made by", f"{', '.join(made)}; seed {tell('config.seed', 'text')}"),
            ("on", self._machine()),
        ]
        slide.listing(WHOLE, rows)


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
