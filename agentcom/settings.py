"""All settings and their defaults.

Each `AGENTCOM_…` below is the environment variable of the same name. docs/configuration.md explains
them, checks.py checks their ranges. Names that end in `_S` are in seconds, fractions allowed.
"""

from __future__ import annotations

import os
from typing import Any

from agentcom import layout
from agentcom.config import Environment, own_names
from agentcom.data_folder import make_folder, open_database, secret_key

BASE_DIR = layout.ROOMS
RELATIVE_TO = layout.relative_to()

env = Environment()

# --- Where the hub listens and stores its data

AGENTCOM_HOST = env.text("AGENTCOM_HOST", "127.0.0.1")
AGENTCOM_PORT = env.whole("AGENTCOM_PORT", 4000)
AGENTCOM_PATH_PREFIX = env.path_prefix("AGENTCOM_PATH_PREFIX", "")
AGENTCOM_DATA_DIR = env.folder("AGENTCOM_DATA_DIR", layout.default_data_dir(), root=RELATIVE_TO)
AGENTCOM_TIME_ZONE = env.time_zone("AGENTCOM_TIME_ZONE", "UTC")
AGENTCOM_LOG_LEVEL = env.choice(
    "AGENTCOM_LOG_LEVEL", "INFO", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
)
AGENTCOM_LOG_FORMAT = env.choice("AGENTCOM_LOG_FORMAT", "line", ["line", "json"])

# --- Access

AGENTCOM_SECRET_KEY = env.text("AGENTCOM_SECRET_KEY", "")
AGENTCOM_DASHBOARD_ACCESS = env.choice("AGENTCOM_DASHBOARD_ACCESS", "open", ["open", "staff"])
AGENTCOM_OPEN_TO_NETWORK = env.flag("AGENTCOM_OPEN_TO_NETWORK", False)
AGENTCOM_AGENT_TOKENS = env.choice("AGENTCOM_AGENT_TOKENS", "own", ["own", "all"])
AGENTCOM_PROXY_COUNT = env.whole("AGENTCOM_PROXY_COUNT", 0)
AGENTCOM_ALLOWED_HOSTS = env.words("AGENTCOM_ALLOWED_HOSTS", [])
AGENTCOM_TRUSTED_ORIGINS = env.words("AGENTCOM_TRUSTED_ORIGINS", [])
AGENTCOM_CSRF_TRUSTED_ORIGINS = env.words("AGENTCOM_CSRF_TRUSTED_ORIGINS", [])  # its older name
AGENTCOM_REDACT = env.words(
    "AGENTCOM_REDACT",
    [
        *("password", "passwd", "secret", "client_secret", "api_key", "access_token"),
        *("refresh_token", "authorization", "private_key"),
    ],
)
AGENTCOM_REDACT_PATTERNS = env.patterns("AGENTCOM_REDACT_PATTERNS", [])
AGENTCOM_SECURE = env.flag("AGENTCOM_SECURE", False)
AGENTCOM_DEBUG = env.flag("AGENTCOM_DEBUG", False)

# --- Limits of what one client may ask

AGENTCOM_AGENT_SUBMITS_PER_S = env.number("AGENTCOM_AGENT_SUBMITS_PER_S", 20)
AGENTCOM_AGENT_SUBMIT_BURST = env.whole("AGENTCOM_AGENT_SUBMIT_BURST", 200)
AGENTCOM_SUBMITS_PER_S = env.number("AGENTCOM_SUBMITS_PER_S", 2000)
AGENTCOM_SUBMIT_BURST = env.whole("AGENTCOM_SUBMIT_BURST", 20_000)
AGENTCOM_MESSAGES_PER_S = env.number("AGENTCOM_MESSAGES_PER_S", 500)
AGENTCOM_MESSAGE_BURST = env.whole("AGENTCOM_MESSAGE_BURST", 2000)
AGENTCOM_VIEWERS_PER_ADDRESS = env.whole("AGENTCOM_VIEWERS_PER_ADDRESS", 500)
AGENTCOM_SILENT_PER_ADDRESS = env.whole("AGENTCOM_SILENT_PER_ADDRESS", 500)
AGENTCOM_PROGRESS_S = env.number("AGENTCOM_PROGRESS_S", 1)

