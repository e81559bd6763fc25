"""The slides: one message each, from the same facts as the report, with notes that explain it in plain words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase

from darkroom.figures import style
from darkroom.report.canvas import MARGIN, ROOM, SMALL, TITLE, TOP, WIDTH, Box
from darkroom.report.facts import REMEDY, Facts, damage_told, join
from darkroom.report.making import LEFT, RIGHT, Making
from darkroom.report.story import (
    METRICS,
    advice_of,
    evidence,
    fitted_on,
    headings,
    more_pictures,
    steps_done,
    strongest,
    title_of,
    told,
    weakest,
    wrong,
)

WHOLE: Box = (MARGIN, TOP, WIDTH - 2 * MARGIN, ROOM)
BARS = 12
"""Bars of a chart that can be told apart from the last row."""


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


class Talk(Making):
    """The slides in their order: how good it is, how it was made, and what follows."""

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
            return self._mistakes() + "."
        return f"{pair}: {self.tell('insights.confused.both.share', 'percent')} of all mistakes."

    def _mistakes(self) -> str:
        """How many there are, where no two classes stand out."""
        told = self.tell("insights.mistakes.n", "mistakes")
        return told if self.value("insights.mistakes.n") == 1 else f"{told}, among which no two classes stand out"

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
        title = self._confused() or self._mistakes()
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
