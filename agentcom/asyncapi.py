"""The sockets as an AsyncAPI 3.0 document, made of the tables of their messages and frames.

`AGENTCOM_SOCKETS` in settings.py lists the sockets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from agentcom import __version__
from agentcom.shapes import Components, Shape, example

ABOUT = """\
The sockets of a hub. `receive` is what clients send to it, `send` is what it sends to them.

- Each message is a JSON object in a text frame of at most 256 KiB.
- A time is a whole number of milliseconds since 1970-01-01 UTC. Names that end in `_s` are \
seconds, names that end in `_ms` are durations in milliseconds.
- Frames may have more keys than are listed here, and later versions may add more.
- In messages, `null` means the same as leaving the field out.
"""


@dataclass(frozen=True, slots=True)
class Socket:
    name: str
    address: str
    about: str
    messages: Mapping[str, Shape]  # what clients send, by type
    frames: Mapping[str, Shape]  # what the hub sends, by type
    answers: Mapping[str, Sequence[str]]  # the types of the frames that answer each message
    closes: Mapping[int, str]  # when the hub closes it, by code


def sockets() -> list[Socket]:
    return [import_string(path) for path in settings.AGENTCOM_SOCKETS]


def document() -> dict[str, Any]:
    """Raises ValueError where two shapes have one name."""
    components = Components()
    found = sockets()
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "AgentCom's sockets", "version": __version__, "description": ABOUT},
        "defaultContentType": "application/json",
        "channels": {socket.name: _channel(socket, components) for socket in found},
        "operations": {
            name: operation for socket in found for name, operation in _operations(socket).items()
        },
        "components": {"schemas": dict(sorted(components.schemas.items()))},
    }


def _channel(socket: Socket, components: Components) -> dict[str, Any]:
    closes = "\n".join(f"- {code}: {when}" for code, when in socket.closes.items())
    return {
        "address": settings.AGENTCOM_PATH_PREFIX + socket.address,
        "description": f"{socket.about}\n\nThe hub closes it with\n\n{closes}\n",
        "messages": {
            type: _message(type, shape, components)
            for type, shape in {**socket.messages, **socket.frames}.items()
        },
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _message(type: str, shape: Shape, components: Components) -> dict[str, Any]:
    return {
        "name": type,
        "payload": components.referring(shape),
        "examples": [{"payload": example(shape)}],
    }


def _operations(socket: Socket) -> dict[str, Any]:
    channel = {"$ref": f"#/channels/{socket.name}"}

    def referred(types: Sequence[str]) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/{socket.name}/messages/{type}"} for type in types]

    found: dict[str, Any] = {}
    for type in socket.messages:
        answers = socket.answers[type]
        reply = {"reply": {"channel": channel, "messages": referred(answers)}} if answers else {}
        found[f"{socket.name}.receive.{type}"] = {
            "action": "receive",
            "channel": channel,
            "messages": referred([type]),
            **reply,
        }
    for type in socket.frames:
        found[f"{socket.name}.send.{type}"] = {
            "action": "send",
            "channel": channel,
            "messages": referred([type]),
        }
    return found
