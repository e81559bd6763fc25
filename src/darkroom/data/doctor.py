"""The data doctor: looks at a data set, says what is odd and what to do about it, and changes nothing."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import PurePosixPath
from statistics import median
from typing import Any, Literal

from darkroom.config import DataConfig
from darkroom.data.duplicates import MOST_COMPARED, group_duplicates
from darkroom.data.inspection import Inspection
from darkroom.data.manifest import Manifest
from darkroom.data.pictures import Picture, Source
from darkroom.data.split import SPLITS

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SHOWN = 5
"""Examples a finding names."""
FEW_IN_CLASS = 20
"""Training pictures below which a class is hard to learn."""
UNEVEN, VERY_UNEVEN = 3, 10
"""Largest class over smallest, from which on it is worth a note and a warning."""
EXTREME_ASPECT = 3
"""Longer over shorter side, from which on a centred square misses most of a picture."""
SMALL = 4
"""How many times smaller than the median a picture's shorter side must be to be called small."""
LARGE_PIXELS = 50_000_000

_EXTENSIONS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".mpo"},
    "PNG": {".png", ".apng"},
    "GIF": {".gif"},
    "WEBP": {".webp"},
    "BMP": {".bmp", ".dib"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"},
    "JPEG2000": {".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"},
    "AVIF": {".avif", ".avifs"},
    "HEIF": {".heic", ".heif", ".hif"},
}


@dataclass(frozen=True)
class Finding:
    """Something about the data that its owner should know."""

    severity: Severity
    title: str
    explanation: str
    """In plain words, ending with what to do, if anything."""
    examples: tuple[str, ...]
    """The first few; `count` says how many there are."""
    count: int


@dataclass(frozen=True)
class Report:
    """What the doctor saw: facts about the whole, and findings from grave to harmless."""

    name: str
    facts: dict[str, Any]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        return {"name": self.name, "facts": self.facts, "findings": [asdict(finding) for finding in self.findings]}

    def lines(self) -> list[str]:
        """The report as plain text, a line an item; names with unprintable characters are escaped."""
        lines = _fact_lines(self.name, self.facts)
        for finding in self.findings:
            lines += ["", f"{finding.severity}: {finding.title} ({finding.count:,})", f"  {finding.explanation}"]
            lines += [f"    {_printable(example)}" for example in finding.examples]
            rest = finding.count - len(finding.examples)
            lines += [f"    … and {rest:,} more"] if finding.examples and rest > 0 else []
        counts = Counter(finding.severity for finding in self.findings)
        total = ", ".join(f"{counts[severity]} {severity}{'s' * (counts[severity] != 1)}" for severity in SEVERITIES)
        return [*lines, "", f"{total}. Nothing was changed."]


def examine(source: Source, inspections: Sequence[Inspection], manifest: Manifest | None, config: DataConfig) -> Report:
    """Judge a data set by one inspection a picture; without a manifest the split goes unjudged."""
    case = _Case(source, inspections, manifest, config)
    findings = [finding for check in _CHECKS for finding in check(case)]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Report(name=source.name, facts=_facts(case), findings=tuple(findings))


@dataclass(frozen=True)
class _Case:
    source: Source
    inspections: Sequence[Inspection]
    manifest: Manifest | None
    config: DataConfig

    @cached_property
    def readable(self) -> list[tuple[Picture, Inspection]]:
        pairs = zip(self.source.pictures, self.inspections, strict=True)
        return [(picture, seen) for picture, seen in pairs if seen.error is None]

    @cached_property
    def families(self) -> list[list[tuple[Picture, Inspection]]]:
        """Pictures that are copies of each other, at least two together."""
        if self.manifest is None:
            groups = group_duplicates([seen for _, seen in self.readable]).tolist()
        else:
            groups = [row.duplicate_group for row in self.manifest.rows]
        families: dict[int, list[tuple[Picture, Inspection]]] = {}
        for group, pair in zip(groups, self.readable, strict=True):
            families.setdefault(group, []).append(pair)
        return [family for family in families.values() if len(family) > 1]

    @cached_property
    def per_class(self) -> dict[str, int]:
        found = Counter(picture.label for picture, _ in self.readable)
        return {name: found[name] for name in self.source.classes}


