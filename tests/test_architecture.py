"""The imports of darkroom, read from its source: who may know whom, and what a server must be able to do without."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import darkroom

SOURCE = Path(darkroom.__file__).parent

LAYERS = (
    "__main__",
    "cli",
    "console",
    "notebook",
    "verify",
    "compare",
    "ablate",
    "workflow",
    "report",
    "web",
    "client",
    "comparison",
    "export",
    "summary",
    "engines",
    "training",
    "evaluation",
    "models",
    "data",
    "figures",
    "bundle",
    "preprocess",
    "runs",
    "shipped",
    "provenance",
    "config",
    "progress",
    "files",
    "errors",
)
"""The house from the roof to the ground: each imports only what stands below it (docs/design.md says why)."""

NO_TORCH = (
    "web",
    "client",
    "engines",
    "bundle",
    "preprocess",
    "report",
    "runs",
    "shipped",
    "config",
    "files",
    "summary",
)
NO_TORCH_AT_FIRST = ("cli", "console", "notebook", "verify", "compare", "ablate", "workflow")
"""These import the rest inside of functions."""

TORCH = frozenset({"torch", "torchvision", "timm", "tensorflow", "safetensors"})
SCIENCE = frozenset({"matplotlib", "sklearn", "scipy", "onnx", "onnxscript"})

Graph = Mapping[str, frozenset[str]]


def modules() -> dict[str, Path]:
    """Every module of darkroom by its full name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("darkroom", *path.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(tree: ast.AST, *, later: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that are executed when the module is imported and, with `later`, those inside of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from statements(ast.Module([other], []), later=later)
        elif later or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(node, later=later)


def names(statement: ast.Import | ast.ImportFrom, known: Mapping[str, Path]) -> Iterator[str]:
    """Full names of the modules that a statement imports; parents come with their children."""
    if isinstance(statement, ast.Import):
        wanted = [alias.name for alias in statement.names]
    else:
        assert statement.level == 0, "imports name the whole path"
        module = statement.module or ""
        wanted = [module, *(f"{module}.{alias.name}" for alias in statement.names)]
    for name in wanted:
        if name.partition(".")[0] != "darkroom":
            yield name.partition(".")[0]
            continue
        parts = name.split(".")
        yield from (parent for end in range(1, len(parts) + 1) if (parent := ".".join(parts[:end])) in known)


@cache
def imports(*, later: bool) -> Graph:
    """What each module of darkroom imports: modules of darkroom in full, others by their first name."""
    known = modules()
    graph = {}
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = {target for statement in statements(tree, later=later) for target in names(statement, known)}
        # A package comes with its children: that says nothing about who knows whom.
        graph[name] = frozenset(target for target in found if target != name)
    return graph


def reached(start: str, graph: Graph) -> dict[str, str]:
    """Everything that importing `start` imports, each with the module that does."""
    parents = {".".join(start.split(".")[:end]) for end in range(1, start.count(".") + 1)}
    why = dict.fromkeys(parents, start)
    waiting = [start, *parents]
    while waiting:
        module = waiting.pop()
        for target in graph.get(module, ()):
            if target not in why:
                why[target] = module
                waiting.append(target)
    return why


def layer(module: str) -> str:
    """The part of the house that a module belongs to; the package itself, which holds its version, to none."""
    return module.removeprefix("darkroom").strip(".").partition(".")[0]


def knows(graph: Graph) -> dict[str, set[str]]:
    """Modules of darkroom by what they import, without packages that only come with their children."""
    known = set(graph)
    return {
        name: {
            target
            for target in targets & known
            if not any(other.startswith(target + ".") for other in targets) and target != "darkroom"
        }
        for name, targets in graph.items()
    }


def test_the_reader_of_imports_reads() -> None:
    """Against a module of which all is known."""
    tree = ast.parse(
        "from typing import TYPE_CHECKING\nimport darkroom.files as f\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import json\n"
        "try:\n    import scipy.stats\nexcept ImportError:\n    pass\n"
        "def g():\n    from darkroom.web import api\n    import numpy.typing\n"
    )
    known = modules()
    now = {name for statement in statements(tree, later=False) for name in names(statement, known)}
    ever = {name for statement in statements(tree, later=True) for name in names(statement, known)}
    assert now == {"typing", "darkroom", "darkroom.files", "json", "scipy"}
    assert ever - now == {"darkroom.web", "darkroom.web.api", "numpy"}


def test_there_are_no_cycles() -> None:
    graph = knows(imports(later=True))
    assert len(graph) > 50
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_every_part_has_its_floor() -> None:
    parts = {layer(name) for name in modules()} - {""}
    assert parts <= set(LAYERS), "say in LAYERS where it stands"
    assert set(LAYERS) <= parts, "what is gone needs no floor"


def test_each_part_imports_only_what_stands_below() -> None:
    floor = {name: place for place, name in enumerate(LAYERS)}
    upwards = [
        f"{name} imports {target}"
        for name, targets in knows(imports(later=True)).items()
        for target in targets
        if layer(name) != layer(target) and floor[layer(target)] < floor[layer(name)]
    ]
    assert upwards == []


@pytest.mark.parametrize(
    ("part", "later"), [*((part, True) for part in NO_TORCH), *((part, False) for part in NO_TORCH_AT_FIRST)]
)
def test_these_import_no_torch(part: str, later: bool) -> None:
    graph = imports(later=later)
    for module in (name for name in modules() if layer(name) == part):
        why = reached(module, graph)
        assert not TORCH & why.keys(), f"{module} reaches torch: {why}"


@pytest.mark.parametrize(
    "part", ["web", "client", "engines", "bundle", "preprocess", "runs", "shipped", "config", "files", "summary"]
)
def test_a_server_needs_no_science(part: str) -> None:
    for module in (name for name in modules() if layer(name) == part):
        why = reached(module, imports(later=True))
        assert not SCIENCE & why.keys(), f"{module}: {why}"


@pytest.mark.parametrize("part", ["cli", "workflow", "config", "runs"])
def test_the_command_line_answers_before_numpy_is_loaded(part: str) -> None:
    why = reached(f"darkroom.{part}", imports(later=False))
    assert not (TORCH | SCIENCE | {"numpy", "PIL", "flask", "onnxruntime"}) & why.keys(), why


def test_only_these_parts_of_data_know_torch() -> None:
    graph = imports(later=True)
    knowing = {name for name, targets in graph.items() if layer(name) == "data" and "torch" in targets}
    assert knowing == {"darkroom.data.augmentation", "darkroom.data.batches"}


def test_a_program_that_serves_has_loaded_none_of_it() -> None:
    program = (
        "import sys, darkroom.web, darkroom.web.server, darkroom.engines.onnx_runtime, darkroom.engines.prediction, "
        "darkroom.bundle, darkroom.summary, darkroom.workflow; print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert "darkroom.web" in loaded
    assert not loaded & {"torch", "matplotlib", "sklearn", "scipy", "timm", "tensorflow", "onnx"}
