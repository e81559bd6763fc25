"""The template of the report: numbers come into it by one function, and text is shown as it is, whatever it holds."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import typst
from jinja2 import nodes

from darkroom.errors import RunError
from darkroom.report import document
from darkroom.report.document import LAYOUT, TEMPLATE, environment_for, markup, quoted
from darkroom.report.facts import Facts
from darkroom.report.story import advice_of, headings
from reported import ODD, Reported, figures_of, invented, read, rendered, with_learning_curve, with_rivals

TEMPLATES = Path(document.__file__).parent / "templates"
NAMES = (*ODD, "two\nlines", "tab\tbed", "قطة", "猫", "🐱 cat", "=head", "- list", "//", "\\u{41}", "#panic()", "&amp;")


def test_headings_have_content_whatever_was_run(reported_run: Reported) -> None:
    run, figures = reported_run.run, figures_of(reported_run.run)
    usual = invented(run, ("cat", "dog", "owl"))
    flawless = invented(run, ("cat", "dog", "owl"), right=50)
    unopened = invented(run, ("cat", "dog"))
    unopened["metrics"]["validation"] = unopened["metrics"].pop("test")
    unopened["insights"]["split"] = "validation"
    bare = {name: content for name, content in flawless.items() if name not in ("bundle", "history")}
    for contents, drawn in (
        (usual, figures),
        (with_rivals(usual), figures),
        (with_learning_curve(usual, "help"), figures),
        (flawless, figures),
        (unopened, {}),
        (bare, {}),
    ):
        parts = re.split(r"^=+ (.+)$", rendered(contents, drawn), flags=re.MULTILINE)
        titles, bodies = parts[1::2], parts[2::2]
        assert len(titles) >= 9
        empty = [
            title for title, body in zip(titles, bodies, strict=True) if not body.replace("#place.flush()", "").strip()
        ]
        assert empty == []
        named = "The choice of the network <comparison>" in titles, "What each choice is worth <ablation>" in titles
        assert named == ("comparison" in contents, "ablation" in contents)


LAST_DOUBLING = (
    "from 1,234 training pictures to 2,468 changed the accuracy on validation by +7.1 points (interval +5.0 to +9.1)."
)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("help", "*More training pictures.* The last doubling of them still helped: "),
        ("little", "*More of the same pictures would help little:* "),
        ("unsure", "*Whether more training pictures would help is open:* "),
    ],
)
def test_what_a_learning_curve_says_of_more_pictures_is_told(reported_run: Reported, more: str, said: str) -> None:
    usual = invented(reported_run.run, ("cat", "dog", "owl"))
    text = read(with_learning_curve(usual, more))
    assert f"- {said}in the ablation, the step {LAST_DOUBLING}" in text
    assert text.count("in the ablation, the step") == 1
    without = read(with_rivals(usual))
    assert "in the ablation, the step" not in without
    assert ("[What would help next?], [More training pictures (@next)." in text) == (more == "help")


@pytest.mark.parametrize(
    ("more", "advice", "by_heart"),
    [
        ("help", ["pictures", "by_heart", "labels"], "stronger augmentation"),
        ("little", ["by_heart", "labels"], "stronger augmentation"),
        ("unsure", ["by_heart", "labels"], "more training pictures, or stronger augmentation"),
        (None, ["by_heart", "labels"], "more training pictures, or stronger augmentation"),
    ],
)
def test_what_was_tried_comes_before_what_was_deduced(
    reported_run: Reported, more: str | None, advice: list[str], by_heart: str
) -> None:
    contents = invented(reported_run.run, ("cat", "dog", "owl"))
    contents["insights"]["advice"] = ["by_heart", "labels"]
    facts = Facts(contents if more is None else with_learning_curve(contents, more))
    assert advice_of(facts) == advice
    assert headings(facts)["by_heart"] == by_heart
    assert set(advice) <= headings(facts).keys()
    assert contents["insights"]["advice"] == ["by_heart", "labels"], "insights are those of the run"


def test_pictures_that_are_left_aside_are_told(reported_run: Reported) -> None:
    contents = invented(reported_run.run, ("cat", "dog"))
    assert "left aside" not in rendered(contents, {})
    contents["config"]["data"]["counts"]["unused"] = {"cat": 1000, "dog": 2}
    assert 'The other #told("sum:config.data.counts.unused", "1,002"); were left aside' in rendered(contents, {})


PATH = re.compile(r"[a-z_]*(\.([a-z][a-z_0-9]*|\d+))+")
"""Such as insights.confused.pairs.0.true, or the end of one."""
NO_NUMBERS = ("F1", "bf16", "fp32", "1fr", "column == 1")
"""A metric, two kinds of arithmetic, and what tables need in Typst's language."""


