"""Reads the environment for `settings.py`: a method per kind of value, a sentence per mistake."""

from __future__ import annotations

import logging
import math
import os
import re
import zoneinfo
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from environ import Env

T = TypeVar("T")

# The first part of each of the hub's own paths.
OWN_PATHS = {"admin", "api", "dashboard", "health", "metrics", "static", "ws"}

YES = {"1", "true", "yes", "on"}
NO = {"0", "false", "no", "off"}


class Environment:
    """Values from environment variables, or their defaults.

    An empty variable counts as absent, because container tools pass empty ones. A value that cannot
    be parsed is recorded rather than raised, so that `refuse` reports all mistakes at once.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self.variables = os.environ if variables is None else variables
        self.defaults: dict[str, Any] = {}
        self.problems: list[str] = []

    def text(self, name: str, default: str) -> str:
        return self._read(name, default, str, "text")

    def whole(self, name: str, default: int) -> int:
        return self._read(name, default, int, "a whole number, such as 100")

    def number(self, name: str, default: float) -> float:
        return self._read(name, float(default), _finite, "a number, such as 10 or 0.5")

    def numbers(self, name: str, default: Sequence[float]) -> list[float]:
        floats = [float(number) for number in default]
        return self._read(name, floats, _numbers, "numbers separated by commas, such as 5,30,120")

    def flag(self, name: str, default: bool) -> bool:
        return self._read(name, default, _flag, "true or false")

    def words(self, name: str, default: Sequence[str]) -> list[str]:
        return self._read(name, list(default), _words, "words separated by commas")

    def patterns(self, name: str, default: Sequence[str]) -> list[str]:
        """Separated by white space, because regular expressions have commas."""
        return self._read(name, list(default), str.split, "regular expressions")

    def choice(self, name: str, default: str, choices: Sequence[str]) -> str:
        wanted = "one of " + ", ".join(choices)
        return self._read(name, default, lambda raw: _one_of(choices, raw), wanted)

    def folder(self, name: str, default: str, root: Path) -> Path:
        """A relative path is relative to `root`, whatever the current directory is."""
        return root / Path(self.text(name, default)).expanduser()

    def path_prefix(self, name: str, default: str) -> str:
        wanted = "a path such as /agentcom that is not one of the hub's own"
        return self._read(name, default, _path_prefix, wanted)

    def time_zone(self, name: str, default: str) -> str:
        return self._read(name, default, _time_zone, "a time zone, such as Europe/Berlin")

    def database(self, name: str, default_file: Path) -> dict[str, Any]:
        """Django's form of a database address; a password in it is never repeated in a message."""
        default = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(default_file)}
        wanted = "sqlite:////path/to/file or postgres://user:password@host:5432/database"
        return self._read(name, default, _database, wanted, secret=True)

    def need_extra(self, extra: str, name: str, modules: Iterable[str]) -> None:
        """Records a problem if the setting `name` needs modules that only `extra` installs."""
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            self.problems.append(
                f"{name} needs {' and '.join(missing)}, which is not installed: "
                f'pip install "agentcom[{extra}]".'
            )

    def refuse(self) -> None:
        """Ends the program if a value is unusable: using the default would hide it."""
        if self.problems:
            stop(*self.problems)

    def _read(
        self, name: str, default: T, parse: Callable[[str], T], wanted: str, *, secret: bool = False
    ) -> T:
        self.defaults[name] = default
        raw = self.variables.get(name, "").strip()
        if not raw:
            return default
        try:
            return parse(raw)
        except ValueError:
            shown = "its value" if secret else repr(raw)
            self.problems.append(f"{name}: {shown} is not {wanted}.")
            return default


class WithoutTraceback(logging.Filter):
    """Log requests that Django refuses in one line: the client's mistake needs no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security."):
            record.exc_info = record.exc_text = None
        return True


def stop(*problems: str) -> NoReturn:
    """Ends the program with messages for a person instead of a traceback."""
    raise SystemExit(start_refusal(*problems))


def start_refusal(*problems: str) -> str:
    lines = [f"  {problem}" for problem in problems]
    return "\n".join(["AgentCom cannot start:", *lines, "See docs/configuration.md."])


def own_names(host: str) -> list[str]:
    """The host names of a hub that listens on `host`, as browsers send them."""
    names = ["localhost", "127.0.0.1", "[::1]"]
    name = f"[{host}]" if ":" in host else host
    return names if name in (*names, "0.0.0.0", "[::]") else [*names, name]


def _finite(raw: str) -> float:
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError(raw)
    return value


def _flag(raw: str) -> bool:
    if raw.lower() not in YES | NO:
        raise ValueError(raw)
    return raw.lower() in YES


def _words(raw: str) -> list[str]:
    return [word for part in raw.split(",") if (word := part.strip())]


def _numbers(raw: str) -> list[float]:
    return [_finite(word) for word in _words(raw)]


def _one_of(choices: Sequence[str], raw: str) -> str:
    for choice in choices:
        if choice.lower() == raw.lower():
            return choice
    raise ValueError(raw)


def _path_prefix(raw: str) -> str:
    prefix = raw.rstrip("/")
    names = prefix.split("/")[1:]
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", prefix) or {".", ".."} & set(names):
        raise ValueError(raw)
    if names and names[0] in OWN_PATHS:  # it would be ambiguous with the hub's own paths
        raise ValueError(raw)
    return prefix


def _time_zone(raw: str) -> str:
    try:
        zoneinfo.ZoneInfo(raw)
    except (OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise ValueError(raw) from error
    return raw


def _database(raw: str) -> dict[str, Any]:
    scheme, mark, rest = raw.partition("://")
    if not mark or scheme not in ("sqlite", "postgres", "postgresql") or not rest:
        raise ValueError(scheme)
    address: dict[str, Any] = Env.db_url_config(raw)
    # A database in memory belongs to one thread, and the hub has several.
    if address["NAME"] in ("", ":memory:"):
        raise ValueError(scheme)
    return address
