"""Whether a server speaks of the bundle that is verified."""

import json
import urllib.request
from http.client import HTTPException
from typing import Any

from darkroom.bundle import INFO_FILE, BundleInfo
from darkroom.errors import ReportError
from darkroom.runs import Run

TIMEOUT = 10.0
"""Seconds to wait for a server."""


def server(address: str, run: Run) -> str:
    """It serves these weights, by the run's bundle or by that in integers."""
    said = _asked(address)
    infos = [BundleInfo.read(bundle / INFO_FILE) for bundle in (run.bundle, run.int8_bundle) if bundle.is_dir()]
    weights = [info.provenance["weights_sha256"] for info in infos]
    if said["weights_sha256"] not in weights:
        raise ReportError(f"{address} serves a model of other weights ({said['weights_sha256']!r:.14}…)")
    if said["bundle_sha256"] not in [info.sha256 for info in infos]:
        raise ReportError(
            f"{address} serves these weights in another bundle, with classes, thresholds or preprocessing of its own: "
            f"start it anew with `darkroom serve {run.folder}`"
        )
    return "serves this bundle"


def _asked(address: str) -> dict[str, Any]:
    url = f"{address.rstrip('/')}/api/v1/model"
    if not url.startswith(("http://", "https://")):
        raise ReportError(f"--server is {address}: give an address such as http://127.0.0.1:8000")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310  # the scheme is checked above
            said = json.load(answer)
        return {name: said[name] for name in ("weights_sha256", "bundle_sha256")}
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{url} does not answer as darkroom does ({error})") from error
