"""`manage.py webhook`: for those who manage webhooks without the admin."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from agentcom import actors, database
from agentcom.audit import acting
from agentcom.audit.entries import Auditable
from agentcom.errors import Refused, Unavailable
from agentcom.faults import refuse_schema
from agentcom.writer import writer
from webhooks.deliveries import replays
from webhooks.endpoints import (
    LANES,
    AddEndpoint,
    RemoveEndpoint,
    RotateSecret,
    SendTest,
    SwitchOff,
    SwitchOn,
    Target,
)
from webhooks.kinds import DEFAULT_TYPES, TYPES
from webhooks.models import Delivery, Endpoint, State

TIMEOUT_S = 30.0
TEST_S = 15.0  # for the outcome of a test; a worker has to be running
POLL_S = 0.1
GROUP = 200  # replays that share a commit


class Command(BaseCommand):
    help = "Adds, lists, tests and removes webhooks: URLs that hear what became of tasks."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        add = verbs.add_parser("add", help="add one; its secret is printed once, never again")
        add.add_argument("url")
        add.add_argument(
            "--type",
            action="append",
            metavar="TYPE",
            help=f"a type of events to hear of, may be repeated ({', '.join(DEFAULT_TYPES)});"
            f" there are {', '.join(TYPES.values())}",
        )
        add.add_argument(
            "--lane",
            action="append",
            default=[],
            choices=LANES,
            help="only tasks of this lane, may be repeated",
        )
        add.add_argument(
            "--capability",
            action="append",
            default=[],
            metavar="NAME",
            help="only tasks that need this capability, may be repeated: then one of them",
        )
        add.add_argument("--description", default="", help="what it is for")
        verbs.add_parser("list", help="list all, and how they stand")
        for verb, help_ in (
            ("test", "send a test event, and wait for what comes of it"),
            ("on", "switch one on; it goes on where it was"),
            ("off", "switch one off; nothing is sent any more"),
            ("rotate", "make a new secret; the old one signs too for 24 hours"),
            ("remove", "remove one, with all that waits for it"),
        ):
            verbs.add_parser(verb, help=help_).add_argument("endpoint_id", metavar="ID")
        replay = verbs.add_parser("replay", help="send again what happened in a range of time")
        replay.add_argument("endpoint_id", metavar="ID")
        replay.add_argument("--since", type=_moment, required=True, help="2026-01-31T08:00")
        replay.add_argument("--until", type=_moment, help="the end of the range (now)")
        replay.add_argument("--dead", action="store_true", help="only what was given up")

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_schema()
        verbs = {
            "add": self._add,
            "list": self._list,
            "test": self._test,
            "on": self._on,
            "off": self._off,
            "rotate": self._rotate,
            "remove": self._remove,
            "replay": self._replay,
        }
        try:
            verbs[options["verb"]](options)
        except Unavailable as error:
            raise CommandError(f"The database is not ready: {error.detail}.") from None
        except Refused as error:
            raise CommandError(SENTENCES.get(error.code, str(error))) from None
        finally:
            writer.stop()

    def _add(self, options: Mapping[str, Any]) -> None:
        try:
            target = Target(
                options["url"],
                types=options["type"] or DEFAULT_TYPES,
                lanes=options["lane"],
                capabilities=options["capability"],
                description=options["description"],
            )
        except ValueError as error:
            raise CommandError(str(error)) from None
        adding = AddEndpoint(actors.HUB, target)
        _do(adding)
        self.stdout.write(f"{adding.endpoint_id} {adding.secret}")
        self._hint("Its id and its secret. Keep the secret: it cannot be shown again.")

    def _list(self, options: Mapping[str, Any]) -> None:
        endpoints = list(Endpoint.objects.all())
        if not endpoints:
            self._hint("There are none yet.")
            return
        row = "{:<21}  {:<5}  {:>7}  {:>5}  {}"
        self.stdout.write(row.format("ID", "STATE", "WAITING", "DEAD", "URL"))
        for endpoint in endpoints:
            its = Delivery.objects.filter(endpoint_id=endpoint.endpoint_id)
            waiting = its.filter(ended_at=None).count()
            dead = its.filter(state=State.DEAD).count()
            state = "on" if endpoint.enabled else "off"
            self.stdout.write(row.format(endpoint.endpoint_id, state, waiting, dead, endpoint.url))
            if not endpoint.enabled:
                self.stdout.write(f"  off since {_said(endpoint.off_at)}: {endpoint.off_reason}")

    def _test(self, options: Mapping[str, Any]) -> None:
        message_id = _do(SendTest(options["endpoint_id"], actors.HUB))
        give_up_at = time.monotonic() + TEST_S
        while time.monotonic() < give_up_at:
            delivery = Delivery.objects.filter(message_id=message_id).first()
            if delivery is not None and delivery.attempts:
                if delivery.state == State.DELIVERED:
                    self.stdout.write(f"Delivered: it answered {delivery.status_code}.")
                    return
                raise CommandError(f"Not delivered: {delivery.error}. It is tried again.")
            connection.close()  # so that nothing is held while this waits
            time.sleep(POLL_S)
        raise CommandError(f"Not sent within {TEST_S:g} s: is a worker running?")

    def _on(self, options: Mapping[str, Any]) -> None:
        is_news = _do(SwitchOn(options["endpoint_id"], actors.HUB))
        self.stdout.write("Switched on." if is_news else "It was on.")

    def _off(self, options: Mapping[str, Any]) -> None:
        is_news = _do(SwitchOff(options["endpoint_id"], actors.HUB))
        self.stdout.write("Switched off." if is_news else "It was off.")

    def _rotate(self, options: Mapping[str, Any]) -> None:
        rotating = RotateSecret(options["endpoint_id"], actors.HUB)
        _do(rotating)
        self.stdout.write(rotating.secret)
        self._hint("The new secret. The old one signs too for 24 hours.")

    def _remove(self, options: Mapping[str, Any]) -> None:
        _do(RemoveEndpoint(options["endpoint_id"], actors.HUB))
        self.stdout.write("Removed.")

    def _replay(self, options: Mapping[str, Any]) -> None:
        endpoint_id = options["endpoint_id"]
        if not Endpoint.objects.filter(endpoint_id=endpoint_id).exists():
            raise Refused("webhook_not_found")
        until = options["until"] or database.now()
        found = replays(endpoint_id, options["since"], until, actors.HUB, only_dead=options["dead"])
        count = sum(_do_all(found))
        self.stdout.write(f"{count:,} deliveries are sent again.")

    def _hint(self, sentence: str) -> None:
        self.stderr.write(sentence, self.style.NOTICE)


SENTENCES = {
    "webhook_not_found": "There is no such webhook; `webhook list` shows all.",
    "webhook_is_off": "It is switched off; `webhook on` switches it on.",
    "too_many_webhooks": "There are too many webhooks already.",
}


def _do(change: Auditable) -> Any:
    return acting.call(change, TIMEOUT_S, acting.os_user())


def _do_all(changes: Iterable[Auditable]) -> Iterable[int]:
    """How many of each group changed anything."""
    left = list(changes)  # before the first is committed: it would not be found any more
    remaining = iter(left)
    while group := list(islice(remaining, GROUP)):
        outcomes = acting.call_all(group, timeout=TIMEOUT_S, note=acting.os_user())
        yield sum(outcome is True for outcome in outcomes)


def _moment(text: str) -> datetime:
    """In the hub's time zone, unless it says its own."""
    try:
        day = parse_date(text)
        found = datetime(day.year, day.month, day.day) if day else parse_datetime(text)  # noqa: DTZ001
    except ValueError:
        found = None
    if found is None:
        raise ArgumentTypeError(f"{text} is not a time such as 2026-01-31T08:00")
    return found if timezone.is_aware(found) else timezone.make_aware(found)


def _said(moment: datetime | None) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}" if moment else "?"
