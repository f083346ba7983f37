"""System checks of the settings: each says what is wrong with a value and what would be right.

Values that cannot be parsed (letters in a number) stop the start earlier, in config.py.
"""

from __future__ import annotations

import difflib
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from django.conf import settings
from django.core import checks

from agentcom.config import stop
from agentcom.data_folder import open_to_others, owner
from agentcom.origins import is_origin
from agentcom.redaction import pattern_fault
from agentcom.signals import is_server_command

logger = logging.getLogger(__name__)

HOUR, DAY, YEAR = 3600, 24 * 3600, 366 * 24 * 3600

# The range of each setting, both ends included.
BOUNDS = [
    ("agentcom.E001", "AGENTCOM_PORT", 1, 65_535),
    ("agentcom.E002", "AGENTCOM_IDENTIFY_TIMEOUT_S", 0.1, HOUR),
    ("agentcom.E003", "AGENTCOM_ACCEPT_TIMEOUT_S", 0.1, DAY),
    ("agentcom.E004", "AGENTCOM_RECLAIM_GRACE_S", 0, DAY),
    ("agentcom.E005", "AGENTCOM_RECLAIM_AFTER_S", 1, YEAR),
    ("agentcom.E006", "AGENTCOM_STUCK_AFTER_S", 0.1, YEAR),
    ("agentcom.E007", "AGENTCOM_OFFLINE_WINDOW_S", 1, YEAR),
    ("agentcom.E008", "AGENTCOM_QUEUE_SAMPLE_S", 0.1, DAY),
    ("agentcom.E009", "AGENTCOM_FAILURE_RATE", 0, 1),
    ("agentcom.E010", "AGENTCOM_FAILURE_MIN_TOTAL", 1, 1_000_000),
    ("agentcom.E011", "AGENTCOM_FLUSH_MS", 1, 10_000),
    ("agentcom.E012", "AGENTCOM_WORKER_TICK_S", 0.05, 60),
    ("agentcom.E013", "AGENTCOM_NODE_TIMEOUT_S", 2, HOUR),
    ("agentcom.E014", "AGENTCOM_WRITER_QUEUE", 1, 10_000_000),
    ("agentcom.E015", "AGENTCOM_COMMIT_TIMEOUT_S", 0.1, HOUR),
    ("agentcom.E016", "AGENTCOM_EVENT_RETENTION_DAYS", 0.1, 36_500),
    ("agentcom.E017", "AGENTCOM_COMPLETION_RETENTION_DAYS", 0.1, 36_500),
    ("agentcom.E024", "AGENTCOM_WAIT_URGENT_S", 1, YEAR),
    ("agentcom.E025", "AGENTCOM_WAIT_HIGH_S", 1, YEAR),
    ("agentcom.E026", "AGENTCOM_WAIT_NORMAL_S", 1, YEAR),
    ("agentcom.E027", "AGENTCOM_WAIT_LOW_S", 1, YEAR),
    ("agentcom.E028", "AGENTCOM_HEALTH_CLEAR_S", 0, HOUR),
    ("agentcom.E029", "AGENTCOM_TASK_RETENTION_DAYS", 0, 36_500),
    ("agentcom.E030", "AGENTCOM_CANCEL_TIMEOUT_S", 0, DAY),
    ("agentcom.E031", "AGENTCOM_REJECT_PAUSE_S", 0, DAY),
    ("agentcom.E032", "AGENTCOM_RETRY_BACKOFF_S", 0, DAY),
    ("agentcom.E033", "AGENTCOM_RETRY_BACKOFF_MAX_S", 0, DAY),
    ("agentcom.E040", "AGENTCOM_PROXY_COUNT", 0, 10),
    ("agentcom.E041", "AGENTCOM_AGENT_SUBMITS_PER_S", 0, 1_000_000),
    ("agentcom.E042", "AGENTCOM_AGENT_SUBMIT_BURST", 1, 1_000_000),
    ("agentcom.E043", "AGENTCOM_SUBMITS_PER_S", 0, 1_000_000),
    ("agentcom.E044", "AGENTCOM_SUBMIT_BURST", 1, 1_000_000),
    ("agentcom.E045", "AGENTCOM_MESSAGES_PER_S", 0, 1_000_000),
    ("agentcom.E046", "AGENTCOM_MESSAGE_BURST", 1, 1_000_000),
    ("agentcom.E047", "AGENTCOM_VIEWERS_PER_ADDRESS", 0, 1_000_000),
    ("agentcom.E048", "AGENTCOM_SILENT_PER_ADDRESS", 0, 1_000_000),
    ("agentcom.E049", "AGENTCOM_PROGRESS_S", 0, 60),
    ("agentcom.E034", "AGENTCOM_HOLD_WARN_S", 1, YEAR),
    ("agentcom.E050", "AGENTCOM_WEBHOOK_TIMEOUT_S", 0.1, 60),
    ("agentcom.E051", "AGENTCOM_WEBHOOK_FAILING_DAYS", 0.01, 366),
    ("agentcom.E052", "AGENTCOM_WEBHOOK_LOG_DAYS", 0.1, 36_500),
    ("agentcom.E053", "AGENTCOM_WEBHOOK_LATE_S", 1, YEAR),
    ("agentcom.E054", "AGENTCOM_AUDIT_RETENTION_DAYS", 0, 36_500),
]

