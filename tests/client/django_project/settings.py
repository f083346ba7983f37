import json
import os

SECRET_KEY = "for tests"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}}
TASKS = {
    "default": {
        "BACKEND": "agentcom_client.django.AgentComBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": {
            "PROJECT": os.environ["PROJECT"],
            "RETRY_BACKOFF_S": 0,
            **json.loads(os.environ.get("MORE_OPTIONS", "{}")),
        },
    },
    "retries": {
        "BACKEND": "agentcom_client.django.AgentComBackend",
        "OPTIONS": {"PROJECT": os.environ["PROJECT"], "MAX_RETRIES": 2, "RETRY_BACKOFF_S": 0},
    },
}
