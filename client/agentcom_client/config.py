"""Where the address and the token come from.

1. arguments,
2. the environment: `AGENTCOM_URL` and `AGENTCOM_TOKEN`,
3. the file that `agentcom-client login` writes, readable by its owner only.

A token in the file is used for the file's own address only: it is never sent to another hub.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentcom_client import addresses

URL, TOKEN, FILE = "AGENTCOM_URL", "AGENTCOM_TOKEN", "AGENTCOM_CONFIG"


class ConfigError(Exception):
    """There is no token, or what was given cannot be used; a sentence for people."""


@dataclass(frozen=True)
class Login:
    url: str
    token: str


def path() -> Path:
    """The file of `login`: `AGENTCOM_CONFIG`, or `agentcom/client.json` in the user's own folder
    for configuration."""
    if named := os.environ.get(FILE):
        return Path(named).expanduser()
    home = os.environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "agentcom" / "client.json"


def load() -> Login | None:
    """What `login` saved. Raises `ConfigError` when the file cannot be read."""
    file = path()
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        return Login(addresses.base(saved["url"]), str(saved["token"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read ({error!r}); log in again") from error


def save(login: Login) -> Path:
    """Replace the file as a whole; its mode is 600. Raises `ConfigError` when it cannot be."""
    file = path()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=".client-", dir=file.parent)  # mode 600
        with os.fdopen(handle, "w", encoding="utf-8") as written:
            json.dump({"url": login.url, "token": login.token}, written, indent=2)
            written.write("\n")
        os.replace(draft, file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    return file


def addresses_and_token(
    url: str | Sequence[str] | None,
    token: str | None,
    environment: Mapping[str, str] = os.environ,
) -> tuple[list[str], str]:
    """The hub's addresses, at least one, and the token. Raises `ConfigError`."""
    given = [url] if isinstance(url, str) else list(url or ())
    given = given or environment.get(URL, "").split()
    token = token or environment.get(TOKEN, "").strip()
    try:
        urls = [addresses.base(each) for each in given]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if urls and token:
        return urls, token
    saved = load()
    if not urls:
        urls = [saved.url if saved else addresses.DEFAULT]
    if not token and saved is not None and saved.url in urls:
        token = saved.token
    if not token:
        raise ConfigError(
            f"There is no token for {urls[0]}. Run `agentcom-client login`, or set {TOKEN}."
            " `agentcom token create NAME` makes one, where the hub runs."
        )
    return urls, token
