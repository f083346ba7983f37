from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from agentcom import actors
from agentcom.errors import Unavailable
from agentcom.faults import refuse_schema
from agentcom.writer import writer
from fleet.models import AgentToken
from fleet.names import check_agent_id
from fleet.presence import hash_of
from fleet.tokens import RevokeToken, issue

PREFIX = 12  # characters of a hash that `list` shows
TIMEOUT_S = 30.0
HASH_PREFIX = re.compile(r"[0-9a-f]{8,64}")


class Command(BaseCommand):
    help = "Creates, lists and revokes the tokens with which agents identify themselves."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="create a token; it is printed once, never again")
        create.add_argument("agent_id", type=_agent_id)
        list_ = verbs.add_parser("list", help="list tokens by their hashes")
        list_.add_argument("agent_id", nargs="?", type=_agent_id)
        revoke = verbs.add_parser("revoke", help="make tokens invalid from now on")
        revoke.add_argument(
            "which",
            nargs="?",
            metavar="AGENT_ID|HASH",
            help="all tokens of an agent, or the one whose hash begins so (8 digits or more)",
        )
        revoke.add_argument("--token", help="the one token itself")

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_schema()
        try:
            match options["verb"]:
                case "create":
                    self._create(options["agent_id"])
                case "list":
                    self._list(options["agent_id"])
                case "revoke":
                    self._revoke(_chosen(options["which"], options["token"]))
        except Unavailable as error:
            raise CommandError(f"The database is not ready: {error.detail}.") from None
        finally:
            writer.stop()

    def _create(self, agent_id: str) -> None:
        try:
            tokens = issue([agent_id])
        except ValueError as error:
            raise CommandError(f"agent_id {error}") from None
        self.stdout.write(tokens[agent_id])
        self._hint(f"The token of {agent_id}. Keep it: it cannot be shown again.")

    def _list(self, agent_id: str | None) -> None:
        tokens = AgentToken.objects.all()
        if agent_id is not None:
            tokens = tokens.filter(agent_id=agent_id)
        lines = [
            (token.token_hash[:PREFIX], _moment(token.created_at), _state(token), token.agent_id)
            for token in tokens
        ]
        if not lines:
            self._hint("There are none yet.")
            return
        for line in (("HASH", "CREATED", "STATE", "AGENT"), *lines):
            self.stdout.write("{:<12}  {:<20}  {:<28}  {}".format(*line))

    def _revoke(self, tokens: list[AgentToken]) -> None:
        for token in tokens:
            is_news = writer.call(RevokeToken(token.token_hash, actors.HUB), TIMEOUT_S)
            said = "Revoked" if is_news else "Was revoked before:"
            self.stdout.write(f"{said} {token.token_hash[:PREFIX]} of {token.agent_id}")

    def _hint(self, sentence: str) -> None:
        self.stderr.write(sentence, self.style.NOTICE)


def _chosen(which: str | None, token: str | None) -> list[AgentToken]:
    """Raises CommandError when it is not clear which tokens are meant."""
    if (which is None) == (token is None):
        raise CommandError("Say whose or which token: AGENT_ID, HASH or --token TOKEN.")
    if token is not None:
        found = list(AgentToken.objects.filter(token_hash=hash_of(token)))
    else:
        # an agent's name may look like the beginning of a hash; the name takes precedence
        found = list(AgentToken.objects.filter(agent_id=which)) or _with_hash(str(which))
    if not found:
        raise CommandError("There is no such token.")
    valid = [token for token in found if token.revoked_at is None]
    return valid or found


def _with_hash(prefix: str) -> list[AgentToken]:
    if not HASH_PREFIX.fullmatch(prefix):
        return []
    found = list(AgentToken.objects.filter(token_hash__startswith=prefix)[:2])
    if len(found) > 1:
        raise CommandError(f"More than one hash begins with {prefix}; give more of it.")
    return found


def _agent_id(value: str) -> str:
    try:
        return str(check_agent_id(value))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _moment(moment: datetime) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"


def _state(token: AgentToken) -> str:
    return f"revoked {_moment(token.revoked_at)}" if token.revoked_at else "valid"
