"""Optional packages that are not loaded, because nothing of the hub uses them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Django REST framework loads them if they are there. They took a fifth of a process's start: behind
# the first one is psycopg, which a hub on SQLite has no other use for.
OF_REST_FRAMEWORK = (
    *("django.contrib.postgres.fields", "requests", "yaml", "pygments"),
    *("markdown", "inflection", "uritemplate"),
)


def load_rest_framework() -> None:
    """Before anything else does, the part of it that looks for optional packages."""
    with hidden(OF_REST_FRAMEWORK):
        importlib.import_module("rest_framework.compat")


@contextmanager
def hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Whoever imports one of them meanwhile gets an ImportError, as where it is not installed."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: not to be found
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
