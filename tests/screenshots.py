"""Pictures of every page with the shipped model, for people to look at: into build/screenshots.

    .venv/bin/python tests/screenshots.py [MODEL [PICTURES]]

MODEL is cifar10, PICTURES a folder; without one, drawn pictures of the bundle stand in.
Names say what is seen, how wide, and in which colours. Look at them after a change of the page; nothing compares them.
"""

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from darkroom.bundle import Bundle
from darkroom.config import ServeConfig
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.shipped import shipped
from darkroom.web import create_app
from darkroom.web.papers import Papers
from serving import running

FOLDER = Path(__file__).parents[1] / "build" / "screenshots"
WIDTHS = {"desktop": 1280, "phone": 360}
SCHEMES = ("light", "dark")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def take(browser: Browser, url: str, pictures: list[Path], folder: Path) -> None:
    """All screenshots of the site at `url`, with answers to `pictures`."""
    folder.mkdir(parents=True, exist_ok=True)
    for device in WIDTHS:
        for scheme in SCHEMES:
            with _context(browser, device, scheme) as context:
                _take_one(context, url, pictures, folder, f"{device}-{scheme}")
        with _context(browser, device, "light", java_script_enabled=False) as context:
            _take_plain(context, url, pictures, folder, f"{device}-plain")


def _take_one(context: BrowserContext, url: str, pictures: list[Path], folder: Path, kind: str) -> None:
    page = context.new_page()
    for name, address in {"model": "model", "programs": "api/v1/", "missing": "nowhere", "empty": ""}.items():
        page.goto(url + address)
        _save(page, folder / f"{name}-{kind}.png")
    held: list[Route] = []
    page.route("**/predict", lambda route: held.append(route))
    page.set_input_files("#files", pictures[:2])
    expect(page.locator(".card .verdict").first).to_have_text("Looking…")
    _save(page, folder / f"waiting-{kind}.png")
    for route in held:
        route.abort()
    page.unroute("**/predict")
    page.goto(url)
    page.set_input_files("#files", pictures)
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#summary")).to_contain_text("answered")
    for button in page.get_by_role("button", name="Show where").all()[:3]:
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true", timeout=30_000)
    _save(page, folder / f"results-{kind}.png")
    page.goto(url)
    page.set_input_files("#files", pictures[-1])
    page.get_by_role("button", name="Show where").click()
    expect(page.locator(".heat")).to_be_visible()
    _save(page, folder / f"one-{kind}.png")


def _take_plain(context: BrowserContext, url: str, pictures: list[Path], folder: Path, kind: str) -> None:
    page = context.new_page()
    page.goto(url)
    page.screenshot(path=folder / f"empty-{kind}.png", full_page=True)
    page.set_input_files("#files", pictures)
    page.get_by_role("button", name="Look at them").click()
    expect(page.locator(".card")).to_have_count(len(pictures))
    page.screenshot(path=folder / f"first-sight-{kind}.png")
    page.screenshot(path=folder / f"results-{kind}.png", full_page=True)


@contextmanager
def _context(browser: Browser, device: str, scheme: str, **options: bool) -> Iterator[BrowserContext]:
    phone = device == "phone"
    size = {"width": WIDTHS[device], "height": 740 if phone else 800}
    context = browser.new_context(
        viewport=size,
        color_scheme=scheme,
        has_touch=phone,
        is_mobile=phone,
        device_scale_factor=2 if phone else 1,
        **options,
    )
    yield context
    context.close()


def _save(page: Page, path: Path) -> None:
    """Of the whole page, in a window of its height: `full_page` would show a phone's page as a computer's."""
    height = page.evaluate("document.documentElement.scrollHeight")
    before = page.viewport_size
    page.set_viewport_size({**before, "height": max(height, before["height"])})
    page.wait_for_timeout(700)  # until bars have grown and pictures are there
    page.screenshot(path=path)
    page.set_viewport_size(before)


def _pictures(bundle: Bundle, folder: Path) -> list[Path]:
    """The golden pictures as files, enlarged so that people see something, and what goes wrong beside them."""
    folder.mkdir(exist_ok=True)
    for place, content in enumerate(bundle.golden.encoded, start=1):
        with Image.open(io.BytesIO(content)) as image:
            large = image.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS)
        large.resize((384, 256) if place == 2 else (256, 256)).save(folder / f"picture {place}.png")
    Image.linear_gradient("L").resize((400, 200)).save(folder / "a shade.png")
    (folder / "IMG_2024_a_file_with_quite_a_long_name_that_is_no_picture.jpg").write_bytes(b"no picture")
    return sorted(folder.iterdir())


def main(name: str = "cifar10", folder: str | None = None) -> None:
    """Serve a shipped model and take its screenshots."""
    settings = ServeConfig(port=0)
    bundle = shipped()[name]
    with OnnxRuntimeEngine.open(bundle) as engine, tempfile.TemporaryDirectory() as drawn:
        pictures = _pictures(Bundle.open(bundle), Path(drawn)) if folder is None else sorted(Path(folder).iterdir())
        app = create_app(engine, settings, Papers.of(bundle, pictures[0].parent))
        with running(app, settings) as server, sync_playwright() as driver:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            take(browser, server.url, pictures, FOLDER)
            browser.close()
    print(f"look at {FOLDER}")


if __name__ == "__main__":
    main(*sys.argv[1:])