PAUSES_MAX = 50  # between the attempts of a webhook
SHORTEST_KEY = 32  # characters of a secret key

Found = list[checks.CheckMessage]


@checks.register("agentcom")
def check_bounds(**kwargs: object) -> Found:
    return [
        checks.Error(
            f"{name} is {value}; it must be at least {low} and at most {high}.",
            hint=f"The default is {settings.ENVIRONMENT[name]}; "
            "docs/configuration.md explains what it does.",
            id=id_,
        )
        for id_, name, low, high in BOUNDS
        if not low <= (value := getattr(settings, name)) <= high
    ]


@checks.register("agentcom")
def check_webhook_backoff(**kwargs: object) -> Found:
    pauses = settings.AGENTCOM_WEBHOOK_BACKOFF_S
    if 1 <= len(pauses) <= PAUSES_MAX and all(0.01 <= pause <= DAY for pause in pauses):
        return []
    return [
        checks.Error(
            f"AGENTCOM_WEBHOOK_BACKOFF_S must be 1 to {PAUSES_MAX} pauses of 0.01 to {DAY:,} s.",
            hint="For example 5,30,120,600,1800: a webhook is tried once more after each.",
            id="agentcom.E054",
        )
    ]


@checks.register("agentcom")
def check_redis_url(**kwargs: object) -> Found:
    if not settings.REDIS_URL:
        return []
    from redis.connection import parse_url

    try:
        parse_url(settings.REDIS_URL)
        return []
    except ValueError:  # its message may contain the password
        pass
    return [
        checks.Error(
            "REDIS_URL is not the address of a Redis.",
            hint="For example redis://localhost:6379/0; leave it empty to run without Redis.",
            id="agentcom.E018",
        )
    ]


@checks.register("agentcom")
def check_secret_file(**kwargs: object) -> Found:
    path = settings.AGENTCOM_DATA_DIR / "secret_key"
    if settings.AGENTCOM_SECRET_KEY or not path.exists() or os.name != "posix":
        return []
    if not stat.S_IMODE(path.stat().st_mode) & 0o077:
        return []
    return [
        checks.Error(
            f"Other users of this machine can read the secret key {path}.",
            hint=f"chmod 600 {path}; delete it if somebody may have read it: a new one is created, "
            "and everybody has to log in again.",
            id="agentcom.E019",
        )
    ]


@checks.register("agentcom")
def check_rights(**kwargs: object) -> Found:
    """Rights that the start does not change itself: of another's files, or of a shared folder."""
    paths = [settings.AGENTCOM_DATA_DIR]
    database = Path(str(settings.DATABASES["default"]["NAME"]))
    if database.is_absolute() and open_to_others(database.parent):  # a file that others can reach
        paths.append(database)
    return [
        checks.Warning(
            f"Other users of this machine may access the hub's data: {owner(path)}.",
            hint=f"chmod {'700' if path.is_dir() else '600'} {path}, "
            "or set AGENTCOM_DATA_DIR to a folder that only the hub uses.",
            id="agentcom.W006",
        )
        for path in paths
        if open_to_others(path)
    ]


@checks.register("agentcom")
def check_secret_key(**kwargs: object) -> Found:
    length = len(settings.SECRET_KEY)
    if length >= SHORTEST_KEY:
        return []
    kind = checks.Error if settings.AGENTCOM_SECURE else checks.Warning
    return [
        kind(
            f"The secret key has {length} characters: whoever guesses it can log in as any user.",
            hint=f"Set AGENTCOM_SECRET_KEY to {SHORTEST_KEY} or more random ones: "
            'python3 -c "import secrets; print(secrets.token_urlsafe(50))".',
            id="agentcom.E020" if settings.AGENTCOM_SECURE else "agentcom.W005",
        )
    ]


