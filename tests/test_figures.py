"""Figures are written whole, alike every time, and lie on their sheet without any two texts touching."""

import warnings
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from darkroom.evaluation import calibration, metrics
from darkroom.figures import comparison, data, evaluation, network, style, training
from darkroom.figures.network import LayerRow

GENERATOR = np.random.default_rng(0)
SIZES = (2, 10, 100)


def class_names(count):
    """Two short names, ten everyday ones, or a hundred of forty letters that differ only at their end."""
    everyday = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    return everyday[:count] if count <= 10 else [f"great northern spotted woodpecker no. {i:04d}" for i in range(count)]


def pictures(count, side=12):
    return GENERATOR.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def predictions(count):
    labels = np.repeat(np.arange(count), 30)
    logits = (
        np.random.default_rng(1).normal(size=(len(labels), count)) + (1 + 0.6 * np.log(count)) * np.eye(count)[labels]
    )
    return labels, calibration.probabilities(logits, 1.0)


def scores_of(count):
    """`per_class` and confusion matrix of simulated predictions."""
    labels, probabilities = predictions(count)
    outcome = metrics._outcome(labels, probabilities)
    return metrics._per_class(outcome, class_names(count)), metrics._confusion(outcome)


def draw_samples(path, count):
    return data.samples(path, pixels_by_class={name: pictures(8) for name in class_names(count)})


