"""The docs say what the code does: links lead somewhere, commands and options exist, and the reference is current."""

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom import cli, config
from snippets import faults

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
sys.path.insert(0, str(DOCS))

import generate  # noqa: E402

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FOR_USERS = [page for page in PAGES if page.name not in ("CONTRIBUTING.md", "design.md", "lab-notes.md")]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(.*)$", re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:\S*/|torchrun .*-m )?darkroom\s+(.*)$")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")

OF_OTHERS = {"--nproc-per-node", "--max-restarts", "--node-rank", "--master-addr", "--master-port"}
OF_OTHERS |= {"--rdzv-backend", "--rdzv-"}
OF_OTHERS |= {"--build", "--no-deps"}
"""Options of torchrun, of docker compose and of pip."""


RECORD = re.compile(r"benchmarks/results/[\w.-]+\.json")


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


@cache
def known_options() -> frozenset[str]:
    """Every option of every command."""
    found = {"--config", "--help", "--version"}
    for _, app in generate.every_command(cli.app):
        found |= {name for argument in app.assemble_argument_collection() for name in argument.names}
    return frozenset(found)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return INDENTED.sub("", FENCE.sub("", text_of(page)))


def blocks_of(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [code for found, code in FENCE.findall(text_of(page)) if found == language]


def commands_of(page: Path) -> Iterator[list[str]]:
    """The words behind `darkroom` in each line of code that calls it, comments left out."""
    text = text_of(page)
    code = [code for _, code in FENCE.findall(text)] + INDENTED.findall(FENCE.sub("", text))
    for line in "\n".join(code).replace("\\\n", " ").splitlines():
        found = COMMAND.match(line.strip())
        if found and "[options]" not in line:
            yield shlex.split(found[1], comments=True)


def anchors_of(page: Path) -> set[str]:
    """What headings are called in addresses, by Python-Markdown's rule."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles]
    return {re.sub(r"[-\s]+", "-", title) for title in plain}


COMMANDS = [(name_of(page), words) for page in PAGES for words in commands_of(page)]


def test_what_is_written_from_the_code_is_current() -> None:
    for name, content in generate.written().items():
        assert (REPOSITORY / name).read_text(encoding="utf-8") == content, (
            f"{name}: write it anew with `make reference`"
        )


def test_the_reference_has_every_command_and_setting() -> None:
    commands, settings = text_of(DOCS / "reference" / "cli.md"), text_of(DOCS / "reference" / "config.md")
    for name in ("doctor", "train", "compare", "report", "verify", "notebook", "weights fetch"):
        assert f"\n## darkroom {name}\n" in commands
    for option in known_options() - {"--config", "--help", "--version"}:
        if option.startswith("--") and not option.startswith("--empty-"):
            assert f"`{option}`" in commands + settings, option


def test_no_folder_of_this_machine_is_in_the_reference() -> None:
    for page in (DOCS / "reference").glob("*.md"):
        assert str(config.CACHE_FOLDER) not in text_of(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(INLINE.sub("", prose_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors_of(target), f"{link}: there is no such heading"
        if page.is_relative_to(DOCS):
            assert target.is_relative_to(DOCS), f"{link} leaves the site"


def test_the_site_has_every_page_once() -> None:
    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for part in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from pages(part)

    listed = list(pages(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_reader_of_commands_reads(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text, darkroom run x.\n\n    darkroom run a  # not 'this\n"
        "    torchrun --nnodes 2 \\\n        -m darkroom train b\n\n"
        "```sh\n.venv/bin/darkroom serve 'c d' --port 1\n```\n\n```text\ndarkroom train DATA [options]\n```\n"
    )
    found = list(commands_of(page))
    assert sorted(found) == [["run", "a"], ["serve", "c d", "--port", "1"], ["train", "b"]]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 50


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{page}: {shlex.join(words)}" for page, words in COMMANDS])
def test_commands_can_be_typed_as_they_stand(page: str, words: list[str]) -> None:
    if "--config" in words:
        place = words.index("--config")
        words = words[:place] + words[place + 2 :]
    cli.app.config = ()  # of another test's --config
    cli.app.parse_args(words, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("page", FOR_USERS, ids=name_of)
def test_options_in_the_text_exist(page: Path) -> None:
    named = {option for code in INLINE.findall(prose_of(page)) for option in OPTION.findall(code)}
    assert named - known_options() - OF_OTHERS == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_in_the_docs_names_what_exists(page: Path) -> None:
    assert [fault for code in blocks_of(page, "python") for fault in faults(code)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_toml_in_the_docs_has_names_of_options(page: Path) -> None:
    for code in blocks_of(page, "toml"):
        for command, table in tomllib.loads(code).items():
            assert command in list(cli.app)
            for name in table:
                assert f"--{name.replace('_', '-')}" in known_options()


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "CHANGELOG.md"], ids=name_of)
def test_records_that_are_named_are_there(page: Path) -> None:
    assert [record for record in RECORD.findall(text_of(page)) if not (REPOSITORY / record).is_file()] == []
