"""What templates and slides need besides numbers: the order of rows, and words that depend on classes."""

from collections.abc import Mapping
from typing import Any

from darkroom.report.facts import Facts

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
ENERGIES = ("config.training.result.joules", "insights.energy.joules")
ENERGY = "the energy of training: no counter could be read, and for this machine there is no estimate"


def story_of(facts: Facts, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the template."""
    ranking = facts.value("insights.ranking")
    return {
        "metric_rows": [row for row in METRICS if facts.has(f"metrics.{facts.value('insights.split')}.{row[0]}")],
        "class_table": ranking[:MOST_ROWS],
        "headings": headings(facts),
        "advice": advice_of(facts),
        "more_pictures": more_pictures(facts),
        "candidates": _ordered(facts, "comparison.candidates", lambda row: -row["validation"]["accuracy"]["value"]),
        "effects": _ordered(facts, "ablation.effects", lambda row: row["mean"]),
        "left_out": [what for name, what in PARTS.items() if not facts.has(name)]
        + [what for name, what in FIGURES.items() if name not in figures]
        + ([] if any(map(facts.has, ENERGIES)) else [ENERGY]),
    }


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
        "pictures": "more training pictures",
        "by_heart": "stronger augmentation" if known else "more training pictures, or stronger augmentation",
        "longer": "a longer training",
        "pair": f"more pictures of {both['one']} and {both['other']}, or larger ones",
        "labels": "a look at the labels of the surest mistakes",
        "small_class": f"more training pictures of {ranking[0]}" if ranking else "",
        "more_test": "more test pictures",
    }


def title_of(facts: Facts) -> str:
    """What the report is about."""
    return f"A classifier for {facts.value('config.data.name')}"


def _ordered(facts: Facts, path: str, rank: Any) -> list[int]:
    """Places in a list by rank; none where there is no such list."""
    rows = facts.value(path) if facts.has(path) else []
    return sorted(range(len(rows)), key=lambda place: rank(rows[place]))