# --- Times and thresholds of tasks and agents

AGENTCOM_IDENTIFY_TIMEOUT_S = env.number("AGENTCOM_IDENTIFY_TIMEOUT_S", 10)
AGENTCOM_ACCEPT_TIMEOUT_S = env.number("AGENTCOM_ACCEPT_TIMEOUT_S", 60)
AGENTCOM_RECLAIM_GRACE_S = env.number("AGENTCOM_RECLAIM_GRACE_S", 10)
AGENTCOM_RECLAIM_AFTER_S = env.number("AGENTCOM_RECLAIM_AFTER_S", 1800)
AGENTCOM_CANCEL_TIMEOUT_S = env.number("AGENTCOM_CANCEL_TIMEOUT_S", 30)
AGENTCOM_REJECT_PAUSE_S = env.number("AGENTCOM_REJECT_PAUSE_S", 60)
AGENTCOM_RETRY_BACKOFF_S = env.number("AGENTCOM_RETRY_BACKOFF_S", 1)
AGENTCOM_RETRY_BACKOFF_MAX_S = env.number("AGENTCOM_RETRY_BACKOFF_MAX_S", 300)

# --- Times and thresholds of the health light and the dashboard

AGENTCOM_STUCK_AFTER_S = env.number("AGENTCOM_STUCK_AFTER_S", 300)
AGENTCOM_WAIT_URGENT_S = env.number("AGENTCOM_WAIT_URGENT_S", 300)
AGENTCOM_WAIT_HIGH_S = env.number("AGENTCOM_WAIT_HIGH_S", 900)
AGENTCOM_WAIT_NORMAL_S = env.number("AGENTCOM_WAIT_NORMAL_S", 3600)
AGENTCOM_WAIT_LOW_S = env.number("AGENTCOM_WAIT_LOW_S", 14_400)
AGENTCOM_HOLD_WARN_S = env.number("AGENTCOM_HOLD_WARN_S", 3600)
AGENTCOM_HEALTH_CLEAR_S = env.number("AGENTCOM_HEALTH_CLEAR_S", 30)
AGENTCOM_OFFLINE_WINDOW_S = env.number("AGENTCOM_OFFLINE_WINDOW_S", 900)
AGENTCOM_QUEUE_SAMPLE_S = env.number("AGENTCOM_QUEUE_SAMPLE_S", 60)
AGENTCOM_FAILURE_RATE = env.number("AGENTCOM_FAILURE_RATE", 0.5)
AGENTCOM_FAILURE_MIN_TOTAL = env.whole("AGENTCOM_FAILURE_MIN_TOTAL", 1)
AGENTCOM_FLUSH_MS = env.whole("AGENTCOM_FLUSH_MS", 100)

# --- The machinery: worker, processes, writer

AGENTCOM_WORKER_TICK_S = env.number("AGENTCOM_WORKER_TICK_S", 1)
AGENTCOM_NODE_TIMEOUT_S = env.number("AGENTCOM_NODE_TIMEOUT_S", 5)
AGENTCOM_WRITER_QUEUE = env.whole("AGENTCOM_WRITER_QUEUE", 10_000)
AGENTCOM_ONE_CORE = env.flag("AGENTCOM_ONE_CORE", True)
AGENTCOM_COMMIT_TIMEOUT_S = env.number("AGENTCOM_COMMIT_TIMEOUT_S", 10)
AGENTCOM_EVENT_RETENTION_DAYS = env.number("AGENTCOM_EVENT_RETENTION_DAYS", 7)
AGENTCOM_COMPLETION_RETENTION_DAYS = env.number("AGENTCOM_COMPLETION_RETENTION_DAYS", 30)
AGENTCOM_TASK_RETENTION_DAYS = env.number("AGENTCOM_TASK_RETENTION_DAYS", 90)
AGENTCOM_AUDIT_RETENTION_DAYS = env.number("AGENTCOM_AUDIT_RETENTION_DAYS", 400)

