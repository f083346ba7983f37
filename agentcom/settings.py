"""Everything that can be set, and what runs when nothing is set.

Each `AGENTCOM_…` below is the environment variable of the same name; docs/configuration.md explains
them, checks.py guards their ranges. Names that end in `_S` are seconds, fractions allowed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from agentcom.config import Environment, own_names
from agentcom.data_folder import make_folder, open_database, secret_key

BASE_DIR = Path(__file__).resolve().parent.parent

env = Environment()

# --- Where the hub listens and keeps its things

AGENTCOM_HOST = env.text("AGENTCOM_HOST", "127.0.0.1")
AGENTCOM_PORT = env.whole("AGENTCOM_PORT", 4000)
AGENTCOM_PATH_PREFIX = env.path_prefix("AGENTCOM_PATH_PREFIX", "")
AGENTCOM_DATA_DIR = env.folder("AGENTCOM_DATA_DIR", "var", root=BASE_DIR)
AGENTCOM_TIME_ZONE = env.time_zone("AGENTCOM_TIME_ZONE", "UTC")
AGENTCOM_LOG_LEVEL = env.choice(
    "AGENTCOM_LOG_LEVEL", "INFO", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
)

# --- Who may come in

AGENTCOM_SECRET_KEY = env.text("AGENTCOM_SECRET_KEY", "")
AGENTCOM_DASHBOARD_ACCESS = env.choice("AGENTCOM_DASHBOARD_ACCESS", "open", ["open", "staff"])
AGENTCOM_ALLOWED_HOSTS = env.words("AGENTCOM_ALLOWED_HOSTS", [])
AGENTCOM_CSRF_TRUSTED_ORIGINS = env.words("AGENTCOM_CSRF_TRUSTED_ORIGINS", [])
AGENTCOM_SECURE = env.flag("AGENTCOM_SECURE", False)
AGENTCOM_DEBUG = env.flag("AGENTCOM_DEBUG", False)

# --- Times and thresholds of tasks and agents

AGENTCOM_IDENTIFY_TIMEOUT_S = env.number("AGENTCOM_IDENTIFY_TIMEOUT_S", 10)
AGENTCOM_ACCEPT_TIMEOUT_S = env.number("AGENTCOM_ACCEPT_TIMEOUT_S", 60)
AGENTCOM_RECLAIM_GRACE_S = env.number("AGENTCOM_RECLAIM_GRACE_S", 10)
AGENTCOM_RECLAIM_AFTER_S = env.number("AGENTCOM_RECLAIM_AFTER_S", 1800)

# --- Times and thresholds of the health light and the dashboard

AGENTCOM_STUCK_AFTER_S = env.number("AGENTCOM_STUCK_AFTER_S", 300)
AGENTCOM_WAIT_URGENT_S = env.number("AGENTCOM_WAIT_URGENT_S", 300)
AGENTCOM_WAIT_HIGH_S = env.number("AGENTCOM_WAIT_HIGH_S", 900)
AGENTCOM_WAIT_NORMAL_S = env.number("AGENTCOM_WAIT_NORMAL_S", 3600)
AGENTCOM_WAIT_LOW_S = env.number("AGENTCOM_WAIT_LOW_S", 14_400)
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
AGENTCOM_COMMIT_TIMEOUT_S = env.number("AGENTCOM_COMMIT_TIMEOUT_S", 10)
AGENTCOM_EVENT_RETENTION_DAYS = env.number("AGENTCOM_EVENT_RETENTION_DAYS", 7)
AGENTCOM_COMPLETION_RETENTION_DAYS = env.number("AGENTCOM_COMPLETION_RETENTION_DAYS", 30)

# The tables of the journal's kinds of entries.
AGENTCOM_KINDS: tuple[str, ...] = (
    "tasks.moves.MOVES",
    "fleet.kinds.KINDS",
    "worker.reports.KINDS",
)

# Every read model that is kept in the same transaction as the journal, in order.
AGENTCOM_PROJECTIONS: tuple[str, ...] = (
    "tasks.queue.project_tally",
    "tasks.queue.project_completion",
    "fleet.presence.project_agent",
    "counters.throughput.project_minute",
    "counters.durations.project_duration",
    "counters.lanes.project_lane",
    "counters.hours.project_agent_hour",
)

# What staff need to look at the dashboard: it shows these. In the admin the same is asked for.
AGENTCOM_VIEW_PERMISSIONS: tuple[str, ...] = ("tasks.view_task", "agents.view_agent")

# --- Database and Redis

database = env.database("DATABASE_URL", default_file=AGENTCOM_DATA_DIR / "agentcom.sqlite3")
REDIS_URL = env.text("REDIS_URL", "")
AGENTCOM_REDIS_PREFIX = env.text("AGENTCOM_REDIS_PREFIX", "agentcom")

SQLITE_WAL_BYTES = 16 * 1024 * 1024  # four times what is written between two checkpoints

# Nothing is opened or written before this line: a value that cannot be read ends it here.
env.refuse()
# Every variable that is read, with its default.
ENVIRONMENT = env.defaults

if database["ENGINE"].endswith("sqlite3"):
    make_folder(AGENTCOM_DATA_DIR)
    database["NAME"] = BASE_DIR / database["NAME"]
    open_database(database["NAME"])
    database["OPTIONS"] = {
        # Takes the write lock at BEGIN: a transaction that reads first and then wants to write
        # would otherwise fail at once with "database is locked", whatever the timeout says.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        # FULL: an ack means "on disk", also when the power fails. Temporary tables stay in memory.
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "PRAGMA temp_store=MEMORY; PRAGMA cache_size=-32000;"
            # Once it can be reused, a write-ahead log that grew becomes as small again.
            f"PRAGMA journal_size_limit={SQLITE_WAL_BYTES};"
        ),
    }
    # A file, because a database in memory belongs to one thread; one for each run of the tests,
    # so that two at once do not meet.
    database["TEST"] = {"NAME": AGENTCOM_DATA_DIR / f"test-{os.getpid()}.sqlite3"}
else:
    # Under ASGI every request has its own thread, so connections are shared through the pool.
    database["CONN_MAX_AGE"] = 0
    # The pool gives out no connection that died while it lay there.
    database["CONN_HEALTH_CHECKS"] = True
    database["OPTIONS"] = {
        # Attempts to connect are given up soon and begin anew with whoever asks next: else their
        # backoff goes on growing, and a database that is back after a minute is found after two.
        "pool": {"min_size": 1, "max_size": 8, "timeout": 2, "reconnect_timeout": 4},
        "connect_timeout": 5,
        # A server that is gone without a word is noticed within 20 s, not after hours.
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "application_name": "agentcom",
        **database.get("OPTIONS", {}),
    }
    database["TEST"] = {"NAME": f"test_{database['NAME']}_{os.getpid()}"}  # likewise

DATABASES: dict[str, dict[str, Any]] = {"default": database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {
            # a server that takes connections and says nothing must not be waited for
            "hosts": [{"address": REDIS_URL, "socket_timeout": 5, "socket_connect_timeout": 5}],
            "prefix": AGENTCOM_REDIS_PREFIX,
        },
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

# --- Django

# Bench and torture, which the production image leaves out.
HAS_LAB = (BASE_DIR / "lab").is_dir()

DEBUG = AGENTCOM_DEBUG
ROOT_URLCONF = "agentcom.urls"
ASGI_APPLICATION = "agentcom.asgi.application"

INSTALLED_APPS = [
    # Before channels, so that our `runworker` is the one that runs.
    "worker",
    "dashboard",
    "fleet",
    "counters",
    "tasks",
    "agentcom",
    "channels",
    "rest_framework",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *(["lab"] if HAS_LAB else []),
]

MIDDLEWARE = [
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

# All that names an address of the hub is under it: links, redirects, assets, the admin, cookies.
FORCE_SCRIPT_NAME = AGENTCOM_PATH_PREFIX or None
STATIC_URL = f"{AGENTCOM_PATH_PREFIX}/static/"
# Served from where they lie in the apps: nothing has to be collected before the first start.
WHITENOISE_USE_FINDERS = True

USE_TZ = True
TIME_ZONE = AGENTCOM_TIME_ZONE
LANGUAGE_CODE = "en-us"
USE_I18N = False

# The largest body is an array of tasks.
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024

REST_FRAMEWORK = {
    # Agents have tokens; agentcom.api.ApiView has the rest, all of it JSON and none of it waiting
    # on a thread.
    "DEFAULT_AUTHENTICATION_CLASSES": ["fleet.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
}

# --- Logins, cookies, TLS

SECRET_KEY = AGENTCOM_SECRET_KEY or secret_key(AGENTCOM_DATA_DIR)

# The admin's own cookie name, so that another Django site on the same host does not log it out.
SESSION_COOKIE_NAME = "agentcom_session"
if AGENTCOM_PATH_PREFIX:
    # Other programs on this host neither get its cookies nor set them.
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
CSRF_TRUSTED_ORIGINS = AGENTCOM_CSRF_TRUSTED_ORIGINS

if AGENTCOM_SECURE:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

SILENCED_SYSTEM_CHECKS = [
    # HSTS for subdomains and the browsers' preload list: the hub does not own the whole domain.
    "security.W005",
    "security.W021",
    # Redirects from http to https are the proxy's; agents inside the network may speak plain http.
    "security.W008",
]

# --- Logging: one line for a person each, on standard error

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"}},
    "filters": {"without_traceback": {"()": "agentcom.config.WithoutTraceback"}},
    "handlers": {
        "stderr": {
            "filters": ["without_traceback"],
            "class": "logging.StreamHandler",
            "formatter": "line",
            "level": AGENTCOM_LOG_LEVEL,
        }
    },
    "root": {"handlers": ["stderr"], "level": AGENTCOM_LOG_LEVEL},
    "loggers": {
        # Django would print some of its lines a second time and send mails.
        "django": {"handlers": [], "level": "NOTSET"},
        # Its ports and endpoints: the hub says the same in words that help.
        "daphne": {"level": "NOTSET" if AGENTCOM_LOG_LEVEL == "DEBUG" else "WARNING"},
        # A line for each attempt while PostgreSQL is away; the writer and the worker say it once.
        "psycopg.pool": {"level": "ERROR"},
        # A traceback a second while Redis is away; the journal says it in a sentence.
        "channels_redis.pubsub": {"level": "CRITICAL"},
        # A line for each request that `simulate` or `bench` sends.
        "httpx": {"level": "NOTSET" if AGENTCOM_LOG_LEVEL == "DEBUG" else "WARNING"},
    },
}
