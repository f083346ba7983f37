"""JSON Schemas (2020-12) of what goes in and out, put together from a few parts.

A shape is a schema as a dict. What clients read is open: more keys may come with later versions.
What clients send is closed where unknown keys are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Shape = Mapping[str, Any]

NULL: Shape = {"type": "null"}
TEXT: Shape = {"type": "string"}
FLAG: Shape = {"type": "boolean"}
WHOLE: Shape = {"type": "integer"}
COUNT: Shape = {"type": "integer", "minimum": 0}
NUMBER: Shape = {"type": "number"}
OBJECT: Shape = {"type": "object"}
TEXTS: Shape = {"type": "array", "items": TEXT}
# A NUL is refused in every text and in every key.
STORABLE = "^[^\\u0000]*$"
MS: Shape = {
    "type": "integer",
    "description": "Milliseconds since 1970-01-01 UTC.",
    "examples": [1795346417871],
}
ACTOR: Shape = {
    "type": "string",
    "description": "Who did it: agent:ID, token:NAME, user:NAME, anyone, worker or hub.",
    "examples": ["token:my-agent"],
}


class Named(dict[str, Any]):
    """A shape that documents list under a name of its own, and refer to."""

    def __init__(self, name: str, shape: Shape) -> None:
        super().__init__(shape)
        self.name = name


def shown(shape: Shape, *examples: Any, **more: Any) -> Shape:
    """The shape with examples, or with other keys such as `description`."""
    return {**shape, **({"examples": list(examples)} if examples else {}), **more}


def nullable(shape: Shape) -> Shape:
    if isinstance(shape, Named) or not isinstance(shape.get("type"), str):
        return {"anyOf": [shape, NULL]}
    found = {**shape, "type": [shape["type"], "null"]}
    if "enum" in found:
        found["enum"] = [*shape["enum"], None]
    return found


def one_of(values: Iterable[Any]) -> Shape:
    return {"enum": list(values)}


def always(value: Any) -> Shape:
    return {"const": value}


def array(items: Shape, **limits: int) -> Shape:
    return {"type": "array", "items": items, **limits}


def record(fields: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None) -> Shape:
    """An object with all of `fields`, and perhaps some of the optional ones."""
    return {
        "type": "object",
        "properties": {**fields, **(optional or {})},
        "required": list(fields),
    }


def message(
    type: str, fields: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None
) -> Shape:
    """A record with the type that says what it is."""
    return record({"type": always(type), **fields}, optional)


def with_type(type: str, shape: Shape) -> Shape:
    """The same, and the type that says what it is."""
    if "anyOf" in shape:
        return {**shape, "anyOf": [with_type(type, each) for each in shape["anyOf"]]}
    return {
        **shape,
        "properties": {"type": always(type), **shape["properties"]},
        "required": ["type", *shape.get("required", ())],
    }


def example(shape: Shape) -> Any:
    """A value of this shape: its own example, or one that is put together from its parts."""
    match shape:
        case {"examples": [first, *_]}:
            return first
        case {"const": value} | {"default": value}:
            return value
        case {"enum": [first, *_]}:
            return first
        case {"anyOf": [first, *_]} | {"oneOf": [first, *_]}:
            return example(first)
        case {"properties": fields}:
            return {name: example(field) for name, field in fields.items()}
        case {"type": "array", "items": items}:
            return [example(items)]
    kind = shape.get("type")
    if isinstance(kind, list):
        return None
    made: dict[Any, Any] = {
        "string": "…",
        "integer": max(0, shape.get("minimum", 0)),
        "number": max(0, shape.get("minimum", 0)),
        "boolean": True,
        "object": {},
    }
    return made.get(kind)


class Components:
    """Collects the named shapes of a document."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}

    def referring(self, shape: Any) -> Any:
        """The same, with a reference in place of each named shape. Raises ValueError where two
        different shapes have one name."""
        if isinstance(shape, Named):
            self._add(shape)
            return {"$ref": f"#/components/schemas/{shape.name}"}
        if isinstance(shape, Mapping):
            return {key: self.referring(value) for key, value in shape.items()}
        if isinstance(shape, list | tuple):
            return [self.referring(value) for value in shape]
        return shape

    def _add(self, shape: Named) -> None:
        inside = {key: self.referring(value) for key, value in shape.items()}
        if self.schemas.setdefault(shape.name, inside) != inside:
            raise ValueError(f"two shapes are called {shape.name}")