# --- Webhooks

AGENTCOM_WEBHOOK_ALLOW_PRIVATE = env.flag("AGENTCOM_WEBHOOK_ALLOW_PRIVATE", False)
AGENTCOM_WEBHOOK_TIMEOUT_S = env.number("AGENTCOM_WEBHOOK_TIMEOUT_S", 10)
# the pauses before the second attempt, the third, and so on: about a day in all
AGENTCOM_WEBHOOK_BACKOFF_S = env.numbers(
    "AGENTCOM_WEBHOOK_BACKOFF_S", [5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 28_800]
)
AGENTCOM_WEBHOOK_FAILING_DAYS = env.number("AGENTCOM_WEBHOOK_FAILING_DAYS", 3)
AGENTCOM_WEBHOOK_LOG_DAYS = env.number("AGENTCOM_WEBHOOK_LOG_DAYS", 7)
AGENTCOM_WEBHOOK_LATE_S = env.number("AGENTCOM_WEBHOOK_LATE_S", 900)

# The tables of the journal's kinds of entries.
AGENTCOM_KINDS: tuple[str, ...] = (
    "tasks.moves.MOVES",
    "fleet.kinds.KINDS",
    "webhooks.kinds.KINDS",
    "worker.kinds.KINDS",
)

# The read models that are updated in the transaction of the journal entry, in this order.
AGENTCOM_PROJECTIONS: tuple[str, ...] = (
    "tasks.facts.project_facts",
    "tasks.projections.project_tally",
    "tasks.projections.project_completion",
    "fleet.presence.project_agent",
    "counters.throughput.project_minute",
    "counters.durations.project_duration",
    "counters.lanes.project_lane",
    "counters.hours.project_agent_hour",
)

# The sockets, as /api/schema/sockets describes them.
AGENTCOM_SOCKETS: tuple[str, ...] = (
    "fleet.frames.SOCKET",
    "fleet.outcome_frames.SOCKET",
    "dashboard.frames.SOCKET",
)

# The permissions that staff need to view the dashboard; the admin requires the same for its pages.
AGENTCOM_VIEW_PERMISSIONS: tuple[str, ...] = ("tasks.view_task", "agents.view_agent")

# The groups that give people a role, and their permissions; see agentcom/roles.py.
_VIEWER = (
    *AGENTCOM_VIEW_PERMISSIONS,
    *("tasks.view_completion", "agents.view_hold", "agentcom.view_event", "agentcom.view_node"),
    *("counters.view_minute", "worker.view_healthreport", "worker.view_queuesample"),
)
_OPERATOR = (
    *_VIEWER,
    *("tasks.add_task", "tasks.change_task", "agents.change_agent", "agents.change_hold"),
    *("agents.view_agenttoken", "agents.change_agenttoken", "agents.view_enrolment"),
    # a delivery may be sent again; where to, only an admin says
    *("webhooks.view_endpoint", "webhooks.view_delivery", "webhooks.change_delivery"),
)
AGENTCOM_ROLES: dict[str, tuple[str, ...]] = {
    "AgentCom viewer": _VIEWER,
    "AgentCom operator": _OPERATOR,
    "AgentCom admin": (
        *_OPERATOR,
        *(f"auth.{verb}_{of}" for of in ("user", "group") for verb in ("view", "add", "change")),
        *("auth.delete_user", "auth.delete_group", "agentcom.view_auditentry"),
        *(f"webhooks.{verb}_endpoint" for verb in ("add", "change", "delete")),
    ),
}

# --- Database and Redis

database = env.database("DATABASE_URL", default_file=AGENTCOM_DATA_DIR / "agentcom.sqlite3")
REDIS_URL = env.text("REDIS_URL", "")
AGENTCOM_REDIS_PREFIX = env.text("AGENTCOM_REDIS_PREFIX", "agentcom")

