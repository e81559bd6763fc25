"""What templates and slides need besides numbers: the order of rows, and words that depend on classes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.report.facts import Facts, join

Sentence = Sequence[str | tuple[str, str]]
"""Text, and between it numbers by path and style, for whoever tells them."""

MOST_ROWS = 24
"""Classes in a table; of more, the weakest."""

METRICS = (
    ("accuracy", "accuracy", "percent"),
    ("macro_precision", "macro precision", "percent"),
    ("macro_recall", "macro recall", "percent"),
    ("macro_f1", "macro F1", "percent"),
    ("weighted_f1", "weighted F1", "percent"),
    ("top_k", "top-k accuracy", "percent"),
    ("log_loss", "log loss", "decimal"),
    ("ece", "calibration error", "decimal"),
)
"""Name in metrics.json, title, style."""

PARTS = {
    "comparison": "a comparison with other networks: give the folder that darkroom compare wrote",
    "ablation": "what each choice is worth: darkroom ablate, then darkroom report with --ablation",
    "bundle": "the bundle: darkroom export writes it",
}
FIGURES = {
    "learning_curves": "learning curves: the network was not trained as a whole",
    "activation_maps": "activation maps: none were drawn",
    "preprocessing": "a picture on its way through preprocessing: darkroom export copies the samples that it needs",
}
UNOPENED = "results on test: darkroom evaluate --split test, once nothing is left to choose"
ENERGIES = ("config.training.result.joules", "insights.energy.joules")
ENERGY = "the energy of training: no counter could be read, and for this machine there is no estimate"


def story_of(facts: Facts, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the template."""
    ranking = facts.value("insights.ranking")
    return {
        "metric_rows": [row for row in METRICS if facts.has(f"metrics.{facts.value('insights.split')}.{row[0]}")],
        "class_table": ranking[:MOST_ROWS],
        "headings": headings(facts),
        "evidence": evidence(facts),
        "advice": advice_of(facts),
        "more_pictures": more_pictures(facts),
        "doubling": doubling(facts),
        "wrong": wrong(facts),
        "weakest_is": weakest(facts),
        "strongest_is": strongest(facts),
        "steps_done": steps_done(facts),
        "fitted_on": fitted_on(facts),
        "leaks": leaks(facts),
        "is_augmented": is_augmented(facts),
        "candidates": _ordered(facts, "comparison.candidates", lambda row: -row["validation"]["accuracy"]["value"]),
        "compare_command": compare_command(facts) if facts.has("comparison.requested.models") else [],
        "effects": _ordered(facts, "ablation.effects", lambda row: row["mean"]),
        "left_out": ([] if facts.value("insights.split") == "test" else [UNOPENED])
        + [what for name, what in PARTS.items() if not facts.has(name)]
        + [what for name, what in FIGURES.items() if name not in figures]
        + ([] if any(map(facts.has, ENERGIES)) else [ENERGY]),
    }


def told(sentence: Sentence, tell: Callable[[str, str], str]) -> str:
    """A sentence with its numbers."""
    return "".join(part if isinstance(part, str) else tell(*part) for part in sentence)


def advice_of(facts: Facts) -> list[str]:
    """Names of what would help next, strongest evidence first: what an ablation has tried, then what was deduced."""
    tried = ["pictures"] if more_pictures(facts) == "help" else []
    return [*tried, *facts.value("insights.advice")]


def more_pictures(facts: Facts) -> str:
    """What the ablation says of more training pictures: `help`, `little` or `unsure`; empty where it did not try."""
    return str(facts.value("ablation.doubling.more")) if facts.has("ablation.doubling") else ""


def headings(facts: Facts) -> dict[str, str]:
    """What would help next, in a few words each, by the names of `advice_of`."""
    ranking = facts.value("insights.ranking")
    both = facts.value("insights.confused.both") if facts.has("insights.confused.both") else {"one": "", "other": ""}
    known = more_pictures(facts) in ("help", "little")  # and told in a sentence of its own
    return {
        "open_test": "to open the test split, once nothing is left to choose",
        "pictures": "more training pictures",
        "by_heart": "stronger augmentation" if known else "more training pictures, or stronger augmentation",
        "longer": "a longer training",
        "pair": f"more pictures of {both['one']} and {both['other']}, or larger ones",
        "labels": "a look at the labels of the surest mistakes",
        "small_class": f"more training pictures of {ranking[0]}" if ranking else "",
        "more_test": "more test pictures",
    }


def evidence(facts: Facts) -> dict[str, Sentence]:
    """Why each of them would help, in a sentence."""
    ranking, block = facts.value("insights.ranking"), f"metrics.{facts.value('insights.split')}"
    training, mistakes = "insights.training", "insights.mistakes"
    minutes = facts.value("config.training.requested").get("minutes")
    return {
        "open_test": [
            "All numbers are about pictures that took part in choosing: ",
            "darkroom evaluate --split test gives the ones to publish.",
        ],
        "pictures": ["The last doubling of them still helped: ", *doubling(facts)],
        "by_heart": [
            *((f"{training}.train_accuracy", "percent"), " of the training views were right, but "),
            *((f"{training}.validation_accuracy", "percent"), " of validation: it begins to learn by heart."),
        ],
        "longer": [
            *("Its last third still gained ", (f"{training}.last_third", "points"), " on validation, more than chance"),
            " moves; then the minutes were over." if minutes else " moves.",
        ],
        "pair": [
            f"{wrong(facts)[:1].upper()}{wrong(facts)[1:]}: ",
            *(("insights.confused.both.share", "percent"), " of all mistakes."),
        ],
        "labels": [
            *("In ", (f"{mistakes}.sure", "count"), " of the mistakes the network is at least "),
            *((f"{mistakes}.sure_from", "whole percent"), " sure; the label may be what is wrong."),
        ],
        "small_class": [
            *(
                "It is the weakest class and has only ",
                (join("config", "data", "counts", "train", ranking[0]), "count"),
            ),
            " training pictures.",
        ],
        "more_test": [
            *("With ", (f"{block}.n", "pictures"), " the accuracy is known no better than "),
            *((f"{block}.accuracy.low", "percent"), " to ", (f"{block}.accuracy.high", "percent"), "."),
        ],
    }


