from __future__ import annotations

import os

import pytest
from django.core import checks

from agentcom.checks import BOUNDS, misspelt, refuse_bad_settings

pytestmark = pytest.mark.sqlite_only


def found(*, deploy: bool = False) -> list[str | None]:
    messages = checks.run_checks(tags=["agentcom"], include_deployment_checks=deploy)
    return [message.id for message in messages]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in list(os.environ):
        if name.startswith("AGENTCOM_"):
            monkeypatch.delenv(name)


def test_the_defaults_are_in_order():
    assert found() == []


@pytest.mark.parametrize(("id_", "name", "low", "high"), BOUNDS)
class TestBounds:
    def test_have_an_error_of_their_own(self, settings, id_, name, low, high):
        for value in (low - 0.01, high + 1, -1, float("nan")):
            setattr(settings, name, value)
            assert id_ in found(), value

    def test_include_their_ends(self, settings, id_, name, low, high):
        for value in (low, high):
            setattr(settings, name, value)
            assert id_ not in found(), value

    def test_say_what_would_be_right(self, settings, id_, name, low, high):
        setattr(settings, name, -1)
        error = next(m for m in checks.run_checks(tags=["agentcom"]) if m.id == id_)

        assert error.msg.startswith(f"{name} is -1;")
        assert f"The default is {settings.ENVIRONMENT[name]};" in (error.hint or "")


@pytest.mark.parametrize("pauses", [[], [0], [5, 90_000], [1] * 51, [float("nan")]])
def test_the_pauses_of_webhooks_have_bounds(settings, pauses):
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = pauses
    assert found() == ["agentcom.E054"]


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://localhost:6379", "redis://localhost:port/0"]
)
def test_redis_needs_an_address_of_a_redis(settings, url):
    settings.REDIS_URL = url
    assert found() == ["agentcom.E018"]


@pytest.mark.parametrize("url", ["", "redis://localhost", "rediss://r.example:6380/1"])
def test_redis_may_be_absent_or_encrypted(settings, url):
    settings.REDIS_URL = url
    assert found() == []


def test_a_secret_key_that_others_can_read_is_an_error(settings, tmp_path):
    settings.AGENTCOM_DATA_DIR = tmp_path
    settings.AGENTCOM_SECRET_KEY = ""
    path = tmp_path / "secret_key"
    path.touch(mode=0o600)
    assert found() == []

    path.chmod(0o640)
    assert found() == ["agentcom.E019"]


def test_a_short_secret_key_is_a_warning_and_behind_tls_an_error(settings):
    settings.SECRET_KEY = "k" * 31
    assert found() == ["agentcom.W005"]

    settings.AGENTCOM_SECURE = True
    assert found() == ["agentcom.E020"]

    settings.SECRET_KEY = "k" * 32
    assert found() == []


def test_warns_of_data_that_others_may_get_at(settings, tmp_path):
    settings.AGENTCOM_DATA_DIR = tmp_path / "data"
    assert found() == []

    settings.AGENTCOM_DATA_DIR.mkdir()
    settings.AGENTCOM_DATA_DIR.chmod(0o750)
    assert found() == ["agentcom.W006"]

    settings.AGENTCOM_DATA_DIR.chmod(0o700)
    assert found() == []


def test_warns_when_tasks_are_taken_back_before_they_are_stuck(settings):
    settings.AGENTCOM_STUCK_AFTER_S = settings.AGENTCOM_RECLAIM_AFTER_S
    assert found() == ["agentcom.W001"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_warns_when_it_listens_to_all_and_answers_to_none(settings, host):
    settings.AGENTCOM_HOST = host
    assert found() == ["agentcom.W002"]

    settings.AGENTCOM_ALLOWED_HOSTS = ["hub.example"]
    assert found() == []


def test_an_open_dashboard_is_for_the_deployment_check_to_tell(settings):
    assert found(deploy=True) == ["agentcom.W003"]

    settings.AGENTCOM_DASHBOARD_ACCESS = "staff"
    assert found(deploy=True) == []


def test_names_what_a_misspelt_variable_was_meant_to_be():
    told = list(misspelt({"AGENTCOM_PROT": "1", "AGENTCOM_PORT": "1", "AGENTCOM_COLOUR": "1"}))

    assert [(warning.msg, warning.hint) for warning in told] == [
        ("AGENTCOM_PROT is not a setting.", "AGENTCOM_PORT is.")
    ]


def test_a_server_refuses_errors_but_not_warnings(settings):
    settings.AGENTCOM_HOST = "0.0.0.0"
    refuse_bad_settings()

    settings.AGENTCOM_PORT = 0
    with pytest.raises(SystemExit, match=r"agentcom\.E001"):
        refuse_bad_settings()


@pytest.mark.parametrize("origin", ["hub.example", "https://hub.example/", "*"])
def test_what_is_trusted_must_be_an_origin(settings, origin):
    settings.CSRF_TRUSTED_ORIGINS = ["https://hub.example", origin]
    assert found() == ["agentcom.E035"]


@pytest.mark.parametrize("pattern", ["(", "a*", "(a+)+b"])
def test_patterns_of_secrets_are_checked(settings, pattern):
    settings.AGENTCOM_REDACT_PATTERNS = ["sk-[A-Za-z0-9]{20,}", pattern]
    assert found() == ["agentcom.E036"]
