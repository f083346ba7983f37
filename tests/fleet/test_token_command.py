"""`manage.py token`: through the real Writer, whose thread needs committed rows."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from agentcom.models import Event
from agentcom.writer import writer
from fleet.models import AgentToken
from fleet.presence import hash_of
from fleet.tokens import CreateTokens

pytestmark = pytest.mark.django_db(transaction=True)


def run(*args: str) -> tuple[str, str]:
    """Give what it wrote to standard output and to standard error."""
    out, err = StringIO(), StringIO()
    call_command("token", *args, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


def create(agent_id: str = "a-1") -> str:
    return run("create", agent_id)[0].strip()


def valid() -> set[str]:
    return set(AgentToken.objects.filter(revoked_at=None).values_list("name", flat=True))


def test_create_prints_the_token_alone():
    out, err = run("create", "a-1")
    [token] = out.splitlines()
    stored = AgentToken.objects.get()
    assert stored.token_hash == hash_of(token)
    assert stored.name == "a-1"
    assert token not in err
    assert "a-1" in err


def test_a_token_is_kept_only_as_a_hash():
    token = create()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM agents_agenttoken")
        assert token not in str(cursor.fetchall())
    assert token not in str(list(Event.objects.values_list("data", flat=True)))


@pytest.mark.parametrize("agent_id", ["", " a", "a ", "a\tb", "a\x00b", "a" * 129])
def test_create_refuses_what_is_no_agent_id(agent_id):
    with pytest.raises(CommandError):
        run("create", agent_id)
    assert not AgentToken.objects.exists()


@pytest.mark.parametrize(
    ("agent_id", "why"),
    [
        (".", "no address"),
        ("..", "no address"),
        ("a/../b", "no address"),
        ("./a", "no address"),
        ("\u2800", "nobody can see"),
        ("a-1\u3164", "nobody can see"),
        ("\u115f\u1160", "nobody can see"),
        ("a\ufe0f", "nobody can see"),
        ("a  b", "two spaces"),
        ("cafe\u0301", "NFC"),
        ("\u212bngstrom", "NFC"),
    ],
)
def test_create_refuses_names_that_nobody_can_see_or_address(agent_id: str, why: str):
    with pytest.raises(CommandError, match=why):
        run("create", agent_id)
    assert not AgentToken.objects.exists()


@pytest.mark.parametrize(
    "agent_id", ["café", "a/b", "...", "a..b", "ns:a@host", "a b", "評審-🤖", "ガイド", "ㅎ"]
)
def test_create_takes_all_others(agent_id: str):
    create(agent_id)
    assert valid() == {agent_id}


@pytest.mark.parametrize("agent_id", ["..", "cafe\u0301", "a-1\u3164"])
def test_an_agent_that_was_called_so_before_gets_new_tokens(agent_id: str):
    writer.call(CreateTokens({agent_id: "of-before"}))
    create(agent_id)
    assert AgentToken.objects.filter(name=agent_id).count() == 2


def test_a_new_name_does_not_look_like_one_of_before():
    writer.call(CreateTokens({"cafe\u0301": "of-before"}))
    with pytest.raises(CommandError, match=r"looks like 'cafe.u0301'"):
        run("create", "café")
    assert valid() == {"cafe\u0301"}


def test_list_tells_tokens_by_hash_and_state():
    one, two = create("a-1"), create("a-2")
    run("revoke", "--token", two)
    lines = run("list")[0].splitlines()[1:]
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [
        (hash_of(one)[:12], "a-1"),
        (hash_of(two)[:12], "a-2"),
    ]
    assert ["revoked" in line for line in lines] == [False, True]
    assert one not in run("list")[0]


def test_list_of_one_agent():
    create("a-1")
    create("a-2")
    assert [line.split()[-1] for line in run("list", "a-2")[0].splitlines()[1:]] == ["a-2"]


def test_list_of_nothing_says_so():
    out, err = run("list")
    assert out == ""
    assert err.strip()


def test_revoke_all_of_an_agent():
    create("a-1")
    create("a-1")
    create("a-2")
    out, _ = run("revoke", "a-1")
    assert len(out.splitlines()) == 2
    assert valid() == {"a-2"}
    assert Event.objects.filter(kind="token_revoked").count() == 2


def test_revoke_one_by_itself():
    token = create("a-1")
    create("a-1")
    run("revoke", "--token", token)
    assert AgentToken.objects.get(revoked_at=None).token_hash != hash_of(token)


def test_no_token_looks_like_an_option(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fleet.tokens.secrets.token_urlsafe", lambda size: "-a")
    assert create("a-1") == "act_-a"


def test_revoke_one_by_the_beginning_of_its_hash():
    token = create("a-1")
    create("a-1")
    run("revoke", hash_of(token)[:12])
    assert AgentToken.objects.exclude(revoked_at=None).get().token_hash == hash_of(token)


def test_an_agent_named_like_a_hash_is_meant_before_the_hash():
    token = create("a-1")
    create(hash_of(token)[:12])
    run("revoke", hash_of(token)[:12])
    assert valid() == {"a-1"}


def test_an_ambiguous_hash_revokes_nothing():
    writer.commit([CreateTokens({"a-1": "ab" * 32, "a-2": "ab" * 31 + "ff"})])
    with pytest.raises(CommandError, match="More than one"):
        run("revoke", "abababab")
    assert valid() == {"a-1", "a-2"}


def test_revoking_again_says_so_and_changes_nothing():
    create("a-1")
    run("revoke", "a-1")
    before = AgentToken.objects.get().revoked_at
    out, _ = run("revoke", "a-1")
    assert "before" in out
    assert AgentToken.objects.get().revoked_at == before
    assert Event.objects.filter(kind="token_revoked").count() == 1


@pytest.mark.parametrize("args", [["a-9"], ["--token", "wrong"], ["ffffffff"]])
def test_revoking_what_is_not_there_is_an_error(args):
    create("a-1")
    with pytest.raises(CommandError, match="no such token"):
        run("revoke", *args)


@pytest.mark.parametrize("args", [[], ["a-1", "--token", "t"]])
def test_it_must_be_clear_what_to_revoke(args):
    with pytest.raises(CommandError, match="whose or which"):
        run("revoke", *args)
