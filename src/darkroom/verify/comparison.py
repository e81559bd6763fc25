"""The checks of a comparison: its candidates are those that were trained, and the choice follows from what they say."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from darkroom import files
from darkroom.bundle import MODEL_FILE
from darkroom.compare import told_by, verdicts_on
from darkroom.comparison.choice import summary
from darkroom.comparison.folder import Comparison, folder_name
from darkroom.comparison.words import lines
from darkroom.config import OURS, DataConfig
from darkroom.errors import RunError
from darkroom.runs import Run
from darkroom.verify.checks import Check, check, require_same
from darkroom.verify.run import JUDGED, Verification

GRAPH_TOLERANCE = 0.01
"""Part by which a graph that was exported again may be larger: it holds paths of the machine."""

Content = Mapping[str, Any]


def comparison(compared: Comparison, config: DataConfig) -> Iterator[Check]:
    """All of them; the run that was chosen has checks of its own."""
    first = check("comparison", lambda: _candidates(compared))
    yield first
    try:
        content = compared.read()
        rows = {row["name"]: row for row in content["candidates"]}
    except (RunError, LookupError, TypeError):  # told by the first check
        return
    for name, row in rows.items():
        yield check(f"comparison, {name}", lambda row=row: _candidate(compared, row, config))  # type: ignore[misc]
    yield check("comparison, choice", lambda: _choice(compared, content))
    yield check("comparison, state and text", lambda: _kept(compared, content))


def _candidates(compared: Comparison) -> str:
    """They are the runs that were trained and evaluated, less those that failed before they were measured."""
    content, measured = compared.read(), compared.kept()["serving"]
    runs = [Run(folder) for folder in sorted(compared.runs.iterdir()) if folder.is_dir()]
    entered = [run.folder.name for run in runs if run.weights.is_file() and run.metrics.is_file()]
    failed = [name for name in entered if any(f"left out: {name}, which failed" in why for why in content["left_out"])]
    expected = [name for name in entered if name in measured or name not in failed]
    told = sorted(row["name"] for row in content["candidates"])
    require_same("comparison.json", told, "runs/", expected)
    return f"{len(told)} candidates, which are all that were trained"


def _candidate(compared: Comparison, row: Content, config: DataConfig) -> str:
    """comparison.json says of it what its run does, and that follows from its predictions on the same split."""
    run = compared.run(row["name"])
    expected = told_by(run)
    require_same("comparison.json", {name: row[name] for name in expected}, "its run", expected)
    kind, network = row["network"], run.read_config()["network"]["kind"]
    if kind != network or row["name"] != (kind if kind == OURS else folder_name(f"{kind}-{row['how']}")):
        raise RunError(f"comparison.json calls it {kind} ({row['how']}), its run is one of {network}")
    size = (run.bundle / MODEL_FILE).stat().st_size
    if not math.isclose(row["serving"]["bytes"], size, rel_tol=GRAPH_TOLERANCE):
        raise RunError(f"its graph has {size:,} bytes, comparison.json says {row['serving']['bytes']:,}")
    of_chosen = files.sha256_of(compared.chosen.manifest)
    require_same("its manifest", files.sha256_of(run.manifest), "that of the chosen run", of_chosen)
    verification = Verification(run, config)
    found = [
        check("settings", verification.manifest_and_settings),
        check("history", verification.history),
        check("bundle", verification.told_by_bundle),
        check("temperature and threshold", verification.calibration),
    ]
    for split in (split for split in JUDGED if split in row):
        found += verification.checks_of(split)
    for seen in found:
        if not seen.passed:
            raise RunError(f"{seen.name}: {seen.detail}")
    return "as in its run, whose numbers follow from its predictions"


def _choice(compared: Comparison, content: Content) -> str:
    """Chosen, reasons and rule follow from the predictions on validation and from what serving costs."""
    rows, prefer = content["candidates"], content["requested"]["prefer"]
    verdicts = verdicts_on([(row["network"], compared.run(row["name"]), row["serving"]) for row in rows], prefer)
    for row, verdict in zip(rows, verdicts, strict=True):
        expected = verdict.to_json()
        require_same(row["name"], {name: row[name] for name in expected}, "the rule", expected)
    require_same("the choice", content["choice"], "the rule", summary(verdicts, prefer))
    return f"{content['choice']['chosen']}, as the rule has it"


def _kept(compared: Comparison, content: Content) -> str:
    """comparison-state.json, which was written as it went on, comparison.txt and the chosen run's data are the same."""
    kept, rows = compared.kept(), content["candidates"]
    told = {name: content[name] for name in ("speeds", "plans")}
    told |= {"requested": content["requested"], "serving": {row["name"]: row["serving"] for row in rows}}
    told |= {"fingerprint": content["data"]["fingerprint"], "chosen": content["choice"]["chosen"]}
    expected = {name: kept[name] for name in told} | {"requested": kept["requested"]["comparison"]}
    expected["serving"] = {name: value for name, value in kept["serving"].items() if name in told["serving"]}
    require_same("comparison.json", told, "comparison-state.json", expected)
    text = compared.text.read_text(encoding="utf-8")
    chosen = compared.chosen.read_config()
    data = {name: value for name, value in content["data"].items() if name != "root"}  # where it lies may change
    require_same("comparison.json", data, "the chosen run", {name: chosen["data"][name] for name in data})
    require_same("comparison.json", content["seed"], "the chosen run", chosen["seed"])
    require_same("comparison.txt", text.splitlines(), "comparison.json", list(lines(content)))
    return "the same in comparison-state.json and comparison.txt"
