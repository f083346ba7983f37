"""The address of a hub, in the forms in which people have it."""

from __future__ import annotations

from urllib.parse import urlsplit

DEFAULT = "http://127.0.0.1:4000"
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
# What people copy from the browser or from older clients ends in one of these.
KNOWN_PATHS = ("/ws/dashboard", "/ws/tasks", "/ws", "/dashboard", "/api")


def base(url: str) -> str:
    """`http://HOST:PORT` with the path prefix, if there is one; without a slash at the end.

    Takes that address, the one of the dashboard, or the one of a socket (`ws://HOST:PORT/ws`).
    A scheme may be left out. Raises ValueError with a sentence.
    """
    text = url.strip()
    if "://" not in text:
        text = f"http://{text}"
    parts = urlsplit(text)
    scheme = SCHEMES.get(parts.scheme.lower())
    if scheme is None or not parts.hostname:
        raise ValueError(f"{url!r} is not the address of a hub, such as {DEFAULT}")
    path = parts.path.rstrip("/")
    for known in KNOWN_PATHS:
        if path.endswith(known):
            path = path.removesuffix(known)
            break
    return f"{scheme}://{parts.netloc}{path}"


def socket(url: str, path: str) -> str:
    """The address of the hub's socket at `path`, such as `/ws`."""
    return "ws" + base(url).removeprefix("http") + path