@checks.register("agentcom")
def check_order_of_times(**kwargs: object) -> Found:
    if settings.AGENTCOM_STUCK_AFTER_S < settings.AGENTCOM_RECLAIM_AFTER_S:
        return []
    return [
        checks.Warning(
            "Tasks are taken back before they count as stuck, so the health light never warns.",
            hint="Set AGENTCOM_STUCK_AFTER_S below AGENTCOM_RECLAIM_AFTER_S.",
            id="agentcom.W001",
        )
    ]


@checks.register("agentcom")
def check_allowed_hosts(**kwargs: object) -> Found:
    if settings.AGENTCOM_HOST not in ("0.0.0.0", "::") or settings.AGENTCOM_ALLOWED_HOSTS:
        return []
    return [
        checks.Warning(
            "The hub listens on every address of this machine but answers only to localhost.",
            hint="Set AGENTCOM_ALLOWED_HOSTS to the names under which others reach it.",
            id="agentcom.W002",
        )
    ]


@checks.register("agentcom")
def check_trusted_origins(**kwargs: object) -> Found:
    return [
        checks.Error(
            f"AGENTCOM_TRUSTED_ORIGINS: {origin!r} is not an origin.",
            hint="One is https://hub.example.org or https://hub.example.org:8443, without a path; "
            "https://*.example.org is every name below.",
            id="agentcom.E035",
        )
        for origin in settings.CSRF_TRUSTED_ORIGINS
        if not is_origin(origin)
    ]


@checks.register("agentcom")
def check_redaction(**kwargs: object) -> Found:
    return [
        checks.Error(
            f"AGENTCOM_REDACT_PATTERNS: {pattern!r} {fault}.",
            hint="White space separates patterns; within one write \\s.",
            id="agentcom.E036",
        )
        for pattern in settings.AGENTCOM_REDACT_PATTERNS
        if (fault := pattern_fault(pattern)) is not None
    ]


@checks.register("agentcom", deploy=True)
def check_open_dashboard(**kwargs: object) -> Found:
    if settings.AGENTCOM_DASHBOARD_ACCESS == "staff":
        return []
    return [
        checks.Warning(
            "Anybody who can reach the hub, or a proxy in front of it, may watch and change tasks.",
            hint="Set AGENTCOM_DASHBOARD_ACCESS=staff unless the network around the hub is closed.",
            id="agentcom.W003",
        )
    ]


@checks.register("agentcom")
def check_agent_tokens(**kwargs: object) -> Found:
    if settings.AGENTCOM_AGENT_TOKENS == "own":
        return []
    return [
        checks.Warning(
            "Every agent's token may read, retry and cancel all tasks, and hold the hub.",
            hint="Give programs that need this a token of the kind operator or submitter, and"
            " unset AGENTCOM_AGENT_TOKENS.",
            id="agentcom.W008",
        )
    ]


@checks.register("agentcom", deploy=True)
def check_insides(**kwargs: object) -> Found:
    """Only where somebody asks for it: a web process says it at its start, and it takes a while."""
    from agentcom.servers import daphne_insides

    missing = daphne_insides.fault()
    return (
        [checks.Warning(missing, hint=daphne_insides.HINT, id="agentcom.W007")] if missing else []
    )


@checks.register("agentcom")
def check_unknown_names(**kwargs: object) -> Found:
    return list(misspelt(os.environ))


def misspelt(variables: Mapping[str, str]) -> Iterator[checks.CheckMessage]:
    """Variables whose names nearly match a setting; others may belong to other programs."""
    known = set(settings.ENVIRONMENT)
    for name in sorted(set(variables) - known):
        if not name.startswith("AGENTCOM_"):
            continue
        for meant in difflib.get_close_matches(name, known, n=1, cutoff=0.85):
            yield checks.Warning(
                f"{name} is not a setting.", hint=f"{meant} is.", id="agentcom.W004"
            )


def refuse_bad_settings() -> None:
    """Stop like a management command: servers such as Daphne do not run the checks."""
    found = checks.run_checks(tags=["agentcom"])
    errors = [error for error in found if error.is_serious()]
    if errors:
        stop(*(f"({error.id}) {error.msg} {error.hint}" for error in errors))
    if is_server_command():  # management commands print the warnings themselves
        for warning in found:
            logger.warning("(%s) %s %s", warning.id, warning.msg, warning.hint)
