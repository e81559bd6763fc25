"""The page in a real Chromium, over the real server."""

import base64
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import bundles
from darkroom.config import ServeConfig
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.web import create_app
from darkroom.web.server import Server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

playwright.expect.set_options(timeout=20_000)  # for machines that share their cores

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

PASTE_OR_DROP = """([kind, files]) => {
    const transfer = new DataTransfer();
    for (const [name, content] of files) {
        const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
        transfer.items.add(new File([bytes], name));
    }
    const options = { bubbles: true, cancelable: true };
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
        : new DragEvent("drop", { ...options, dataTransfer: transfer });
    document.getElementById("drop").dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("browser") / "bundle"
    bundles.make_bundle(folder)
    settings = ServeConfig(port=0, max_file_megabytes=0.5)
    with OnnxRuntimeEngine.open(folder, threads=1) as engine:
        server = Server(create_app(engine, settings), settings)
        thread = threading.Thread(target=server.run)
        thread.start()
        yield server
        server.stop()
        thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "playwright.Browser", server: Server) -> Iterator["playwright.Page"]:
    """The page in a fresh context; any complaint in the browser's console, the policy's included, fails the test."""
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.goto(server.url)
    yield page
    context.close()
    assert complaints == []


def save(folder: Path, pictures: list[tuple[str, bytes]]) -> list[Path]:
    """Write `pictures` as files."""
    paths = [folder / name for name, _ in pictures]
    for path, (_, content) in zip(paths, pictures, strict=True):
        path.write_bytes(content)
    return paths


def states(page: "playwright.Page") -> list[str]:
    """How each card stands."""
    return [str(card.get_attribute("data-state")) for card in page.locator("#cards > .card").all()]


def test_twenty_chosen_pictures_of_which_three_are_broken(page: "playwright.Page", tmp_path: Path) -> None:
    pictures = bundles.mixed_pictures()
    page.set_input_files("#files", save(tmp_path, pictures))
    playwright.expect(page.locator(".card")).to_have_count(20)
    playwright.expect(page.locator("#summary")).to_contain_text("3 without an answer")
    found = states(page)
    assert found.count("failed") == 3
    assert found.count("answered") + found.count("unsure") == 17
    assert page.locator(".card .file").all_text_contents() == [name for name, _ in pictures]
    for card, (name, _), state in zip(page.locator(".card").all(), pictures, found, strict=True):
        if state == "failed":
            assert card.locator(".note").is_visible()
            assert card.locator(".words > .bars li").count() == 0
        else:
            assert card.locator(".words > .bars li").count() == 3
            assert card.locator(".words > .bars .percent").first.text_content()
        for colour in ("red", "green", "blue"):
            if name.startswith(colour):
                playwright.expect(card.locator(".verdict")).to_have_text(colour)
    first = page.locator(".card").first
    assert first.locator("img").evaluate("image => image.complete && image.naturalWidth") == 48
    playwright.expect(first.locator(".words > .bars .fill").first).not_to_have_attribute("width", "0")
    first.locator("summary").click()
    playwright.expect(first.locator(".rest .label")).to_have_count(2)
    playwright.expect(first.locator(".rest .label").first).to_be_visible()


def test_a_doubt_is_told_in_plain_words(page: "playwright.Page", tmp_path: Path) -> None:
    page.set_input_files("#files", save(tmp_path, [("grey.png", bundles.encoded((110, 110, 110)))]))
    playwright.expect(page.locator(".card .verdict")).to_have_text("Not sure")
    playwright.expect(page.locator(".card .note")).to_contain_text("Best guess:")
    playwright.expect(page.locator("#summary")).to_have_text("1 not sure")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_paste_and_drop(page: "playwright.Page", kind: str) -> None:
    pictures = [("a.png", bundles.encoded((240, 10, 10))), ("b.jpg", bundles.encoded((10, 240, 10), "JPEG"))]
    page.evaluate(PASTE_OR_DROP, [kind, [(name, base64.b64encode(content).decode()) for name, content in pictures]])
    playwright.expect(page.locator(".card .verdict")).to_have_text(["red", "green"])
    playwright.expect(page.locator("#summary")).to_have_text("2 answered")


def test_dropping_no_file_is_explained(page: "playwright.Page") -> None:
    page.evaluate(PASTE_OR_DROP, ["drop", []])
    playwright.expect(page.locator("#summary")).to_contain_text("save the picture first")


def test_a_file_that_is_too_large_is_refused_without_sending_it(page: "playwright.Page", tmp_path: Path) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.method))
    page.set_input_files("#files", save(tmp_path, [("big.png", bytes(600_000))]))
    playwright.expect(page.locator(".card .note")).to_have_text("too large: 0.6 MB, where 0.5 MB are allowed")
    assert "POST" not in requests


def test_many_pictures_go_in_several_requests(page: "playwright.Page", tmp_path: Path) -> None:
    sizes: list[int] = []
    page.on(
        "response",
        lambda response: sizes.append(len(response.json()["predictions"])) if "predict" in response.url else None,
    )
    page.set_input_files(
        "#files", save(tmp_path, [(f"{place}.png", bundles.encoded((240, 10, 10))) for place in range(70)])
    )
    playwright.expect(page.locator("#summary")).to_have_text("70 answered")
    assert max(sizes) <= 8
    assert sum(sizes) == 70


def test_a_lost_server_can_be_tried_again(browser: "playwright.Browser", server: Server, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(server.url)
    page.route("**/predict", lambda route: route.abort())
    page.set_input_files("#files", save(tmp_path, [("a.png", bundles.encoded((240, 10, 10)))]))
    playwright.expect(page.locator(".card .note")).to_contain_text("could not be reached")
    page.unroute("**/predict")
    page.get_by_role("button", name="Try again").click()
    playwright.expect(page.locator(".card .verdict")).to_have_text("red")
    page.close()


def test_the_keyboard_is_enough(browser: "playwright.Browser", server: Server, tmp_path: Path) -> None:
    [path] = save(tmp_path, [("a.png", bundles.encoded((240, 10, 10)))])
    page = browser.new_page()
    # Before the page is there: Playwright does not wait until Chromium hands choosers over, and a key may be faster.
    page.on("filechooser", lambda chooser: chooser.set_files(path))
    page.goto(server.url)
    page.locator(".classes summary").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    page.keyboard.press("Enter")
    playwright.expect(page.locator(".card .verdict")).to_have_text("red")
    page.get_by_role("button", name="Clear").press("Enter")
    playwright.expect(page.locator(".card")).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "files"
    page.close()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_sticks_out_at_any_width(
    browser: "playwright.Browser", server: Server, tmp_path: Path, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(server.url)
    page.set_input_files("#files", save(tmp_path, [("x" * 110 + ".png", bundles.encoded((240, 10, 10))), ("b", b"")]))
    playwright.expect(page.locator("#summary")).to_contain_text("1 answered")
    for summary in page.locator("footer summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_without_javascript_the_form_works(browser: "playwright.Browser", server: Server, tmp_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(server.url)
    page.set_input_files("#files", save(tmp_path, bundles.mixed_pictures()))
    page.get_by_role("button", name="Look at them").click()
    playwright.expect(page.locator(".card")).to_have_count(20)
    found = states(page)
    assert found.count("failed") == 3
    box = page.locator(".card .fill").first.bounding_box()
    assert box is not None
    assert box["width"] > 20
    context.close()