Check = Callable[[_Case], Iterator[Finding]]


def _finding(severity: Severity, title: str, explanation: str, examples: Sequence[str]) -> Iterator[Finding]:
    """One finding, or none where nothing was found."""
    if examples:
        yield Finding(severity, title, explanation, tuple(examples[:SHOWN]), len(examples))


def _unreadable(case: _Case) -> Iterator[Finding]:
    pairs = zip(case.source.pictures, case.inspections, strict=True)
    return _finding(
        "error",
        "unreadable pictures",
        "They are left out, never replaced. Mend or delete them; --strict refuses to train while there are any.",
        [f"{picture.name}: {seen.error}" for picture, seen in pairs if seen.error is not None],
    )


def _classes(case: _Case) -> Iterator[Finding]:
    if len(case.source.classes) < 2:
        what = "There is nothing to tell apart: training needs at least two folders (or labels)."
        yield from _finding("error", "a single class", what, case.source.classes)
    yield from _finding(
        "error",
        "classes without a readable picture",
        "Training refuses them: mend their pictures or remove the class.",
        [name for name, count in case.per_class.items() if count == 0],
    )


def _conflicts(case: _Case) -> Iterator[Finding]:
    same: list[str] = []
    alike: list[str] = []
    for family in case.families:
        if len({picture.label for picture, _ in family}) > 1:
            bytes_and_labels = {(seen.sha256, picture.label) for picture, seen in family}
            is_same = len(bytes_and_labels) > len({seen.sha256 for _, seen in family})
            (same if is_same else alike).append(_named(family, with_labels=True))
    remedy = "A network can only guess there: keep the right label and delete the other copy."
    yield from _finding("warning", "identical files with different labels", remedy, same)
    yield from _finding("warning", "near-identical pictures with different labels", remedy, alike)


def _leaks(case: _Case) -> Iterator[Finding]:
    return _finding(
        "warning",
        "copies on both sides of the given split",
        "What was trained on or chosen by is tested again, so the test flatters. The published split is kept as it is; "
        "for an honest test, delete the copies in train.",
        [
            _named(family)
            for family in case.families
            if len({picture.split for picture, _ in family if picture.split is not None}) > 1
        ],
    )


def _copies(case: _Case) -> Iterator[Finding]:
    exact = [family for family in case.families if len({seen.sha256 for _, seen in family}) < len(family)]
    near = [family for family in case.families if len({seen.sha256 for _, seen in family}) > 1]
    advice = "Where darkroom cuts a split, copies stay on one side of it. Copies add no knowledge: delete all but one."
    yield from _finding("note", "groups of identical files", advice, [_named(family) for family in exact])
    yield from _finding("note", "groups of near-identical pictures", advice, [_named(family) for family in near])
    different = {seen.sha256 for _, seen in case.readable}
    if len(different) > MOST_COMPARED:
        what = f"Above {MOST_COMPARED:,} pictures only identical files are found, not pictures saved again."
        yield Finding("note", "near-identical pictures were not looked for", what, (), len(different))


def _ignored(case: _Case) -> Iterator[Finding]:
    what = "Hidden and housekeeping things and files that are no pictures are neither classes nor pictures."
    return _finding("note", "things left out", what, case.source.ignored)


def _is_misnamed(picture: Picture, seen: Inspection) -> bool:
    suffix = PurePosixPath(picture.name).suffix.lower()
    return bool(suffix) and seen.format in _EXTENSIONS and suffix not in _EXTENSIONS[seen.format]