def draw_class_balance(path, count):
    sizes = {name: 10 + 1234 * place % 5000 for place, name in enumerate(class_names(count))}
    counts = {"train": sizes, "validation": {name: size // 5 for name, size in sizes.items()}, "test": sizes}
    return data.class_balance(path, counts=counts)


def draw_augmented(path, count):
    return data.augmented(
        path, originals=pictures(count), views=GENERATOR.integers(0, 256, (count, 9, 12, 12, 3), dtype=np.uint8)
    )


def draw_confusion_matrix(path, count):
    confusion, names = scores_of(count)[1], class_names(count)
    return evaluation.confusion_matrix(
        path, confusion=confusion, classes=names, pairs=metrics.most_confused(confusion, names, 15)
    )


def draw_reliability_diagram(path, count):
    found = calibration.reliability(*predictions(count))
    columns = {name: getattr(found, name) for name in ("count", "confidence", "accuracy", "low", "high")}
    return evaluation.reliability_diagram(
        path, **columns, ece={"value": 0.05, "low": 0.02, "high": 0.08}, threshold=0.7
    )


def draw_worst_mistakes(path, count):
    names = [class_names(count)[place % count] for place in range(23)]
    return evaluation.worst_mistakes(
        path, pixels=pictures(23), true=names, predicted=names[::-1], confidence=np.linspace(1, 0.6, 23).tolist()
    )


def draw_per_class(path, count):
    return evaluation.per_class(path, scores=scores_of(count)[0])


def draw_confused_pairs(path, count):
    return evaluation.confused_pairs(
        path, pairs=metrics.most_confused(scores_of(count)[1], class_names(count), limit=20)
    )


def draw_learning_curves(path, count):
    history = [
        {
            "epoch": float(epoch),
            "train_loss": 2 / epoch,
            "train_accuracy": 1 - 0.9 / epoch,
            "validation_loss": 2.2 / epoch,
            "validation_accuracy": 1 - 0.95 / epoch,
            "learning_rate": 1e-3 / epoch,
            "seconds": 2.0,
            "images_per_second": 1234.5,
        }
        for epoch in range(1, count)
    ]
    return training.learning_curves(path, history=history, best_epoch=max(1, count - 3))


def draw_network(path, count):
    layers = {2: 6, 10: 20, 100: 60}[count]
    rows = [convolution(8 + place, 64 - place // 3 * 3) for place in range(layers - 1)]
    return network.diagram(path, layers=[*rows, LayerRow("head", "fully connected", (count,), 650, 640)])


def draw_accuracy_latency(path, count):
    """Networks of nearly the same accuracy and time, as frozen and fine-tuned ones are."""
    rows = []
    for place, name in enumerate(class_names(count)):
        accuracy = {"value": 0.99 - place // 3 * 0.002, "low": 0.96 - place * 0.003, "high": 0.995}
        serving = {"milliseconds": 3.1 + place // 2 * 0.1}
        rows.append(
            {"name": name, "chosen": place == 1, "validation": {"accuracy": accuracy}, "serving": serving},
        )
    return comparison.accuracy_latency(path, rows=rows)


def draw_effects(path, count):
    rows = [
        {
            "what": f"without {name}",
            "mean": place / 100 - 0.02,
            "low": place / 100 - 0.04,
            "high": place / 100,
            "sure": place != 2,
        }
        for place, name in enumerate(class_names(min(count, 20)))
    ]
    return comparison.effects(path, rows=rows, baseline=[0.91, 0.92, 0.93])


def convolution(channels, side):
    return LayerRow("layer", "convolution 3×3", (channels, side, side), 9 * channels, 9 * channels * side)


DRAWINGS = [draw for name, draw in globals().items() if name.startswith("draw_")]
cases = pytest.mark.parametrize("count", SIZES)
drawings = pytest.mark.parametrize("draw", DRAWINGS, ids=lambda draw: draw.__name__.removeprefix("draw_"))


def shown_texts(figure: Figure) -> list[Text]:
    """Texts that are drawn: not empty, and of ticks only those inside their axis."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            outside = [tick for tick in ticks if not (axes.axison and low <= tick.get_loc() <= high)]
            hidden |= {text for tick in outside for text in (tick.label1, tick.label2)}
    return [
        text for text in figure.findobj(Text) if text not in hidden and text.get_visible() and text.get_text().strip()
    ]


def boxes(figure: Figure):
    """(text, x0, y0, x1, y1) of each shown text in inches."""
    with style.look():
        figure.canvas.draw()
        found = []
        for text in shown_texts(figure):
            extent = Text.get_window_extent(text).extents / figure.dpi  # of an annotation too, without its line
            found.append((text.get_text(), *extent))
    return found


@cases
@drawings
def test_texts_are_legible_on_a4_and_apart(draw, count, tmp_path):
    figure = draw(tmp_path / "figure", count)
    found = boxes(figure)
    width, height = figure.get_size_inches()
    assert width == pytest.approx(style.WIDTH)
    assert height <= style.MAX_HEIGHT + 0.1
    assert min(text.get_fontsize() for text in shown_texts(figure)) >= style.SMALL
    corners = np.array([box[1:] for box in found])
    assert (corners[:, :2] >= -0.005).all(), found[int(corners[:, :2].min(axis=1).argmin())]
    assert (corners[:, 2] <= width + 0.005).all(), found[int(corners[:, 2].argmax())]
    assert (corners[:, 3] <= height + 0.005).all(), found[int(corners[:, 3].argmax())]
    low, high = corners[:, :2], corners[:, 2:]
    overlap = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])  # (N, N, 2) inches
    touching = np.argwhere(np.triu((overlap > 0.012).all(axis=2), k=1))
    assert not len(touching), [(found[a][0], found[b][0]) for a, b in touching[:5]]


@drawings
def test_same_input_same_bytes(draw, tmp_path):
    def bytes_of(folder):
        global GENERATOR
        GENERATOR = np.random.default_rng(0)
        draw(tmp_path / folder / "figure.v1", 10)
        return [(tmp_path / folder / f"figure.v1{suffix}").read_bytes() for suffix in (".svg", ".png")]

    assert bytes_of("one") == bytes_of("two")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["figure.v1.png", "figure.v1.svg"]


@pytest.mark.parametrize("draw", [draw_samples, draw_class_balance, draw_confusion_matrix, draw_per_class])
def test_svg_is_valid_and_names_every_class(draw, tmp_path):
    draw(tmp_path / "figure", 10)
    text = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)  # noqa: S314 - our own file
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{http://www.w3.org/2000/svg}title").text
    assert "<text" not in text, "letters must be outlines"
    for name in class_names(10):
        assert f"<!-- {name} -->" in text


def test_odd_names_are_shown_as_they_are(tmp_path):
    names = ["$5_bill$", "a_b^2 <&> --", "日本語の猫", "قطة", "😺 cat", "e\u0301" * 60, "x" * 200, "two\nlines"]
    confusion = np.full((8, 8), 3) + 40 * np.eye(8, dtype=int)
    with warnings.catch_warnings(record=True) as noise:
        warnings.simplefilter("always")
        figure = evaluation.confusion_matrix(tmp_path / "odd", confusion=confusion, classes=names)
    assert [str(warning.message) for warning in noise] == []
    shown = {text.get_text() for text in figure.findobj(Text)}
    assert {*names[:5], "two lines"} <= shown
    ElementTree.parse(tmp_path / "odd.svg")  # noqa: S314 - our own file


def test_drawing_leaves_the_settings_of_the_process_alone(tmp_path):
    before = dict(mpl.rcParams)
    draw_confused_pairs(tmp_path / "figure", 10)
    assert dict(mpl.rcParams) == before


def test_look_does_not_depend_on_the_settings_of_the_process(tmp_path):
    draw_learning_curves(tmp_path / "plain", 10)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.bbox": "tight"}):
        draw_learning_curves(tmp_path / "set", 10)
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "set.png").read_bytes()


def test_pictures_appear_in_their_own_colours(tmp_path):
    solid = np.zeros((2, 8, 8, 3), np.uint8) + np.array([[[[250, 10, 20]]], [[[5, 200, 90]]]], np.uint8)
    data.samples(tmp_path / "solid", pixels_by_class={"red": solid[:1], "green": solid[1:]})
    shown = np.unique(np.asarray(Image.open(tmp_path / "solid.png").convert("RGB")).reshape(-1, 3), axis=0)
    assert {(250, 10, 20), (5, 200, 90)} <= {tuple(color) for color in shown.tolist()}


def test_tiny_pictures_keep_hard_edges(tmp_path):
    checks = np.indices((8, 8)).sum(axis=0) % 2 * 255
    data.samples(
        tmp_path / "checks", pixels_by_class={"checks": np.stack([checks] * 3, axis=-1)[None].astype(np.uint8)}
    )
    drawn = np.asarray(Image.open(tmp_path / "checks.png").convert("L"))
    area = drawn[-100:-40, 90:150]  # inside the picture
    assert ((area < 5) | (area > 250)).mean() > 0.95
    assert 0.3 < (area < 5).mean() < 0.7


def test_a_class_without_pictures_is_drawn(tmp_path):
    found = data.samples(tmp_path / "s", pixels_by_class={"cat": pictures(2), "dog": np.zeros((0, 8, 8, 3), np.uint8)})
    assert {"cat", "dog"} <= {text for text, *_ in boxes(found)}


def test_balance_points_at_a_split_without_pictures(tmp_path):
    counts = {"train": {"cat": 5, "dog": 7}, "test": {"cat": 2, "dog": 0}}
    figure = data.class_balance(tmp_path / "balance", counts=counts)
    colors = {text.get_text(): text.get_color() for text in shown_texts(figure)}
    assert colors["7 + 0"] == style.VERMILLION != colors["5 + 2"]
    assert any("a split has none" in text for text in colors)


@pytest.mark.slow
def test_more_classes_than_a_page_holds(tmp_path):
    names = class_names(300)
    scores = {
        name: {"precision": p, "recall": p, "f1": p, "support": 3}
        for p, name in zip(np.linspace(0, 1, 300), names, strict=True)
    }
    said = {text for text, *_ in boxes(evaluation.per_class(tmp_path / "p", scores=scores))}
    assert any("the 100 weakest of 300 classes" in text for text in said)
    assert {"0.000", "0.331"} <= said
    assert "1.000" not in said
    confusion = np.eye(300, dtype=int)
    evaluation.confusion_matrix(tmp_path / "c", confusion=confusion, classes=names)
    data.samples(tmp_path / "s", pixels_by_class={name: pictures(1) for name in names})
    data.class_balance(tmp_path / "b", counts={"train": dict.fromkeys(names, 3)})


def test_classes_absent_from_the_split_are_named_not_plotted(tmp_path):
    row = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 4}
    figure = evaluation.per_class(tmp_path / "p", scores={"cat": row, "yak": {**row, "support": 0}})
    said = [text for text, *_ in boxes(figure)]
    assert "yak" not in said
    assert "without pictures here: yak" in said


def test_names_keep_their_distance_and_their_order():
    places = comparison.spread([3.0, 2.99, 2.98, 0.1, 0.05, 0.0], 3.0)
    assert places[:2] == [3.0, pytest.approx(3.0 - comparison.PITCH)]
    assert np.diff(places).max() <= -comparison.PITCH + 1e-9
    assert min(places) >= 0


def test_no_mistakes_is_said(tmp_path):
    empty = evaluation.worst_mistakes(tmp_path / "w", pixels=pictures(0), true=[], predicted=[], confidence=[])
    assert any("No mistakes" in text for text, *_ in boxes(empty))
    assert any("No class" in text for text, *_ in boxes(evaluation.confused_pairs(tmp_path / "c", pairs=[])))


def test_curves_of_one_epoch_and_with_gaps(tmp_path):
    row = {
        "epoch": 1.0,
        "train_loss": float("nan"),
        "validation_loss": 1.5,
        "validation_accuracy": 0.6,
        "learning_rate": 0.1,
    }
    figure = training.learning_curves(tmp_path / "one", history=[row], best_epoch=1)
    assert any("validation accuracy 60.0 %, loss 1.5" in text for text, *_ in boxes(figure))
    training.learning_curves(tmp_path / "none", history=[row], best_epoch=None)


def test_network_groups_many_layers_into_stages(tmp_path):
    stage = [convolution(16, 32), LayerRow("n", "normalisation", (16, 32, 32), 32, 0)]
    layers = [*stage * 4, LayerRow("p", "max pooling", (16, 16, 16), 0, 0), LayerRow("f", "linear", (10,), 1500, 1490)]
    said = [text for text, *_ in boxes(network.diagram(tmp_path / "n", layers=layers))]
    assert {"16×32×32", "4 × normalisation", "704 param.", "1.5 k param."} <= set(said)
    assert "10 layers, 2.2 k parameters, 19.9 k multiply-adds a picture" in said


def test_parameters_outside_of_layers_are_counted_and_not_drawn(tmp_path):
    rows = [convolution(16, 32), LayerRow("places", "VisionTransformer", (), 1000, 0)]
    said = [text for text, *_ in boxes(network.diagram(tmp_path / "n", layers=rows))]
    assert any("1.14 k parameters" in text for text in said)
    assert not any("VisionTransformer" in text for text in said)


def test_matrix_gives_numbers_or_the_largest_confusions(tmp_path):
    def said(count):
        return {text for text, *_ in boxes(draw_confusion_matrix(tmp_path / "m", count))}

    assert {str(number) for row in scores_of(10)[1] for number in row if number} <= said(10)
    assert any("Most often confused" in text for text in said(100))


@pytest.mark.parametrize("width", [0.05, 0.3, 1.0, 2.0])
def test_shortening_keeps_to_its_width_and_both_ends(width):
    with style.look():
        name = class_names(100)[7]
        short = style.shorten(name, width)
        assert style.width_of(short) <= max(width, style.width_of("…"))
        assert name.startswith(short.split("…")[0])
        assert name.endswith(short.split("…")[1])
        assert style.shorten("cat", 2.0) == "cat"


def test_wrapping_keeps_to_its_width_and_all_letters():
    with style.look():
        for name in ("great northern spotted woodpecker", "great_northern_spotted_woodpecker", "x" * 40):
            lines = style.wrap(name, 0.9, lines=10)
            assert all(style.width_of(line) <= 0.9 for line in lines)
            assert "".join(lines).replace(" ", "") == name.replace(" ", "")
            assert len(style.wrap(name, 0.9, lines=2)) == 2


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (0.5, "50 %"), (0.994, "99 %"), (0.997, "99.7 %"), (0.9999, "> 99.9 %"), (1, "100 %")],
)
def test_percent_never_rounds_to_certainty(share, text):
    assert style.percent(share) == text


def test_a_failed_write_leaves_the_old_figure(tmp_path):
    draw_confused_pairs(tmp_path / "figure", 2)
    before = (tmp_path / "figure.svg").read_bytes()
    (tmp_path / "figure.png").unlink()
    (tmp_path / "figure.png").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError, match="figure"):
        draw_confused_pairs(tmp_path / "figure", 2)
    assert (tmp_path / "figure.svg").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "figure.svg"]
