from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from agentcom import actors
from agentcom.audit import acting
from agentcom.errors import Unavailable
from agentcom.faults import refuse_schema
from agentcom.fields import text
from agentcom.layout import TYPED_CLIENT
from agentcom.rights import Grant, TokenKind
from agentcom.writer import writer
from fleet.enrolment import issue_code
from fleet.models import AgentToken
from fleet.names import check_agent_id
from fleet.presence import hash_of
from fleet.tokens import RevokeToken, RotateToken, in_words, issue, new_token
from tasks.api import check_lane
from tasks.serializers import MAX_CAPABILITY

PREFIX = 12  # characters of a hash that `list` shows
TIMEOUT_S = 30.0
HASH_PREFIX = re.compile(r"[0-9a-f]{8,64}")


class Command(BaseCommand):
    help = "Creates, lists, rotates and revokes the tokens of agents and programs."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="create a token; it is printed once, never again")
        _add_grant(create)
        enrol = verbs.add_parser(
            "enrol", help="create a code with which a host gets its token by itself, once"
        )
        _add_grant(enrol)
        enrol.add_argument(
            "--valid",
            type=_duration,
            default=timedelta(minutes=15),
            metavar="TIME",
            help="how long the code works, such as 15m, which is the default",
        )
        list_ = verbs.add_parser("list", help="list tokens by their hashes")
        list_.add_argument("name", nargs="?", type=_name)
        rotate = verbs.add_parser(
            "rotate", help="create a token that replaces another; both work for a while"
        )
        rotate.add_argument("which", metavar="NAME|HASH", help="the one token of a name, or a hash")
        rotate.add_argument(
            "--overlap",
            type=_duration,
            default=timedelta(days=1),
            metavar="TIME",
            help="how long the old one stays valid, such as 1d, which is the default, or 0s",
        )
        revoke = verbs.add_parser("revoke", help="make tokens invalid from now on")
        revoke.add_argument(
            "which",
            nargs="?",
            metavar="NAME|HASH",
            help="all tokens of a name, or the one whose hash begins so (8 digits or more)",
        )
        revoke.add_argument("--token", help="the one token itself")

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_schema()
        try:
            match options["verb"]:
                case "create":
                    self._create(options["name"], _grant(options), options["expires"])
                case "enrol":
                    self._enrol(options["name"], _grant(options), options)
                case "list":
                    self._list(options["name"])
                case "rotate":
                    self._rotate(_one(options["which"]), options["overlap"])
                case "revoke":
                    self._revoke(_chosen(options["which"], options["token"]))
        except Unavailable as error:
            raise CommandError(f"The database is not ready: {error.detail}.") from None
        finally:
            writer.stop()

    def _create(self, name: str, grant: Grant, valid: timedelta | None) -> None:
        try:
            tokens = issue([name], grant, _after(valid))
        except ValueError as error:
            raise CommandError(f"name {error}") from None
        self.stdout.write(tokens[name])
        self._hint(f"The token of {name}, {in_words(grant)}. Keep it: it cannot be shown again.")

    def _enrol(self, name: str, grant: Grant, options: dict[str, Any]) -> None:
        valid: timedelta = options["valid"]
        try:
            code = issue_code(name, grant, valid.total_seconds(), _after(options["expires"]))
        except ValueError as error:
            raise CommandError(f"name {error}") from None
        self.stdout.write(code)
        self._hint(
            f"Works once, until {_moment(timezone.now() + valid)}. On the host of {name}: "
            f"{TYPED_CLIENT} login URL --code CODE"
        )

    def _list(self, name: str | None) -> None:
        tokens = AgentToken.objects.all()
        if name is not None:
            tokens = tokens.filter(name=name)
        lines = [
            (
                token.token_hash[:PREFIX],
                _moment(token.created_at),
                _moment(token.last_used_at) if token.last_used_at else "–",
                _state(token),
                in_words(token.grant),
                token.name,
            )
            for token in tokens
        ]
        if not lines:
            self._hint("There are none yet.")
            return
        titles = ("HASH", "CREATED", "LAST USED", "STATE", "ALLOWS", "NAME")
        widths = [max(len(line[column]) for line in (titles, *lines)) for column in range(5)]
        for line in (titles, *lines):
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
            self.stdout.write("  ".join([*cells, line[-1]]))

    def _rotate(self, token: AgentToken, overlap: timedelta) -> None:
        new = new_token()
        seconds = overlap.total_seconds()
        command = RotateToken(token.token_hash, hash_of(new), seconds, actors.HUB, token.name)
        acting.call(command, TIMEOUT_S, acting.os_user())
        self.stdout.write(new)
        until = f"is valid until {_moment(timezone.now() + overlap)}" if seconds else "is revoked"
        self._hint(
            f"The new token of {token.name}. Keep it: it cannot be shown again. "
            f"The old one, {token.token_hash[:PREFIX]}, {until}."
        )

    def _revoke(self, tokens: list[AgentToken]) -> None:
        for token in tokens:
            command = RevokeToken(token.token_hash, actors.HUB, token.name)
            is_news = acting.call(command, TIMEOUT_S, acting.os_user())
            said = "Revoked" if is_news else "Was revoked before:"
            self.stdout.write(f"{said} {token.token_hash[:PREFIX]} of {token.name}")

    def _hint(self, sentence: str) -> None:
        self.stderr.write(sentence, self.style.NOTICE)


