"""Write what the docs say of the code from the code: docs/reference/*.md and notebooks/walkthrough.ipynb.

    python docs/generate.py

tests/test_docs.py holds that the committed files are what this writes.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import cyclopts

import darkroom
from darkroom import cli, config, files
from darkroom.notebook import notebook_of
from darkroom.training.recipes import LADDERS, OPTIMISERS, RECIPES, REFERENCE_BATCH

REPOSITORY = Path(__file__).resolve().parents[1]

SETTINGS = (
    config.StorageConfig,
    config.DataConfig,
    config.TrainConfig,
    config.CompareConfig,
    config.AblateConfig,
    config.ExportConfig,
    config.EngineConfig,
    config.ServeConfig,
)

WORDS = {bool: "", int: "whole number", float: "number", str: "text", Path: "path"}

CLI = """
# Command line

Written from the code by `docs/generate.py`. `darkroom COMMAND --help` says the same.

DATA is `digits`, `cifar10`, `animals10`, a folder of class folders, an archive of one, or a .csv of path,label
([your own pictures](../guides/pictures.md)). MODEL is the folder of a run, of a comparison or of a bundle, or the name
of a model that comes with darkroom.

Every command also takes `--config FILE`, a TOML file with a table for each command ([settings](config.md)), and
`--help`. A mistake is told in one line, with exit code 2; 130 means that Ctrl-C stopped it.
"""

CONFIG = """
# Settings

Written from the code by `docs/generate.py`. Each setting has one name in three forms: `batch_size` in Python,
`--batch-size` on the command line, and `batch-size` or `batch_size` in the table of a command in a TOML file:

```toml
# settings.toml, used as: darkroom train photos/ --config settings.toml
[train]
epochs = 30
batch-size = 64
flip = false
```

Options on the command line come before those of the file. Where no default is given, the recipe or the data decide.
"""

API = """
# Python

Written from the code by `docs/generate.py`; [the guide](../guides/python.md) shows how the parts go together. All
names are those of `import darkroom`.
"""


def main() -> None:
    """Write every file."""
    for name, content in written().items():
        files.write_text(REPOSITORY / name, content)
        print(name)


def written() -> dict[str, str]:
    """The content of each file, by its path in the repository."""
    return {
        "docs/reference/cli.md": _page(CLI, _commands()),
        "docs/reference/config.md": _page(CONFIG, [*_settings(), *_recipes()]),
        "docs/reference/api.md": _page(API, _api()),
        "notebooks/walkthrough.ipynb": notebook_of("digits"),
    }


def _page(head: str, lines: Sequence[str] | Iterator[str]) -> str:
    return "\n".join([head.strip("\n"), *lines]).rstrip("\n") + "\n"


def _commands() -> Iterator[str]:
    for words, app in every_command(cli.app):
        yield from _command(" ".join(words), app)


def every_command(app: cyclopts.App, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], cyclopts.App]]:
    """Commands with the words that call them, those of subcommands too."""
    for name in app:
        if not name.startswith("-"):
            found, words = app[name], (*before, name)
            if found.default_command is None:
                yield from every_command(found, words)
            else:
                yield words, found


def _command(words: str, app: cyclopts.App) -> Iterator[str]:
    function: Any = app.default_command
    own = [each for each in app.assemble_argument_collection(parse_docstring=True) if each.show and not each.keys]
    places, options = [each for each in own if each.index is not None], [each for each in own if each.index is None]
    kinds = [_kind(parameter.annotation) for parameter in inspect.signature(function).parameters.values()]
    shared = [kind for kind in kinds if is_dataclass(kind)]
    yield from ("", f"## darkroom {words}", "", inspect.cleandoc(function.__doc__).partition("\n\n")[0], "")
    usage = [f"darkroom {words}", *map(_placeholder, places), *(["[options]"] if options or shared else [])]
    yield from ("```text", " ".join(usage), "```", "")
    yield from _table(("argument", "meaning"), [(f"`{_name(each)}`", each.parameter.help or "") for each in places])
    if options:
        rows = [(_names(each.names), values_of(each.hint), _with_default(each)) for each in options]
        yield from _table(("option", "value", "meaning"), rows)
    if shared:
        links = [f"[{kind.__name__}](config.md#{kind.__name__.lower()})" for kind in shared]
        yield from (f"{'And' if options else 'With'} the options of {' and of '.join(links)}.", "")


def _kind(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _name(argument: Any) -> str:
    return f"{argument.field_info.name.upper()}{'…' if argument.is_var_positional() else ''}"


def _placeholder(argument: Any) -> str:
    return _name(argument) if argument.required else f"[{_name(argument)}]"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _with_default(argument: Any) -> str:
    default = "" if argument.required else default_of(argument.field_info.default)
    return f"{argument.parameter.help or ''}{f' By default {default}.' if default and default != 'off' else ''}"


def values_of(hint: Any) -> str:
    """What may be given for a type, in words."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    parts = [part for part in get_args(hint) if part is not type(None) and part is not ...]
    if parts:
        return values_of(parts[0]) + (" (several)" if get_origin(hint) is tuple else "")
    return WORDS[hint]


