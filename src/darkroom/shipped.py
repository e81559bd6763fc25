"""The trained bundles that come with darkroom, each known by its name.

They lie in models/ of the repository, from where an editable install reads them; setup.py builds them into the package.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
SHELF = _PACKAGE.parents[1] / "models" if _PACKAGE.parent.name == "src" else _PACKAGE / "bundles"
"""Folder of the bundles that have names: of the checkout that darkroom runs from, or of the installed package."""


def shipped() -> dict[str, Path]:
    """Folders of the bundles that come with darkroom, by name."""
    return {path.parent.name: path.parent for path in sorted(SHELF.glob("*/bundle.json"))}


def samples_to_try(bundle: Path) -> Path | None:
    """Drawn pictures to try on a bundle that comes with darkroom; None for any other bundle."""
    folder = SHELF / "samples" / bundle.name
    return folder if folder.is_dir() and bundle.resolve().parent == SHELF.resolve() else None