if database["ENGINE"].endswith("postgresql"):
    env.need_extra("postgres", "DATABASE_URL", modules=["psycopg", "psycopg_pool"])
if REDIS_URL:
    env.need_extra("redis", "REDIS_URL", modules=["channels_redis"])

SQLITE_WAL_BYTES = 16 * 1024 * 1024  # four times what is written between two checkpoints

# Ends the program if a value cannot be parsed, or needs a package that is not installed. Nothing
# is opened or written before this line.
env.refuse()
# All variables that are read, with their defaults.
ENVIRONMENT = env.defaults

if database["ENGINE"].endswith("sqlite3"):
    make_folder(AGENTCOM_DATA_DIR)
    database["NAME"] = RELATIVE_TO / database["NAME"]
    open_database(database["NAME"])
    database["OPTIONS"] = {
        # Takes the write lock at BEGIN. Otherwise a transaction that reads first and then writes
        # could fail at once with "database is locked", whatever the timeout.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        # FULL: an ack means "on disk", even after a power failure. Temporary tables are in memory.
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "PRAGMA temp_store=MEMORY; PRAGMA cache_size=-32000;"
            # A write-ahead log that has grown is truncated to this size once it can be reused.
            f"PRAGMA journal_size_limit={SQLITE_WAL_BYTES};"
        ),
    }
    # A file, because a database in memory belongs to one thread. Its name has the process id, so
    # that test runs can be concurrent.
    database["TEST"] = {"NAME": AGENTCOM_DATA_DIR / f"test-{os.getpid()}.sqlite3"}
else:
    # Under ASGI each request may run in another thread, so connections are shared in the pool.
    database["CONN_MAX_AGE"] = 0
    # The pool checks that a connection is still alive before it hands it out.
    database["CONN_HEALTH_CHECKS"] = True
    database["OPTIONS"] = {
        # The Writer, the worker, the sender of webhooks and six readers keep a connection each, see
        # database.py; the other three are for the admin and other pages.
        # Give up connecting soon; the next caller starts a new attempt. Otherwise the backoff keeps
        # growing, and a database that is available after a minute is only used after two.
        "pool": {"min_size": 1, "max_size": 12, "timeout": 2, "reconnect_timeout": 4},
        "connect_timeout": 5,
        # A server that disappears without closing its connections is detected in 20 s, not hours.
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "application_name": "agentcom",
        **database.get("OPTIONS", {}),
    }
    database["TEST"] = {"NAME": f"test_{database['NAME']}_{os.getpid()}"}