def _chosen(which: str | None, token: str | None) -> list[AgentToken]:
    """Raises CommandError when it is not clear which tokens are meant."""
    if (which is None) == (token is None):
        raise CommandError("Say whose or which token: NAME, HASH or --token TOKEN.")
    if token is not None:
        found = list(AgentToken.objects.filter(token_hash=hash_of(token)))
    else:
        # an agent's name may look like the beginning of a hash; the name takes precedence
        found = list(AgentToken.objects.filter(name=which)) or _with_hash(str(which))
    if not found:
        raise CommandError("There is no such token.")
    valid = [token for token in found if token.revoked_at is None]
    return valid or found


def _one(which: str) -> AgentToken:
    """The one valid token that is meant. Raises CommandError when there is not exactly one."""
    valid = [token for token in _chosen(which, None) if token.is_valid(timezone.now())]
    if not valid:
        raise CommandError("It is revoked or expired: create a new one.")
    if len(valid) > 1:
        raise CommandError(f"{which} has {len(valid)} valid tokens; give the hash of one of them.")
    return valid[0]


def _with_hash(prefix: str) -> list[AgentToken]:
    if not HASH_PREFIX.fullmatch(prefix):
        return []
    found = list(AgentToken.objects.filter(token_hash__startswith=prefix)[:2])
    if len(found) > 1:
        raise CommandError(f"More than one hash begins with {prefix}; give more of it.")
    return found


def _add_grant(parser: CommandParser) -> None:
    parser.add_argument("name", type=_name, help="of the agent or the program")
    parser.add_argument(
        "--kind",
        choices=TokenKind.values,
        default=TokenKind.AGENT.value,
        help="what it is for; %(default)s by default. docs/operations.md has what each may do",
    )
    parser.add_argument(
        "--capability",
        action="append",
        type=_capability,
        default=[],
        help="it submits only tasks that need this; may be repeated",
    )
    parser.add_argument(
        "--lane",
        action="append",
        type=_lane,
        default=[],
        help="it submits only to this lane, such as low; may be repeated",
    )
    parser.add_argument(
        "--all-tasks",
        action="store_true",
        help="it reads and steers all tasks, not only its own",
    )
    parser.add_argument(
        "--expires",
        type=_duration,
        metavar="TIME",
        help="how long the token is valid, such as 90d; for ever by default",
    )


def _grant(options: dict[str, Any]) -> Grant:
    """Raises CommandError for a scope that the kind does not have."""
    kind = TokenKind(options["kind"])
    scopes = [name for name in ("capability", "lane", "all_tasks") if options[name]]
    if scopes and kind not in (TokenKind.AGENT, TokenKind.SUBMITTER):
        given = ", ".join(f"--{name.replace('_', '-')}" for name in scopes)
        raise CommandError(f"{given}: only for tokens of the kinds agent and submitter.")
    lanes = tuple(sorted(set(options["lane"])))
    return Grant(kind, tuple(sorted(set(options["capability"]))), lanes, options["all_tasks"])


def _after(valid: timedelta | None) -> datetime | None:
    return None if valid is None else timezone.now() + valid


UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
DURATION = re.compile(r"(\d{1,5})([smhd])")


def _duration(value: str) -> timedelta:
    found = DURATION.fullmatch(value)
    if found is None:
        raise ArgumentTypeError("must be a number and s, m, h or d, such as 90d")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def _capability(value: str) -> str:
    try:
        return str(text(MAX_CAPABILITY, min_length=1)(value))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _lane(value: str) -> int:
    try:
        return int(check_lane(value))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _name(value: str) -> str:
    try:
        return str(check_agent_id(value))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _moment(moment: datetime) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"


def _state(token: AgentToken) -> str:
    if token.revoked_at:
        return f"revoked {_moment(token.revoked_at)}"
    if token.expires_at is None:
        return "valid"
    word = "until" if token.is_valid(timezone.now()) else "expired"
    return f"{word} {_moment(token.expires_at)}"
