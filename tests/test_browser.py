"""The page in a real Chromium, over the real server."""

import base64
import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import bundles
from darkroom.bundle import CARD_FILE
from darkroom.config import ServeConfig
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.preprocess import Preprocessing, used_box
from darkroom.web import create_app
from darkroom.web.keys import add_key
from darkroom.web.papers import Papers, Sample
from darkroom.web.server import Server
from serving import RED, FormulaEngine, running, serving

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
    with OnnxRuntimeEngine.open(folder, threads=1) as engine, running(create_app(engine, settings), settings) as server:
        yield server


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


# ---- answers to keep ----


def saved(page: "playwright.Page", button: str) -> str:
    """The file that a button gives."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path()).read_text(encoding="utf-8")


def test_answers_can_be_saved(page: "playwright.Page", tmp_path: Path) -> None:
    pictures = [*bundles.mixed_pictures(), ('=1,"+2".png', bundles.encoded((240, 10, 10)))]
    playwright.expect(page.get_by_role("button", name="Save as CSV")).to_be_hidden()
    page.set_input_files("#files", save(tmp_path, pictures))
    playwright.expect(page.locator("#summary")).to_contain_text("3 without an answer")
    rows = list(csv.DictReader(io.StringIO(saved(page, "Save as CSV"))))
    assert list(rows[0]) == ["name", "label", "confidence", "sure", "unlike", "error", *bundles.CLASSES]
    assert [row["name"].lstrip("'") for row in rows] == [name for name, _ in pictures]
    assert rows[-1]["name"] == '\'=1,"+2".png'
    assert sum(bool(row["error"]) for row in rows) == 3
    for row in rows:
        if not row["error"]:
            assert sum(float(row[name]) for name in bundles.CLASSES) == pytest.approx(1, abs=1e-4)
    entries = json.loads(saved(page, "Save as JSON"))
    assert [entry["name"] for entry in entries] == [name for name, _ in pictures]
    assert sum("error" in entry for entry in entries) == 3


# ---- samples, photos, progress ----


@pytest.fixture
def sampled(engine: OnnxRuntimeEngine) -> Iterator[Server]:
    """A server that offers pictures to try."""
    settings = ServeConfig(port=0)
    pictures = [Sample(bundles.encoded(colour), "image/png") for colour in ((240, 10, 10), (10, 10, 240))]
    with running(create_app(engine, settings, Papers(None, tuple(pictures))), settings) as server:
        yield server


def test_samples_can_be_tried(browser: "playwright.Browser", sampled: Server) -> None:
    page = browser.new_page()
    page.goto(sampled.url)
    page.get_by_role("button", name="Sample picture 2").click()
    playwright.expect(page.locator(".card .verdict")).to_have_text("blue")
    playwright.expect(page.locator(".card .file")).to_have_text("sample 2")
    page.get_by_role("button", name="Sample picture 1").press("Enter")
    playwright.expect(page.locator(".card .verdict")).to_have_text(["red", "blue"])
    page.close()


def test_samples_work_without_javascript(browser: "playwright.Browser", sampled: Server) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(sampled.url)
    page.get_by_role("button", name="Sample picture 1").click()
    playwright.expect(page.locator(".card .verdict")).to_have_text("red")
    context.close()


def test_a_phone_offers_its_camera(browser: "playwright.Browser", server: Server, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(server.url)
    playwright.expect(page.locator(".camera")).to_be_visible()
    assert page.locator("#camera").get_attribute("capture") == "environment"
    page.set_input_files("#camera", save(tmp_path, [("photo.jpg", bundles.encoded((10, 240, 10), "JPEG"))]))
    playwright.expect(page.locator(".card .verdict")).to_have_text("green")
    context.close()


def test_a_computer_does_not(page: "playwright.Page") -> None:
    playwright.expect(page.locator(".camera")).to_be_hidden()


def test_progress_is_seen_while_the_server_looks(browser: "playwright.Browser", server: Server, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(server.url)
    held: list[playwright.Route] = []
    page.route("**/predict", lambda route: held.append(route))
    page.set_input_files("#files", save(tmp_path, [("a.png", bundles.encoded((240, 10, 10)))]))
    playwright.expect(page.locator(".card .verdict")).to_have_text("Looking…")
    playwright.expect(page.get_by_role("progressbar", name="Pictures done")).to_be_visible()
    playwright.expect(page.locator(".card img")).to_have_js_property("naturalWidth", 48)
    held[0].continue_()
    playwright.expect(page.locator(".card .verdict")).to_have_text("red")
    playwright.expect(page.locator("#progress")).to_be_hidden()
    page.close()


def test_a_busy_server_is_asked_again(browser: "playwright.Browser", server: Server, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(server.url)
    tries: list[str] = []

    def answer(route: "playwright.Route") -> None:
        tries.append(route.request.url)
        if len(tries) > 2:
            route.continue_()
        else:
            busy = json.dumps({"detail": "come back later"})
            route.fulfill(status=503, headers={"Retry-After": "1", "Content-Type": "application/json"}, body=busy)

    page.route("**/predict", answer)
    page.set_input_files("#files", save(tmp_path, [("a.png", bundles.encoded((240, 10, 10)))]))
    playwright.expect(page.locator(".card .verdict")).to_have_text("red")
    assert len(tries) == 3
    page.close()


# ---- what only some servers do ----


def test_a_key_is_asked_for_and_sent(browser: "playwright.Browser", engine: OnnxRuntimeEngine, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "me")
    [path] = save(tmp_path, [("a.png", bundles.encoded((240, 10, 10)))])
    with serving(engine, api_keys=tmp_path / "keys") as guarded:
        page = browser.new_page()
        page.goto(guarded.url)
        page.set_input_files("#files", path)
        playwright.expect(page.locator(".card .note")).to_contain_text("API key")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Try again").click()
        playwright.expect(page.locator(".card .verdict")).to_have_text("red")
        page.close()


def test_a_picture_unlike_those_of_training_is_noted(browser: "playwright.Browser", tmp_path: Path) -> None:
    files = [("red.png", bundles.encoded((240, 10, 10))), ("grey.png", bundles.encoded((100, 100, 100)))]
    with serving(FormulaEngine(novelty=NOVELTY)) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.set_input_files("#files", save(tmp_path, files))
        playwright.expect(page.locator("#summary")).to_have_text("1 answered, 1 not sure")
        ordinary, odd = page.locator(".card .unlike").all()
        playwright.expect(ordinary).to_be_hidden()
        playwright.expect(odd).to_contain_text("unlike those the model was trained on")
        page.close()


# ---- where a class is seen ----


def ask_where(page: "playwright.Page", path: Path, name: str = "red") -> "playwright.Locator":
    """The button that shows where, once there is an answer to a picture."""
    page.set_input_files("#files", path)
    playwright.expect(page.locator(".card .verdict")).to_have_text(name)
    return page.get_by_role("button", name="Show where")


def test_where_a_class_is_seen_is_asked_once_and_shown_on_request(page: "playwright.Page", tmp_path: Path) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "explain" in request.url else None)
    button = ask_where(page, *save(tmp_path, [("a.png", bundles.encoded((240, 10, 10)))]))
    for shown in (True, False, True):
        button.click()
        playwright.expect(page.locator(".heat")).to_be_visible(visible=shown)
        playwright.expect(page.locator(".legend")).to_be_visible(visible=shown)
        playwright.expect(button).to_have_attribute("aria-pressed", str(shown).lower())
    assert page.locator(".heat").evaluate("canvas => [canvas.width, canvas.height]") == [8, 8]
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("contract", "size"),
    [
        (Preprocessing(24, 24, crop_fraction=0.875), (300, 200)),
        (Preprocessing(24, 24, crop_fraction=0.875), (120, 400)),
        (Preprocessing(24, 24, resize="pad"), (300, 200)),
        (Preprocessing(24, 24, resize="pad"), (120, 400)),
        (Preprocessing(24, 24, resize="stretch"), (300, 100)),
    ],
)
def test_the_map_lies_over_what_the_network_saw(
    browser: "playwright.Browser", tmp_path: Path, contract: Preprocessing, size: tuple[int, int]
) -> None:
    [path] = save(tmp_path, [("a.png", bundles.encoded((240, 10, 10), size=size))])
    with serving(FormulaEngine(preprocessing=contract)) as server:
        page = browser.new_page()
        page.goto(server.url)
        # Bars of `pad` are white, which makes the colours bright.
        ask_where(page, path, "bright" if size == (120, 400) and contract.resize == "pad" else "red").click()
        playwright.expect(page.locator(".heat")).to_be_visible()
        picture, heat = (page.locator(f".card {part}").bounding_box() for part in ("img", ".heat"))
        page.close()
    assert picture is not None
    assert heat is not None
    assert picture["width"] / picture["height"] == pytest.approx(size[0] / size[1], rel=0.02)  # all of it is shown
    left, top, right, bottom = used_box(size, contract)
    expected = {
        "x": picture["x"] + left * picture["width"],
        "y": picture["y"] + top * picture["height"],
        "width": (right - left) * picture["width"],
        "height": (bottom - top) * picture["height"],
    }
    assert heat == pytest.approx(expected, abs=1)


def test_the_map_is_bright_where_the_class_is(page: "playwright.Page", tmp_path: Path) -> None:
    picture = Image.new("RGB", (200, 100), (10, 10, 240))
    picture.paste((250, 0, 0), (0, 0, 120, 100))
    picture.save(tmp_path / "a.png")
    ask_where(page, tmp_path / "a.png").click()
    playwright.expect(page.locator(".legend")).to_contain_text("most of it")
    veils = page.locator(".heat").evaluate(
        "canvas => { const { data } = canvas.getContext('2d').getImageData(0, 4, 8, 1);"
        " return [...data].filter((_, place) => place % 4 === 3); }"
    )
    assert min(veils[:3]) < 60
    assert veils[-1] > 140
    label = page.get_by_role("img", name="Map over a.png").get_attribute("aria-label")
    assert label is not None
    assert "speaks for red" in label
    assert "left" in label


def test_while_the_server_looks_where_it_is_asked_no_more(
    browser: "playwright.Browser", server: Server, tmp_path: Path
) -> None:
    page = browser.new_page()
    page.goto(server.url)
    held: list[playwright.Route] = []
    page.route("**/explain?*", lambda route: held.append(route))
    button = ask_where(page, *save(tmp_path, [("a.png", bundles.encoded((240, 10, 10)))]))
    button.press("Enter")
    playwright.expect(button).to_be_disabled()
    playwright.expect(button).to_have_attribute("aria-busy", "true")
    playwright.expect(page.locator(".legend")).to_have_text("Looking where…")
    button.press("Enter")
    button.click(force=True)
    assert len(held) == 1
    held[0].continue_()
    playwright.expect(page.locator(".heat")).to_be_visible()
    playwright.expect(button).to_be_enabled()
    playwright.expect(button).to_be_focused()
    page.close()


@pytest.mark.parametrize("status", [503, 429])
def test_a_busy_server_is_asked_again_where(
    browser: "playwright.Browser", server: Server, tmp_path: Path, status: int
) -> None:
    page = browser.new_page()
    page.goto(server.url)
    tries: list[str] = []

    def answer(route: "playwright.Route") -> None:
        tries.append(route.request.url)
        if len(tries) > 1:
            route.continue_()
        else:
            route.fulfill(status=status, headers={"Retry-After": "1"}, json={"detail": "come back later"})

    page.route("**/explain?*", answer)
    ask_where(page, *save(tmp_path, [("a.png", bundles.encoded((240, 10, 10)))])).click()
    playwright.expect(page.locator(".legend")).to_contain_text("busy")
    playwright.expect(page.locator(".heat")).to_be_visible()
    assert len(tries) == 2
    page.close()


def test_a_map_that_cannot_be_had_leaves_the_answer_as_it_was(
    browser: "playwright.Browser", server: Server, tmp_path: Path
) -> None:
    page = browser.new_page()
    page.goto(server.url)
    page.route("**/explain?*", lambda route: route.fulfill(status=422, json={"detail": "no map today"}))
    button = ask_where(page, *save(tmp_path, [("a.png", bundles.encoded((110, 110, 110)))]), "Not sure")
    button.click()
    playwright.expect(page.locator(".legend")).to_have_text("no map today")
    playwright.expect(page.locator(".note")).to_contain_text("Best guess:")
    playwright.expect(button).to_be_enabled()
    page.unroute("**/explain?*")
    page.route("**/explain?*", lambda route: route.abort())
    button.click()
    playwright.expect(page.locator(".legend")).to_contain_text("could not be reached")
    page.unroute("**/explain?*")
    button.click()
    playwright.expect(page.locator(".heat")).to_be_visible()
    page.close()


def test_nothing_is_shown_where_there_is_no_preview(page: "playwright.Page", tmp_path: Path) -> None:
    page.set_input_files("#files", save(tmp_path, [("red.tif", bundles.encoded((240, 10, 10), "TIFF"))]))
    playwright.expect(page.locator(".card .verdict")).to_have_text("red")
    playwright.expect(page.locator(".where")).to_be_hidden()


# ---- for everybody ----

PAGES = ("", "model", "api/v1/", "nowhere")
NOVELTY = {"score": "energy", "threshold": -3.0, "false_alarms": 0.05}
CARD = (Path(__file__).parents[1] / "models" / "cifar10" / CARD_FILE).read_text(encoding="utf-8")


def serious(page: "playwright.Page") -> list[tuple[str, str, list[str]]]:
    """What axe finds that keeps people out, with all that a page shows on demand."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    open_all(page)
    return [
        (page.url, entry["id"], [node["html"] for node in entry["nodes"]])
        for entry in axe.Axe().run(page).response["violations"]
        if entry["impact"] in ("serious", "critical")
    ]