def literals(template: str) -> Iterator[str]:
    """What a template shows as it stands there, in its text and in strings and numbers of its expressions."""
    tree = jinja2.Environment(autoescape=True).parse(template)
    yield from (data.data for data in tree.find_all(nodes.TemplateData))
    yield from (const.value for const in tree.find_all(nodes.Const) if isinstance(const.value, str))
    for joined in tree.find_all((nodes.Concat, nodes.Output)):
        yield from (str(part.value) for part in joined.nodes if isinstance(part, nodes.Const))


def literal_numbers(template: str) -> list[str]:
    """Words with digits that stand in the template itself."""
    found = []
    for text in literals(template):
        if not PATH.fullmatch(text):
            for allowed in NO_NUMBERS:
                text = text.replace(allowed, "")
            found += [word for word in text.split() if any(letter.isdigit() for letter in word)]
    return found


def test_no_number_stands_in_the_template() -> None:
    assert literal_numbers((TEMPLATES / TEMPLATE).read_text(encoding="utf-8")) == []
    layout = (TEMPLATES / LAYOUT).read_text(encoding="utf-8")
    words = [re.sub(r"#[\w.]+\([^()]*\)", "", shown) for shown in re.findall(r"\[([^\[\]]*)\]", layout)]
    assert "Contents" in words, "else this proves nothing"
    assert [shown for shown in words if re.search(r"\d", shown)] == []


@pytest.mark.parametrize(
    "written",
    [
        "91 %",
        "= Heading 2",
        "{{ 91 }}",
        '{{ "91 %" }}',
        '{{ 91 ~ " %" }}',
        '{{ picture("name", "alt", "91 % of all") }}',
        "{% set caption %}91 %{% endset %}",
        "{% if ours %}91{% endif %}",
        "[F1], [0.916],",
    ],
)
def test_a_number_that_somebody_writes_into_the_template_is_found(written: str) -> None:
    template = (TEMPLATES / TEMPLATE).read_text(encoding="utf-8")
    assert literal_numbers(f"{template}\n{written}\n") != []


@pytest.mark.parametrize("shown", ["{{ number }}", "{{ number + 1 }}", "{{ 0.916 }}", "{{ [number] }}", "{{ none }}"])
def test_a_plain_number_cannot_be_shown(shown: str) -> None:
    with pytest.raises(TypeError, match="numbers are told by n"):
        environment_for(Facts({}), {}).from_string(shown).render(number=91)


def test_numbers_are_shown_where_they_are_told() -> None:
    facts = Facts({"metrics": {"n": 1234}})
    text = environment_for(facts, {}).from_string('{{ n("metrics.n", "count") }} {{ name }} {{ "a < b" }}')
    assert text.render(name='#x "y"') == r'#told("metrics.n", "1,234"); #"#x \"y\""; #"a < b";'
    assert [fact.path for fact in facts.told] == ["metrics.n"]
    with pytest.raises(RunError, match=r"metrics\.m"):
        environment_for(facts, {}).from_string('{{ n("metrics.m", "count") }}').render()


def letters(content: Any) -> str:
    """The text in what Typst says of content."""
    parts = content.get("children", []) if isinstance(content, dict) else []
    return "".join(map(letters, parts)) or str(content.get("text", ""))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_typst_reads_every_name_as_it_is(name: str) -> None:
    source = f"#metadata({quoted(name)})<said>\n#metadata([{markup(name)}])<said>\n"
    compiler = typst.Compiler(source.encode(), ignore_system_fonts=True)
    said, shown = json.loads(compiler.query("<said>", field="value"))
    assert (said, letters(shown)) == (name, name)