_ODDITIES: tuple[tuple[str, str, Callable[[Picture, Inspection], bool]], ...] = (
    (
        "names that do not fit the content",
        "They are read by their content, so nothing is lost here; other programs may refuse them.",
        _is_misnamed,
    ),
    (
        "pictures that their EXIF data turn",
        "They are turned upright, here and in every prediction; programs that ignore EXIF see them lying.",
        lambda _, seen: seen.orientation != 1,
    ),
    (
        "transparent pictures",
        "Their transparent parts are shown on white.",
        lambda _, seen: seen.transparent,
    ),
    (
        "CMYK pictures",
        "They are converted to RGB by formula, without a colour profile: colours may be off.",
        lambda _, seen: seen.mode == "CMYK",
    ),
    (
        "pictures of more than 8 bits",
        "They are brought to 8 bits; fine steps of grey are lost.",
        lambda _, seen: seen.mode in ("I", "F") or seen.mode.startswith("I;16"),
    ),
    (
        "animations and files of several pages",
        "Only the first frame is used.",
        lambda _, seen: seen.frames > 1 and seen.format != "MPO",  # an MPO's further pictures are previews
    ),
    (
        "elongated pictures",
        f"One side is {EXTREME_ASPECT} times the other or more: a centred square shows at most a third of them.",
        lambda _, seen: max(seen.width, seen.height) >= EXTREME_ASPECT * min(seen.width, seen.height),
    ),
    (
        "very large pictures",
        f"More than {LARGE_PIXELS // 1_000_000} megapixels: slow to decode, and of no use to a network.",
        lambda _, seen: seen.width * seen.height > LARGE_PIXELS,
    ),
)


def _oddities(case: _Case) -> Iterator[Finding]:
    for title, explanation, is_odd in _ODDITIES:
        names = [_described(picture, seen) for picture, seen in case.readable if is_odd(picture, seen)]
        yield from _finding("note", title, explanation, names)


def _small(case: _Case) -> Iterator[Finding]:
    sides = [min(seen.width, seen.height) for _, seen in case.readable]
    wanted = case.config.image_size
    least = wanted or (median(sides) / SMALL if sides else 0)
    what = (
        f"Their shorter side is under the {least:g} pixels of --image-size"
        if wanted
        else (f"Their shorter side is under a quarter of the median, {least:g} pixels")
    )
    return _finding(
        "note",
        "small pictures",
        f"{what}: they are enlarged, and blurred by that. Remove thumbnails that came in by mistake.",
        [_described(*pair) for pair, side in zip(case.readable, sides, strict=True) if side < least],
    )


def _partly_grey(case: _Case) -> Iterator[Finding]:
    grey = [picture.name for picture, seen in case.readable if seen.mode in ("1", "L", "LA", "La")]
    if len(grey) < len(case.readable):
        what = "Most pictures are in colour. Grey is repeated in all three channels, which a network learns to tell."
        yield from _finding("note", "grey pictures among coloured ones", what, grey)


def _telltales(case: _Case) -> Iterator[Finding]:
    """A class that its file format or size gives away: the network may learn that instead of the content."""
    traits: dict[str, Callable[[Inspection], str]] = {
        "file format": lambda seen: seen.format,
        "kind of colour": lambda seen: "grey" if seen.mode in ("1", "L", "LA") else "colour",
        "size": lambda seen: f"{seen.width}×{seen.height}",
    }
    examples = [
        f"{trait}: {label} is {value}, the other classes are not"
        for trait, value_of in traits.items()
        for label, value in _given_away([(picture.label, value_of(seen)) for picture, seen in case.readable])
    ]
    what = (
        "At least 9 of 10 pictures of the class have it and at most 1 of 10 of the others: a network may learn how the "
        "files were made instead of what they show, and fail on new ones. Collect or save all classes in the same way."
    )
    return _finding("warning", "classes given away by their files", what, examples)