def doubling(facts: Facts) -> Sentence:
    """What the ablation saw of twice as many training pictures; empty where it did not try."""
    path = "ablation.doubling"
    if not facts.has(path):
        return []
    return [
        *("in the ablation, the step from ", (f"{path}.from", "count"), " training pictures to "),
        *((f"{path}.to", "count"), " changed the accuracy on validation by ", (f"{path}.mean", "signed points")),
        *(" points (interval ", (f"{path}.low", "signed points"), " to ", (f"{path}.high", "signed points"), ")."),
    ]


def wrong(facts: Facts, verb: str = "") -> str:
    """The two classes that are mixed up most, in words; empty where no two stand out."""
    if not facts.has("insights.confused.both") or not facts.value("insights.confused.both.stands_out"):
        return ""
    both = facts.value("insights.confused.both")
    if not both["back"]:
        return f"{both['one']} {verb}taken for {both['other']}"
    return f"{both['one']} and {both['other']} {verb.replace('is', 'are')}taken for each other"


def weakest(facts: Facts) -> Sentence:
    """Which class is recognised worst, as the middle of a sentence."""
    ranking = facts.value("insights.ranking")
    f1 = (_f1(facts, ranking[0]), "percent")
    if facts.value("insights.alike.lowest") == 1:
        return [f"the weakest class is {ranking[0]} with an F1-score of ", f1]
    return ["the lowest F1-score is ", f1, ", that of ", ("insights.alike.lowest", "count"), " classes"]


def strongest(facts: Facts) -> Sentence:
    """Which class is recognised best, as a sentence."""
    best = facts.value("insights.ranking")[-1]
    alike = facts.value("insights.alike")
    if alike["flawless"] == len(facts.value("insights.ranking")):
        return ["No class has a mistake."]
    if alike["flawless"] > 1:
        return [("insights.alike.flawless", "count"), " classes are without a mistake."]
    f1 = ("an F1-score of ", (_f1(facts, best), "percent"), ".")
    if alike["highest"] > 1:
        return [("insights.alike.highest", "count"), " classes are recognised best, with ", *f1]
    return [f"{best} is recognised best, with ", *f1]


def _f1(facts: Facts, name: str) -> str:
    return f"metrics.{facts.value('insights.split')}.{join('per_class', name, 'f1')}"


def steps_done(facts: Facts) -> Sentence:
    """How long the training was, beside what had been planned; of networks that were trained as a whole."""
    training, result = "config.training", "config.training.result"
    if not facts.value(f"{result}.epochs"):
        return []
    planned = (f"{training}.settings.epochs", "epochs")
    done: Sentence = [
        *((f"{result}.steps", "steps"), " of ", (f"{training}.settings.batch_size", "pictures"), ", in "),
        (f"{result}.epochs", "epochs"),
    ]
    clock = facts.value("insights.time.clock")
    if facts.value(f"{result}.stopped_early"):
        return [*done, " of the ", planned, " planned"]
    if clock:
        return [*done, " (the clock has ", clock, " the plan of ", planned, ")"]
    return [*done, ", as planned"]


def fitted_on(facts: Facts) -> str:
    """On what temperature and threshold were fitted."""
    if facts.has("config.training.refit"):
        return "fitted on validation for the network before the refit"
    if facts.value("insights.split") == "validation":
        return "fitted on these same pictures, so that it looks a little too good"
    return "fitted on validation"


def leaks(facts: Facts) -> str:
    """Path of how many pictures that trained the network have a copy among those that were kept apart."""
    return "config.training.refit.leaks" if facts.has("config.training.refit") else "config.data.leaks"


def is_augmented(facts: Facts) -> bool:
    """Whether training saw random views of the pictures instead of themselves."""
    settings = facts.value("config.training.settings")
    views = settings.get("augmentation", {})
    return bool(facts.value("config.training.result.epochs")) and any(
        value != (1 if name == "crop_scale" else 0) for name, value in views.items()
    )


def compare_command(facts: Facts) -> Sentence:
    """What to type for the same comparison; paths of the machine that it ran on are cut down to names."""
    requested = facts.value("comparison.requested")
    name = Path(str(facts.value("config.data.argument"))).name
    models = (f"local-dir:{Path(model).name}" if ":" in model else model for model in requested["models"])
    minutes: Sentence = (" --minutes ", ("comparison.requested.minutes", "number")) if requested.get("minutes") else ()
    return [
        *(f"darkroom compare {name} --models {' '.join(models)}", *minutes),
        *((f" --prefer {requested['prefer']}",) if "prefer" in requested else ()),
    ]


def title_of(facts: Facts) -> str:
    """What the report is about."""
    return f"A classifier for {facts.words('config.data.name')}"


def _ordered(facts: Facts, path: str, rank: Any) -> list[int]:
    """Places in a list by rank; none where there is no such list."""
    rows = facts.value(path) if facts.has(path) else []
    return sorted(range(len(rows)), key=lambda place: rank(rows[place]))
