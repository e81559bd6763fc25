"""Enough of JSON Schema 2020-12 to hold answers against the OpenAPI document; what it does not know, it refuses."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
SILENT = {"type", "description", "contentEncoding", "format"}


def resolve(schema: Schema, document: Schema) -> Schema:
    """The schema itself, or the one that it refers to."""
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def faults(value: Any, schema: Schema, document: Schema, where: str = "$") -> list[str]:
    """What is wrong with `value`, nothing if it conforms."""
    schema = resolve(schema, document)
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(_is(value, kind) for kind in kinds):
            return [f"{where} is {value!r}, not {kinds}"]
    return [
        fault
        for keyword, wanted in schema.items()
        if keyword not in SILENT
        for fault in _check(keyword, wanted, value, schema, document, where)
    ]


def _check(keyword: str, wanted: Any, value: Any, schema: Schema, document: Schema, where: str) -> list[str]:
    match keyword:
        case "const" | "enum":
            return [] if value in ([wanted] if keyword == "const" else wanted) else [f"{where} is {value!r}"]
        case "minimum" | "maximum" | "exclusiveMinimum":
            inside = {"minimum": value >= wanted, "maximum": value <= wanted, "exclusiveMinimum": value > wanted}
            return [] if inside[keyword] else [f"{where} is {value}: {keyword} {wanted}"]
        case "minItems":
            return [] if len(value) >= wanted else [f"{where} has {len(value)} items: {wanted} at least"]
        case "maxItems":
            return [] if len(value) <= wanted else [f"{where} has {len(value)} items: {wanted} at most"]
        case "maxProperties":
            return [] if len(value) <= wanted else [f"{where} has {len(value)} properties: {wanted} at most"]
        case "items":
            return [
                fault
                for place, item in enumerate(value)
                for fault in faults(item, wanted, document, f"{where}[{place}]")
            ]
        case "required":
            return [f"{where} lacks {name}" for name in wanted if name not in value]
        case "properties":
            return [
                fault
                for name, part in wanted.items()
                if name in value
                for fault in faults(value[name], part, document, f"{where}.{name}")
            ]
        case "additionalProperties":
            extra = {name: item for name, item in value.items() if name not in schema.get("properties", {})}
            if isinstance(wanted, bool):
                return [] if wanted or not extra else [f"{where} has {sorted(extra)}"]
            return [
                fault for name, item in extra.items() for fault in faults(item, wanted, document, f"{where}.{name}")
            ]
        case "anyOf" | "oneOf":
            tried = [faults(value, option, document, where) for option in wanted]
            good = tried.count([])
            return [] if good == 1 or (good and keyword == "anyOf") else [f"{where} fits {good} of {keyword}: {tried}"]
    raise AssertionError(f"no test knows the keyword {keyword}: teach tests/json_schema.py")


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