DATABASES: dict[str, dict[str, Any]] = {"default": database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {
            # do not wait for a server that accepts connections but does not answer
            "hosts": [{"address": REDIS_URL, "socket_timeout": 5, "socket_connect_timeout": 5}],
            "prefix": AGENTCOM_REDIS_PREFIX,
        },
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

# --- Django

# Benchmarks and the torture test, which neither the production image nor a wheel includes.
HAS_LAB = (BASE_DIR / "lab").is_dir()

DEBUG = AGENTCOM_DEBUG
ROOT_URLCONF = "agentcom.urls"
ASGI_APPLICATION = "agentcom.asgi.application"

INSTALLED_APPS = [
    # Before channels, so that our `runworker` command takes precedence.
    "worker",
    "metrics",
    "webhooks",
    "dashboard",
    "fleet",
    "counters",
    "tasks",
    "agentcom",
    "channels",
    "rest_framework",
    "drf_spectacular_sidecar",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *(["lab"] if HAS_LAB else []),
]

MIDDLEWARE = [
    "agentcom.doors.closed_doors",
    "django.middleware.security.SecurityMiddleware",
    "agentcom.staticfiles.StaticFilesMiddleware",
    "agentcom.nul.NulMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# All URLs of the hub start with the prefix: links, redirects, assets, the admin, cookie paths.
FORCE_SCRIPT_NAME = AGENTCOM_PATH_PREFIX or None
STATIC_URL = f"{AGENTCOM_PATH_PREFIX}/static/"
# Served from the apps' own folders, so that no `collectstatic` is needed before the first start.
WHITENOISE_USE_FINDERS = True

USE_TZ = True
TIME_ZONE = AGENTCOM_TIME_ZONE
LANGUAGE_CODE = "en-us"
USE_I18N = False

# The largest body is an array of tasks.
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024

REST_FRAMEWORK = {
    # Agents have tokens. The rest is set in agentcom.api.ApiView: JSON only, and asynchronous.
    "DEFAULT_AUTHENTICATION_CLASSES": ["fleet.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
}

# --- Logins, cookies, TLS

SECRET_KEY = AGENTCOM_SECRET_KEY or secret_key(AGENTCOM_DATA_DIR)

# The admin's own cookie name, so that another Django site on the same host does not log it out.
SESSION_COOKIE_NAME = "agentcom_session"
if AGENTCOM_PATH_PREFIX:
    # Other programs on this host neither receive these cookies nor set them.
    SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = AGENTCOM_PATH_PREFIX
    MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"  # for who logs in without having come from somewhere
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

ALLOWED_HOSTS = AGENTCOM_ALLOWED_HOSTS or own_names(AGENTCOM_HOST)
# Whose forms are accepted, and whose pages may open sockets.
CSRF_TRUSTED_ORIGINS = [*AGENTCOM_TRUSTED_ORIGINS, *AGENTCOM_CSRF_TRUSTED_ORIGINS]

# No script reads a cookie. `Lax`, so that a link in a chat leads to the page and not to the login;
# what changes something needs more than a cookie, see doors.py.
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"

if AGENTCOM_SECURE:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

SILENCED_SYSTEM_CHECKS = [
    # HSTS for subdomains, and preloading it: the hub does not own the whole domain.
    "security.W005",
    "security.W021",
    # The proxy redirects http to https; agents inside the network may use plain http.
    "security.W008",
]

# --- Logging on standard error: lines for people, or for programs

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "agentcom.redaction.MaskedLines",
            "format": "{asctime} {levelname:<7} {name}: {message}",
            "style": "{",
        },
        "json": {"()": "agentcom.logs.JsonLines"},
    },
    "filters": {"without_traceback": {"()": "agentcom.config.WithoutTraceback"}},
    "handlers": {
        "stderr": {
            "filters": ["without_traceback"],
            "class": "logging.StreamHandler",
            "formatter": AGENTCOM_LOG_FORMAT,
            "level": AGENTCOM_LOG_LEVEL,
        }
    },
    "root": {"handlers": ["stderr"], "level": AGENTCOM_LOG_LEVEL},
    "loggers": {
        # Without Django's own handlers, which would log some lines twice and send mails.
        "django": {"handlers": [], "level": "NOTSET"},
        # It logs ports and endpoints; the hub prints its address in a clearer way.
        "daphne": {"level": "NOTSET" if AGENTCOM_LOG_LEVEL == "DEBUG" else "WARNING"},
        # Without uvicorn's own handlers.
        "uvicorn": {
            "handlers": [],
            "level": "NOTSET" if AGENTCOM_LOG_LEVEL == "DEBUG" else "WARNING",
            "propagate": True,
        },
        # A line for each socket that closes.
        "websockets": {"level": "NOTSET" if AGENTCOM_LOG_LEVEL == "DEBUG" else "WARNING"},
        # A line for each attempt while PostgreSQL is unavailable; the hub logs that itself.
        "psycopg.pool": {"level": "ERROR"},
        # A traceback each second while Redis is unavailable; the journal logs one sentence.
        "channels_redis.pubsub": {"level": "CRITICAL"},
        # A line for each request that `simulate` or `bench` sends.
        "httpx": {"level": "NOTSET" if AGENTCOM_LOG_LEVEL == "DEBUG" else "WARNING"},
        # A traceback for each answer of a webhook's receiver with a header that is none. What came
        # of a request is in the log of its attempts.
        "urllib3": {"level": "NOTSET" if AGENTCOM_LOG_LEVEL == "DEBUG" else "ERROR"},
    },
}
