"""`darkroom verify`: everything that a run claims, computed again from what lies beneath it.

    pictures -> manifest -> config.json
    config.json, history.csv, network.txt, weights, graph -> bundle.json -> model-card.md
    pictures + graph -> predictions -> temperature, threshold, metrics -> bundle.json
    predictions, speeds -> comparison.json
    all of these, figures, samples -> insights.json, report.json, report.pdf, slides.pptx

Nothing is repaired or written. A check that cannot be made, because a file is missing or damaged, fails.
"""

from collections.abc import Iterator
from pathlib import Path

from darkroom.comparison.folder import Comparison
from darkroom.config import DataConfig
from darkroom.errors import RunError
from darkroom.runs import Run
from darkroom.verify.checks import Check, check
from darkroom.verify.comparison import comparison
from darkroom.verify.run import Verification
from darkroom.verify.server import server as server_check


def verify(path: Path, config: DataConfig, *, sample: int | None = None, server: str | None = None) -> Iterator[Check]:
    """All checks of a run, or of a comparison and the run that it chose, one after the other.

    `sample` bounds how many pictures of a split are read and answered again; `server` is the address of one that is
    said to serve this model.

    Raises:
        RunError: there is neither a run nor a comparison at `path`.
    """
    compared, run, place = Comparison(path), Run(path), Run(path)
    if not (compared.begun or run.begun):
        raise RunError(f"{path} holds neither a run nor a comparison: name the folder of one")
    if compared.begun:
        yield from comparison(compared, config)
        try:
            run = compared.chosen
        except (RunError, LookupError, TypeError):  # told by the checks above
            return
    yield from Verification(run, config, sample).checks()
    if any(file.is_file() for file in place.reported):
        from darkroom.verify.report import report  # here, since a run without one needs no Typst

        yield from report(place, run)
    if server is not None:
        yield check("server", lambda: server_check(server, run))
