"""The commands that add, change, switch and remove endpoints, and the checks of their input."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings

from agentcom.audit.entries import Act, What
from agentcom.errors import Refused
from agentcom.fields import text, visible
from agentcom.models import Event
from agentcom.texts import cut
from agentcom.work import Wanted, Work
from tasks.models import Priority
from webhooks.addresses import check_url
from webhooks.bodies import sample_body
from webhooks.kinds import DEFAULT_TYPES, TEST, TYPES
from webhooks.models import Delivery, Endpoint, Message
from webhooks.signing import new_message_id, new_secret

MAX_ENDPOINTS = 100
MAX_CAPABILITIES = 64
OLD_SECRET = timedelta(hours=24)  # so long the secret before the last one signs too
LANES = tuple(priority.name.lower() for priority in Priority)
REASON_MAX = 500  # characters
NOT_FOUND = "webhook_not_found"

capability = visible(text(64, min_length=1))


def new_endpoint_id() -> str:
    return f"hook-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Target:
    """What can be said of an endpoint. Raises ValueError when a part of it is wrong."""

    url: str
    types: Sequence[str] = DEFAULT_TYPES
    lanes: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    description: str = ""

    def __post_init__(self) -> None:
        allow_private = settings.AGENTCOM_WEBHOOK_ALLOW_PRIVATE
        _named("url", check_url, self.url, allow_private=allow_private)
        _named("description", text(500), self.description)
        for name in self.types:
            _one_of("types", name, [*TYPES.values()])
        if not self.types:
            raise ValueError("types: at least one is needed")
        for name in self.lanes:
            _one_of("lanes", name, LANES)
        for name in self.capabilities:
            _named("capabilities", capability, name)
        if len(self.capabilities) > MAX_CAPABILITIES:
            raise ValueError(f"capabilities: at most {MAX_CAPABILITIES}")

    def columns(self) -> dict[str, Any]:
        """In one order, so that equal filters are equal rows."""
        return {
            "url": self.url,
            "description": self.description,
            "types": [name for name in TYPES.values() if name in self.types],
            "lanes": [name for name in LANES if name in self.lanes],
            "capabilities": sorted(set(self.capabilities)),
        }


@dataclass(frozen=True, slots=True)
class AddEndpoint:
    """It hears of what happens from now on. Raises `Refused` "too_many_webhooks"."""

    actor: str
    target: Target
    secret: str = field(default_factory=new_secret, repr=False)
    endpoint_id: str = field(default_factory=new_endpoint_id)

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> None:
        work.flush()
        if Endpoint.objects.count() >= MAX_ENDPOINTS:
            raise Refused("too_many_webhooks", f"there are {MAX_ENDPOINTS} webhooks already")
        endpoint = Endpoint(
            endpoint_id=self.endpoint_id,
            **self.target.columns(),
            secret=self.secret,
            seq=work.next_seq,  # of the entry that says so
            created_at=work.now,
            created_by=self.actor,
        )
        work.add(endpoint)
        work.emit("webhook_created", webhook=_told(endpoint))

    def act(self, result: Any = None) -> Act:
        return Act(What.WEBHOOK_ADD, self.endpoint_id, detail=told_url(self.target.url))


@dataclass(frozen=True, slots=True)
class OnEndpoint:
    """The base of what is done to one endpoint. Raises `Refused` "webhook_not_found"."""

    what: ClassVar[What]

    endpoint_id: str
    actor: str

    def rows(self) -> Wanted:
        return [(Endpoint, [self.endpoint_id])]

    def act(self, result: Any = None) -> Act:
        return Act(self.what, self.endpoint_id)

    def apply(self, work: Work) -> Any:
        endpoint = work.get(Endpoint, self.endpoint_id)
        if endpoint is None:
            raise Refused(NOT_FOUND)
        return self.change(work, endpoint)

    def change(self, work: Work, endpoint: Endpoint) -> Any:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ChangeEndpoint(OnEndpoint):
    """Gives whether anything is different. What already waits to be delivered goes to the new URL;
    the new filter holds for events that no delivery was made of yet."""

    what = What.WEBHOOK_CHANGE

    target: Target

    def change(self, work: Work, endpoint: Endpoint) -> bool:
        columns = self.target.columns()
        changed = [name for name, value in columns.items() if getattr(endpoint, name) != value]
        if not changed:
            return False
        for name in changed:
            setattr(endpoint, name, columns[name])
        if "url" in changed:
            endpoint.succeed()  # the failures were those of the one before
        endpoint.revision += 1
        work.emit("webhook_changed", webhook=_told(endpoint), changed=changed)
        return True


@dataclass(frozen=True, slots=True)
class RotateSecret(OnEndpoint):
    """The secret before it signs too for `OLD_SECRET`, so that the receiver can change over."""

    what = What.WEBHOOK_SECRET

    secret: str = field(default_factory=new_secret, repr=False)

    def change(self, work: Work, endpoint: Endpoint) -> None:
        endpoint.old_secret, endpoint.secret = endpoint.secret, self.secret
        endpoint.old_secret_until = work.now + OLD_SECRET
        work.emit("webhook_changed", webhook=_told(endpoint), changed=["secret"])


@dataclass(frozen=True, slots=True)
class SwitchOff(OnEndpoint):
    """Nothing is sent any more. Gives whether it was on."""

    what = What.WEBHOOK_DISABLE

    reason: str = "switched off by hand"

    def change(self, work: Work, endpoint: Endpoint) -> bool:
        if not endpoint.enabled:
            return False
        switch_off(work, endpoint, self.reason, by_failure=False)
        return True


def switch_off(work: Work, endpoint: Endpoint, reason: str, *, by_failure: bool) -> None:
    endpoint.enabled = False
    endpoint.off_reason = cut(reason, REASON_MAX)
    endpoint.off_at, endpoint.off_by_failure = work.now, by_failure
    endpoint.revision += 1
    work.emit("webhook_disabled", webhook=_told(endpoint), reason=endpoint.off_reason)


@dataclass(frozen=True, slots=True)
class SwitchOn(OnEndpoint):
    """It goes on where it was when it was switched off. Gives whether it was off.

    Events that the journal has dropped in the meantime are lost for it; the entry says how many
    there were at most, as `missed`.
    """

    what = What.WEBHOOK_ENABLE

    def change(self, work: Work, endpoint: Endpoint) -> bool:
        if endpoint.enabled:
            return False
        first = Event.objects.order_by("seq").values_list("seq", flat=True).first()
        missed = max(0, (first or work.next_seq) - 1 - endpoint.seq)
        endpoint.seq += missed
        endpoint.enabled, endpoint.off_reason, endpoint.off_at = True, "", None
        endpoint.off_by_failure = False
        endpoint.succeed()
        endpoint.revision += 1
        work.emit("webhook_enabled", webhook=_told(endpoint), missed=missed)
        return True


@dataclass(frozen=True, slots=True)
class RemoveEndpoint(OnEndpoint):
    """The worker deletes its deliveries afterwards, in small steps."""

    what = What.WEBHOOK_REMOVE

    def change(self, work: Work, endpoint: Endpoint) -> None:
        work.remove(endpoint)
        work.emit("webhook_removed", webhook=_told(endpoint))


@dataclass(frozen=True, slots=True)
class SendTest(OnEndpoint):
    """Gives the id of the message. Raises `Refused` "webhook_is_off" too."""

    what = What.WEBHOOK_TEST

    message_id: str = field(default_factory=new_message_id)

    def change(self, work: Work, endpoint: Endpoint) -> str:
        if not endpoint.enabled:
            raise Refused("webhook_is_off", "switch it on first")
        work.add(
            Delivery(
                message_id=self.message_id,
                endpoint_id=self.endpoint_id,
                type=TEST,
                happened_at=work.now,
                due_at=work.now,
                created_at=work.now,
            )
        )
        body = sample_body(self.endpoint_id, work.now)
        work.add(Message(message_id=self.message_id, body=body))
        return self.message_id


def told_url(url: str) -> str:
    """Without its query, in which a key may be."""
    return url.partition("?")[0]


def _told(endpoint: Endpoint) -> dict[str, Any]:
    """The endpoint in the journal. Its secret is not there, nor what may be one in its URL."""
    return {
        "id": endpoint.endpoint_id,
        "url": told_url(endpoint.url),
        "description": endpoint.description,
        "types": endpoint.types,
        "lanes": endpoint.lanes,
        "capabilities": endpoint.capabilities,
    }


def _named(name: str, check: Callable[..., Any], value: Any, **options: Any) -> None:
    try:
        check(value, **options)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name}: {value} is not one of {', '.join(known)}")
