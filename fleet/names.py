"""Which names agents may have.

A new name must be visible, distinguishable from the others and usable in a URL. Older names that
break these rules keep working: their agents can still connect and get tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from agentcom.fields import as_whole, takes, text
from agentcom.texts import is_visible
from fleet.models import AgentToken

MAX_ID = 128  # characters
MAX_SLOTS = 1_000  # tasks that one agent may do at once, each in a slot
SLOT = re.compile(r"#\d+$")


@takes(
    {
        **text(MAX_ID, min_length=1).shape,
        "format": "name",
        "description": "Printable, without spaces at the ends.",
    }
)
def check_agent_id(value: Any) -> str:
    """1 to 128 printable characters, no space at the ends. Raises ValueError with a sentence."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID:
        raise ValueError(f"must be a string of 1 to {MAX_ID} characters")
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be printable, without spaces at the ends")
    return value


def check_new_agent_id(value: Any) -> str:
    """Like `check_agent_id`, but also refuses names that look alike or cannot be part of a URL."""
    agent_id: str = check_agent_id(value)
    if not all(character == " " or is_visible(character) for character in agent_id):
        raise ValueError("must not have characters that nobody can see")
    if "  " in agent_id:
        raise ValueError("must not have two spaces in a row, which look like one")
    if {".", ".."} & set(agent_id.split("/")):
        raise ValueError("must not be . or .. nor have them between slashes: no address has them")
    if SLOT.search(agent_id):
        raise ValueError("must not end in # and a number: these are the slots of an agent")
    if not unicodedata.is_normalized("NFC", agent_id):
        raise ValueError(
            "must be in Unicode's normal form NFC, or another name could look the same; "
            "most editors and keyboards write it so"
        )
    return agent_id


@takes({"type": "integer", "minimum": 1, "maximum": MAX_SLOTS})
def check_slot(value: Any) -> int:
    """A whole number from 1 to `MAX_SLOTS`. Raises ValueError with a sentence."""
    number = as_whole(value)
    if type(number) is not int or not 1 <= number <= MAX_SLOTS:
        raise ValueError(f"must be a whole number from 1 to {MAX_SLOTS:,}")
    return number


def slot_id(name: str, slot: int | None) -> str:
    """The agent id of a slot of the agent `name`. The first slot is the agent itself."""
    return name if slot in (None, 1) else f"{name}#{slot}"


def check_new_names(agent_ids: Iterable[str]) -> None:
    """Check the names that have no token yet. Raises ValueError with a sentence."""
    known = set(AgentToken.objects.values_list("name", flat=True).distinct().order_by())
    by_normal_form = {unicodedata.normalize("NFC", agent_id): agent_id for agent_id in known}
    for agent_id in agent_ids:
        if agent_id in known:
            continue
        check_new_agent_id(agent_id)
        if agent_id in by_normal_form:
            raise ValueError(f"looks like {by_normal_form[agent_id]!a}, which is another agent's")
