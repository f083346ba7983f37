"""Enrolment: a code that works once, with which a host gets a token that nobody has to copy.

The host makes up the token itself and sends it with the code. So it can ask again when the answer
was lost: the same code with the same token is answered as before, with another one it is refused.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rest_framework.request import Request

from agentcom import actors
from agentcom.addresses import client_address
from agentcom.api import ApiView, json_answer, read_body
from agentcom.audit import acting
from agentcom.audit.entries import Act, Entry, What
from agentcom.audit.gathered import gathered
from agentcom.calls import INVALID_JSON, UNAVAILABLE, call, problem
from agentcom.database import checks
from agentcom.errors import Refused, Unavailable
from agentcom.fields import Check, fields, takes, text
from agentcom.models import Outcome
from agentcom.rights import ANYONE, Grant, TokenKind
from agentcom.shapes import Named, one_of, record, shown
from agentcom.work import Wanted, Work
from fleet.models import AgentToken, Enrolment
from fleet.names import check_new_names
from fleet.presence import hash_of
from fleet.tokens import add_token, in_words
from tasks.shapes import AGENT_ID

CODE_PREFIX = "enrol_"
TOKEN = re.compile(r"[A-Za-z0-9_-]{40,128}")
MIN_DIFFERENT = 16  # characters of a token; 43 random ones have more than 20


@dataclass(frozen=True, slots=True)
class CreateEnrolment:
    name: str
    grant: Grant
    code_hash: str
    valid_s: float
    token_expires_at: datetime | None = None
    actor = actors.HUB

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> None:
        enrolment = Enrolment(
            code_hash=self.code_hash,
            name=self.name,
            created_at=work.now,
            expires_at=work.now + timedelta(seconds=self.valid_s),
            token_expires_at=self.token_expires_at,
        )
        enrolment.set_grant(self.grant)
        work.add(enrolment)
        work.emit("enrolment_created", agent_id=self.name)

    def act(self, result: Any = None) -> Act:
        return Act(What.ENROLMENT_CREATE, self.name, detail=f"kind {in_words(self.grant)}")


@dataclass(frozen=True, slots=True)
class Enrol:
    """Make the token that a code is worth. Gives False if it was made before, for the same host.
    Raises `Refused` "code_invalid" or "code_used"."""

    code_hash: str
    token_hash: str
    name: str  # of the enrolment
    address: str

    @property
    def actor(self) -> str:
        return actors.token(self.name)

    def rows(self) -> Wanted:
        return [(Enrolment, [self.code_hash]), (AgentToken, [self.token_hash])]

    def apply(self, work: Work) -> bool:
        enrolment = work.get(Enrolment, self.code_hash)
        token = work.get(AgentToken, self.token_hash)
        if enrolment is None:
            raise Refused("code_invalid")
        if enrolment.used_at is not None:
            is_again = token is not None and token.is_valid(work.now)
            if enrolment.token_hash == self.token_hash and is_again:
                return False
            raise Refused("code_used")
        if enrolment.expires_at <= work.now or token is not None:
            raise Refused("code_invalid")
        enrolment.used_at, enrolment.used_from = work.now, self.address
        enrolment.token_hash = self.token_hash
        expires_at = enrolment.token_expires_at
        add_token(work, self.name, self.token_hash, enrolment.grant, expires_at)
        return True

    def act(self, result: Any = None) -> Act:
        again = "again, by the same host" if result is False else ""
        return Act(What.ENROLMENT_USE, self.name, detail=again)


def issue_code(
    name: str, grant: Grant, valid_s: float, token_expires_at: datetime | None = None
) -> str:
    """A new code. Raises ValueError for a new name that is not allowed, see `fleet.names`."""
    check_new_names([name])
    code = CODE_PREFIX + secrets.token_urlsafe(32)
    command = CreateEnrolment(name, grant, hash_of(code), valid_s, token_expires_at)
    acting.call(command, note=acting.os_user())
    return code


def _find(code_hash: str) -> Enrolment | None:
    return Enrolment.objects.filter(code_hash=code_hash).first()


# --- The call


@takes(
    {
        "type": "string",
        "pattern": f"^{TOKEN.pattern}$",
        "format": "random",
        "description": "Made up at random by the caller, such as 32 bytes in base64url.",
        "examples": ["act_8Qm3vZr1oYx5Kc7TgWbN2hJfLp9SdAe4UiM6kRtXqB0"],
    }
)
def check_token(value: Any) -> str:
    if not isinstance(value, str) or not TOKEN.fullmatch(value):
        raise ValueError("must have 40 to 128 letters, digits, - and _")
    if len(set(value)) < MIN_DIFFERENT:
        raise ValueError("must be random")
    return value


BODY: dict[str, Check] = {"code": text(128, min_length=1), "token": check_token}
CODE_INVALID = problem(404, "CodeInvalid", "No such code, or its time is over.", "code_invalid")
CODE_USED = problem(409, "CodeUsed", "It was used before, for another token.", "code_used")
ENROLLED = Named("Enrolled", record({"name": AGENT_ID, "kind": one_of(TokenKind.values)}))


class EnrolView(ApiView):
    permission_classes = []
    authentication_classes = []

    @call(
        "enrol",
        ANYONE,
        {201: ("From now on the token is valid.", ENROLLED)},
        problems=[CODE_INVALID, CODE_USED, INVALID_JSON, UNAVAILABLE],
        body=shown(
            fields(BODY, required=BODY),
            {"code": "enrol_…", "token": "act_8Qm3vZr1oYx5Kc7TgWbN2hJfLp9SdAe4UiM6kRtXqB0"},
        ),
    )
    async def post(self, request: Request) -> Any:
        """Make a token of one's own valid, with a code from whoever runs the hub."""
        given = read_body(request.data, BODY, required=BODY)
        code_hash, token_hash = hash_of(given["code"]), hash_of(given["token"])
        address = client_address(request.scope)
        found = await checks.run(_find, code_hash)
        try:
            if found is None:  # guesses do not reach the Writer
                raise Refused("code_invalid")
            command = Enrol(code_hash, token_hash, found.name, address)
            await acting.do(command, address, counted=True)
        except Unavailable:
            raise
        except Refused as refused:
            if found is None:
                act = Act(What.ENROLMENT_USE)
                gathered.note(Entry(act, actors.ANYONE, address, Outcome.REFUSED, refused.code))
            status = 409 if refused.code == "code_used" else 404
            return json_answer({"error": refused.code}, status)
        return json_answer({"name": found.name, "kind": found.kind}, 201)