def default_of(value: Any) -> str:
    """A default for people; empty where there is none. Folders of the machine that this runs on are not shown."""
    if value is None or value == ():
        return ""
    if value == config.CACHE_FOLDER:
        return "the user's cache folder"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return f"`{' '.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _settings() -> Iterator[str]:
    helps = attribute_docstrings(inspect.getsource(config))
    for kind in SETTINGS:
        own = [field for field in fields(kind) if field.name in inspect.get_annotations(kind)]
        hints = get_type_hints(kind)
        yield from ("", f"## {kind.__name__}", "", inspect.cleandoc(kind.__doc__ or ""), "")
        if len(own) < len(fields(kind)):
            base = kind.__bases__[0].__name__
            yield from (f"The settings of [{base}](#{base.lower()}), and:", "")
        rows = [
            (
                _names(_options(field.name, hints[field.name])),
                values_of(hints[field.name]),
                default_of(field.default),
                helps[kind.__name__, field.name],
            )
            for field in own
        ]
        yield from _table(("option", "value", "default", "meaning"), rows)


def _options(field: str, hint: Any) -> list[str]:
    name = field.replace("_", "-")
    return [f"--{name}", f"--no-{name}"] if bool in (hint, *get_args(hint)) else [f"--{name}"]


def attribute_docstrings(source: str) -> dict[tuple[str, str], str]:
    """The sentence under each field of each class, by the names of class and field."""
    found = {}
    for definition in (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[definition.name, field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found


def _recipes() -> Iterator[str]:
    yield from ("", "## Recipes", "", "What `--recipe` sets, where you give nothing. Empty: by rule.", "")
    names = list(dict.fromkeys(name for recipe in RECIPES.values() for name in recipe))
    rows = [
        (_names(_options(name, str)), *(default_of(recipe.get(name)) for recipe in RECIPES.values())) for name in names
    ]
    yield from _table(("option", *(f"`{name}`" for name in RECIPES)), rows)
    yield from ("With `--minutes`, the width follows from the number of epochs that fit on this machine:", "")
    ladders = [(f"`{name}`", ", ".join(_rung(rung) for rung in ladder)) for name, ladder in LADDERS.items()]
    yield from _table(("recipe", "width"), ladders)
    yield from (
        f"What the optimisers begin with, for batches of {REFERENCE_BATCH} pictures. The learning rate of a recipe "
        "comes before it, and unless you give one, it is scaled by the root of the batch size:",
        "",
    )
    numbers = list(next(iter(OPTIMISERS.values())))
    optimisers = [
        (f"`{name}`", *(default_of(values[number]) for number in numbers)) for name, values in OPTIMISERS.items()
    ]
    yield from _table(("optimiser", *(_names(_options(number, float)) for number in numbers)), optimisers)


def _rung(rung: Any) -> str:
    return f"{rung.width:g}" + (f" from {rung.epochs:g} epochs on" if rung.epochs else "")


def _api() -> Iterator[str]:
    public = {name: getattr(darkroom, name) for name in darkroom.__all__ if not name.startswith("_")}
    yield from ("", "## Functions")
    for name, value in public.items():
        if not inspect.isclass(value):
            yield from ("", f"### {name}", "", "```text", f"darkroom.{name}({_parameters(value)})", "```", "")
            yield from markdown_of(value.__doc__)
    yield from ("", "## Classes")
    for name, value in public.items():
        if inspect.isclass(value):
            yield from ("", f"### {name}", "")
            yield from markdown_of(value.__doc__)
            yield from _members(name, value)


def _parameters(function: Any) -> str:
    """As they are called: types are told in words, and defaults that are settings by their class."""
    shown: list[str] = []
    only_by_name = False
    for parameter in inspect.signature(function).parameters.values():
        several = parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.KEYWORD_ONLY and not only_by_name:
            shown.append("*")
        only_by_name = only_by_name or several or parameter.kind is parameter.KEYWORD_ONLY
        default = "" if parameter.default is parameter.empty else f"={_written(parameter.default)}"
        shown.append(f"{'*' if several else ''}{parameter.name}{default}")
    return ", ".join(shown)


def _written(value: Any) -> str:
    return f"darkroom.{type(value).__name__}()" if is_dataclass(value) else repr(value)


def markdown_of(docstring: str | None) -> Iterator[str]:
    """A docstring in Markdown: its example as Python, and a list of what it raises."""
    text, _, raised = inspect.cleandoc(docstring or "").partition("\nRaises:\n")
    for paragraph in text.strip("\n").split("\n\n"):
        is_code = paragraph.startswith("    ")
        yield from ("```python", textwrap.dedent(paragraph), "```", "") if is_code else (paragraph, "")
    for entry in textwrap.dedent(raised).replace("\n    ", " ").splitlines():
        kind, _, why = entry.partition(": ")
        yield f"- raises `{kind}`: {why}"


def _members(name: str, kind: type) -> Iterator[str]:
    if kind in SETTINGS:
        yield f"Its fields: [settings](config.md#{name.lower()})."
        return
    members = {
        member: inspect.cleandoc(inspect.getdoc(value) or "").partition("\n\n")[0]
        for member, value in vars(kind).items()
        if not member.startswith("_") and (callable(value) or isinstance(value, property | classmethod | staticmethod))
    }
    rows = [(f"`{member}`", " ".join(what.split())) for member, what in members.items() if what]
    yield from _table(("member", "meaning"), rows) if rows else ()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table without columns that are empty, and an empty line behind it."""
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    if not rows:
        return
    yield _row([head[place] for place in kept])
    yield _row(["---"] * len(kept))
    for row in rows:
        yield _row([row[place] for place in kept])
    yield ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    main()
