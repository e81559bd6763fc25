"""What an end point is: one row says where it is found, who may ask, what goes in and what comes out.

Routes and the OpenAPI document are both made of these rows, so that the one cannot say what the other does not do.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint

from darkroom.web.schemas import Schema

JSON = "application/json"


@dataclass(frozen=True)
class Parameter:
    """Something of the address that an end point reads."""

    name: str
    description: str
    schema: Schema
    place: str = "query"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One operation; its summary is the first line of the view's docstring."""

    method: str
    path: str
    """As Flask writes it, with variables in angle brackets."""
    view: Callable[..., Any]
    tag: str
    answers: Mapping[str, Schema]
    """Media types of a good answer."""
    bodies: Mapping[str, Schema] = field(default_factory=dict)
    """Media types that it takes; none where it takes no body."""
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    is_open: bool = False
    """Whether it answers without an API key where the server asks for keys."""

    @property
    def name(self) -> str:
        """The name of the operation, and of the view within its blueprint."""
        return self.view.__name__


def add_to(blueprint: Blueprint, endpoints: Iterable[Endpoint]) -> None:
    """Make routes of `endpoints`; several may lead to one view."""
    for endpoint in endpoints:
        blueprint.add_url_rule(endpoint.path, endpoint.name, endpoint.view, methods=[endpoint.method])


def open_names(blueprint: Blueprint, endpoints: Iterable[Endpoint]) -> frozenset[str]:
    """What Flask calls the end points that need no key."""
    return frozenset(f"{blueprint.name}.{endpoint.name}" for endpoint in endpoints if endpoint.is_open)