def _given_away(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    both, labels, values = Counter(pairs), Counter(label for label, _ in pairs), Counter(value for _, value in pairs)
    for (label, value), count in sorted(both.items()):
        others = len(pairs) - labels[label]
        if labels[label] >= FEW_IN_CLASS and count >= 0.9 * labels[label] and values[value] - count <= 0.1 * others:
            yield label, value


def _balance(case: _Case) -> Iterator[Finding]:
    counts = [(count, name) for name, count in case.per_class.items() if count]
    if len(counts) < 2:
        return
    (least, smallest), (most, largest) = min(counts), max(counts)
    if most >= UNEVEN * least:
        yield Finding(
            "warning" if most >= VERY_UNEVEN * least else "note",
            "classes of unequal size",
            f"{largest} has {most / least:.1f} times the pictures of {smallest}. Judge by macro F1 rather than "
            "accuracy, and try --imbalance weighted-loss or balanced-sampling.",
            tuple(f"{name}: {count:,}" for count, name in (min(counts), max(counts))),
            2,
        )


def _tiny_classes(case: _Case) -> Iterator[Finding]:
    if case.manifest is None:
        counts, where = case.per_class, "pictures"
    else:
        counts, where = case.manifest.counts()["train"], "training pictures"
    what = f"Fewer than {FEW_IN_CLASS} {where} are hard to learn from. Collect more, or merge or drop the class."
    tiny = [f"{name}: {count}" for name, count in counts.items() if 0 < count < FEW_IN_CLASS]
    return _finding("warning", "small classes", what, tiny)


def _missing_from_split(case: _Case) -> Iterator[Finding]:
    if case.manifest is None:
        return
    counts = case.manifest.counts()
    consequences = {
        "train": "cannot be learnt: every picture of them will be answered wrongly",
        "validation": "take no part in choosing",
        "test": "are not tested: nothing is known about them",
    }
    for split in SPLITS:
        what = f"These classes {consequences[split]}. The numbers of the other classes do not shift."
        absent = [name for name, count in counts[split].items() if not count]
        yield from _finding("warning", f"classes missing from {split}", what, absent)


def _sizes(case: _Case) -> Iterator[Finding]:
    sizes = Counter(f"{seen.width}×{seen.height}" for _, seen in case.readable)
    if len(sizes) > 1:
        what = "All are scaled and cut to one size for the network."
        examples = tuple(f"{size}: {count:,} pictures" for size, count in sizes.most_common(3))
        yield Finding("note", "different sizes", what, examples, len(sizes))


_CHECKS: tuple[Check, ...] = (
    _unreadable,
    _classes,
    _leaks,
    _conflicts,
    _telltales,
    _missing_from_split,
    _tiny_classes,
    _balance,
    _copies,
    _partly_grey,
    _small,
    _oddities,
    _sizes,
    _ignored,
)


def _facts(case: _Case) -> dict[str, Any]:
    seen = [inspection for _, inspection in case.readable]
    return {
        "pictures": len(case.source.pictures),
        "readable": len(seen),
        "bytes": sum(inspection.bytes for inspection in case.inspections),
        "classes": dict(case.per_class),
        "formats": dict(Counter(inspection.format for inspection in seen).most_common()),
        "modes": dict(Counter(inspection.mode for inspection in seen).most_common()),
        "width": _spread([inspection.width for inspection in seen]),
        "height": _spread([inspection.height for inspection in seen]),
        "splits": _split_sizes(case.manifest),
    }


def _spread(values: Sequence[int]) -> dict[str, float] | None:
    return {"min": min(values), "median": median(values), "max": max(values)} if values else None


def _split_sizes(manifest: Manifest | None) -> dict[str, int] | None:
    return None if manifest is None else {name: sum(split.values()) for name, split in manifest.counts().items()}


def _fact_lines(name: str, facts: dict[str, Any]) -> list[str]:
    sizes = list(facts["classes"].values())
    lines = [
        f"{_printable(name)}: {facts['pictures']:,} pictures in {len(sizes)} classes, {facts['bytes'] / 1e6:,.1f} MB",
        "formats: " + (", ".join(f"{form} {count:,}" for form, count in facts["formats"].items()) or "none"),
    ]
    if sizes:
        lines.append(f"pictures a class: {min(sizes):,} to {max(sizes):,}, median {median(sizes):,g}")
    for side in ("width", "height"):
        if facts[side]:
            lines.append("{0}: {min} to {max} pixels, median {median:g}".format(side, **facts[side]))
    if facts["splits"]:
        lines.append("split: " + ", ".join(f"{split} {count:,}" for split, count in facts["splits"].items()))
    return lines


def _named(family: Sequence[tuple[Picture, Inspection]], *, with_labels: bool = False) -> str:
    names = [f"{picture.name} [{picture.label}]" if with_labels else picture.name for picture, _ in family]
    return " = ".join(names[:4]) + (f" = … ({len(names)} in all)" if len(names) > 4 else "")


def _described(picture: Picture, seen: Inspection) -> str:
    return f"{picture.name} ({seen.format} {seen.mode}, {seen.width}×{seen.height})"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
