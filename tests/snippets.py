"""Python that people read, in docs and notebooks: whether it is Python, and what it names exists. Nothing is run."""

import ast
import importlib
import inspect
from collections.abc import Iterator

import darkroom


def faults(code: str) -> Iterator[str]:
    """What a piece of Python says of darkroom that is not so; raises SyntaxError where it is no Python."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "darkroom":
            module = importlib.import_module(node.module or "")
            yield from (f"{node.module} has no {each.name}" for each in node.names if not hasattr(module, each.name))
    for name in attributes(tree, "darkroom") - set(darkroom.__all__):
        yield f"darkroom.{name} is not public"
    for name in attributes(tree, "run") - set(dir(darkroom.Run("nowhere"))):
        yield f"a run has no {name}"
    yield from _odd_arguments(tree)


def attributes(tree: ast.AST, of: str) -> set[str]:
    """The attributes that are taken of a name."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == of
    }


def _odd_arguments(tree: ast.AST) -> Iterator[str]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = call.func
        if isinstance(called, ast.Attribute) and ast.unparse(called.value) == "darkroom":
            known = inspect.signature(getattr(darkroom, called.attr)).parameters
            for given in call.keywords:
                if given.arg not in known:
                    yield f"darkroom.{called.attr} takes no {given.arg}"