@pytest.fixture(
    params=[
        ("light", 360),
        ("dark", 1280),
        pytest.param(("light", 1280), marks=pytest.mark.slow),
        pytest.param(("dark", 360), marks=pytest.mark.slow),
    ],
    ids=str,
)
def looks(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How a context of the browser looks: colours and width."""
    scheme, width = request.param
    return {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "reduced_motion": "reduce"}


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[Server]:
    """A server that has all that a page may show: a real card, samples, keys, and pictures unlike those of training."""
    settings = ServeConfig(port=0, api_keys=tmp_path / "keys")
    (tmp_path / "key").write_text(add_key(tmp_path / "keys", "me"))
    papers = Papers(CARD, (Sample(bundles.encoded((240, 10, 10)), "image/png"),))
    with running(create_app(FormulaEngine(novelty=NOVELTY), settings, papers), settings) as server:
        yield server


def test_axe_finds_nothing_serious(
    browser: "playwright.Browser", sampled: Server, tmp_path: Path, looks: dict[str, Any]
) -> None:
    context = browser.new_context(**looks)
    page = context.new_page()
    found = []
    for address in PAGES:
        page.goto(sampled.url + address)
        if not address:
            page.set_input_files("#files", save(tmp_path, bundles.mixed_pictures()))
            playwright.expect(page.locator("#summary")).to_contain_text("3 without an answer")
        found += serious(page)
    context.close()
    assert found == []


def test_axe_finds_nothing_serious_in_card_map_note_and_key(
    browser: "playwright.Browser", everything: Server, tmp_path: Path, looks: dict[str, Any]
) -> None:
    context = browser.new_context(**looks)
    page = context.new_page()
    page.goto(everything.url + "model")
    playwright.expect(page.get_by_role("heading", name="Weak spots")).to_be_visible()
    found = serious(page)
    page.goto(everything.url)
    page.get_by_label("API key").fill((tmp_path / "key").read_text())
    page.set_input_files("#files", save(tmp_path, [("grey.png", bundles.encoded((100, 100, 100)))]))
    playwright.expect(page.locator(".unlike")).to_be_visible()
    found += serious(page)
    page.get_by_role("button", name="Show where").click()
    playwright.expect(page.locator(".heat")).to_be_visible()
    found += serious(page)
    context.close()
    assert found == []


def test_axe_finds_nothing_serious_without_javascript(
    browser: "playwright.Browser", everything: Server, tmp_path: Path, looks: dict[str, Any]
) -> None:
    context = browser.new_context(**looks)  # axe is a script itself
    page = context.new_page()
    page.route("**/darkroom.js", lambda route: route.abort())
    page.goto(everything.url)
    found = serious(page)
    page.get_by_label("API key").fill((tmp_path / "key").read_text())
    pictures = [*bundles.mixed_pictures(), ("odd.png", bundles.encoded((100, 100, 100)))]
    page.set_input_files("#files", save(tmp_path, pictures))
    page.get_by_role("button", name="Look at them").click()
    playwright.expect(page.locator(".card")).to_have_count(21)
    playwright.expect(page.locator(".unlike").first).to_be_visible()
    found += serious(page)
    context.close()
    assert found == []


def test_without_javascript_a_phone_shows_the_answers_at_once(
    browser: "playwright.Browser", sampled: Server, tmp_path: Path
) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 640})
    page = context.new_page()
    page.goto(sampled.url)
    page.set_input_files("#files", save(tmp_path, bundles.mixed_pictures()))
    page.get_by_role("button", name="Look at them").click()
    heading = page.get_by_role("heading", name="Answers")
    playwright.expect(heading).to_be_in_viewport()
    playwright.expect(page.locator(".card").first).to_be_in_viewport()
    page.keyboard.press("Tab")  # goes on from the answers, not from the top
    playwright.expect(page.locator(".card summary").first).to_be_focused()
    context.close()


def test_buttons_of_different_cards_are_told_apart(page: "playwright.Page", tmp_path: Path) -> None:
    names = ["a.png", "b.png"]
    page.set_input_files("#files", save(tmp_path, [(name, bundles.encoded((240, 10, 10))) for name in names]))
    playwright.expect(page.locator("#summary")).to_have_text("2 answered")
    for kind in (".where", ".again"):
        for button, name in zip(page.locator(kind).all(), names, strict=True):
            playwright.expect(button).to_have_accessible_description(name)


def test_what_is_said_was_there_before_it_is_said(page: "playwright.Page") -> None:
    """Screen readers speak changes of a region that they know, and know none that is hidden."""
    for region in page.get_by_role("status").all():
        assert region.evaluate("element => getComputedStyle(element).display") != "none"
    assert page.get_by_role("status").count() == 2


@pytest.mark.parametrize("address", PAGES)
@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_sticks_out(browser: "playwright.Browser", server: Server, address: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(server.url + address)
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def open_all(page: "playwright.Page") -> None:
    """Show what a page shows on demand."""
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")


def test_the_pages_lead_to_each_other(page: "playwright.Page") -> None:
    page.get_by_role("link", name="The model", exact=True).click()
    playwright.expect(page.get_by_role("heading", level=1)).to_have_text("colours")
    page.get_by_role("link", name="For programs", exact=True).click()
    playwright.expect(page.get_by_role("heading", level=1)).to_have_text("For programs")
    page.get_by_role("link", name="darkroom", exact=True).click()
    playwright.expect(page.get_by_role("heading", level=1)).to_have_text("What is in the picture?")


@pytest.mark.slow
def test_all_pages_are_photographed(browser: "playwright.Browser", sampled: Server, tmp_path: Path) -> None:
    import screenshots

    pictures = save(tmp_path, [("broken.png", b"x"), ("a.png", RED), ("b.png", RED)])
    screenshots.take(browser, sampled.url, pictures, tmp_path / "screenshots")
    assert len(list((tmp_path / "screenshots").glob("*.png"))) == 34
