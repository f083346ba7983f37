"""`doctor`: what lies between this machine and the hub, and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from agentcom_client import __version__, addresses, config
from agentcom_client.cli import exits
from agentcom_client.cli.output import GREEN, RED, YELLOW, coloured, print_json
from agentcom_client.config import ConfigError

TIMEOUT_S = 10.0
CLOCK_S = 2.0  # so much may clocks differ
COLOURS = {"ok": GREEN, "warning": YELLOW, "fault": RED}


@dataclass
class Finding:
    check: str
    state: str  # ok, warning or fault
    message: str
    code: int = exits.OK  # the exit code, if this is a fault


class Fault(Exception):
    """The check has failed, and those after it would be of no use."""

    def __init__(self, check: str, message: str, code: int) -> None:
        super().__init__(message)
        self.finding = Finding(check, "fault", message, code)


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check the connection to the hub",
        description="Checks address, token, clock, versions, and whether WebSockets get through;"
        " says what to do about what is wrong.",
    )
    parser.add_argument(
        "--idle", type=float, default=0, metavar="S",
        help="keep a socket idle for so long: some proxies close it after a minute",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="findings as JSON, one a line")
    parser.set_defaults(run=lambda options: asyncio.run(_doctor(options)))


async def _doctor(options: argparse.Namespace) -> int:
    code = exits.OK
    async for finding in _findings(options.idle):
        if options.json:
            print_json({k: v for k, v in asdict(finding).items() if k != "code"})
        else:
            state = coloured(f"{finding.state:<8}", COLOURS[finding.state])
            print(f"{state} {finding.check:<8} {finding.message}", flush=True)
        code = max(code, finding.code)
    return code


async def _findings(idle_s: float) -> Any:
    try:
        urls, token = config.addresses_and_token(None, None)
    except ConfigError as error:
        yield Finding("token", "fault", str(error), exits.NOT_ACCEPTED)
        return
    for url in urls:
        headers = {"Authorization": f"Bearer {token}"}
        fresh = httpx.Limits(max_keepalive_connections=0)  # each check for itself
        async with httpx.AsyncClient(
            base_url=url, headers=headers, timeout=TIMEOUT_S, limits=fresh
        ) as http:
            try:
                yield await _address(http, url)
                who, finding = await _token(http)
                yield finding
                if who is not None:
                    yield _clock(who)
                    yield _versions(who)
                for path in ("/ws", "/ws/tasks"):
                    yield await _upgrade(url, path)
                yield await _pings(url, token, idle_s)
            except Fault as fault:
                yield fault.finding


async def _address(http: httpx.AsyncClient, url: str) -> Finding:
    began = time.monotonic()
    try:
        answer = await http.get("/health")
    except httpx.ConnectError as error:
        advice = f"{url} cannot be reached ({error}). Is the hub running there? Is the port right?"
        raise Fault("address", advice, exits.UNREACHABLE) from error
    except httpx.HTTPError as error:
        why = (str(error) or type(error).__name__).rstrip(".")
        raise Fault("address", f"{url} does not answer: {why}.", exits.UNREACHABLE) from error
    took_ms = (time.monotonic() - began) * 1000
    said: Any = None
    with contextlib.suppress(ValueError):
        said = answer.json()
    if not isinstance(said, dict) or said.get("service") != "agentcom":
        message = f"something else than a hub answers at {url}, with HTTP {answer.status_code}."
        raise Fault("address", f"{message} Is the path right?", exits.UNREACHABLE)
    if answer.status_code != httpx.codes.OK:
        return Finding("address", "warning", f"{url} is a hub, but says: {said.get('detail')}")
    return Finding("address", "ok", f"{url} answers in {took_ms:.0f} ms")


async def _token(http: httpx.AsyncClient) -> tuple[dict[str, Any] | None, Finding]:
    sent = time.time()
    try:
        answer = await http.get("/api/whoami")
    except httpx.HTTPError as error:
        why = (str(error) or type(error).__name__).rstrip(".")
        raise Fault("token", f"the request got no answer: {why}.", exits.UNREACHABLE) from error
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        message = "the hub does not know this token. Run `agentcom-client login` with another one."
        raise Fault("token", message, exits.NOT_ACCEPTED)
    if answer.status_code == httpx.codes.NOT_FOUND:
        message = "the hub is older than 0.2 and does not say whose token it is."
        return None, Finding("token", "warning", message)
    if not answer.is_success:
        said = answer.text[:200]
        raise Fault("token", f"HTTP {answer.status_code}: {said}", exits.UNREACHABLE)
    who = answer.json()
    who["sent"], who["received"] = sent, time.time()
    return who, Finding("token", "ok", f"you are {who['name']}")


def _clock(who: dict[str, Any]) -> Finding:
    """By how much the two clocks differ at least: the hub's lies between sending and receiving."""
    at = who["timestamp"] / 1000
    off_s = max(who["sent"] - at, at - who["received"], 0.0)
    if off_s <= CLOCK_S:
        return Finding("clock", "ok", "this machine's clock and the hub's agree")
    way = "behind" if at > who["received"] else "ahead of"
    message = f"this machine's clock is {off_s:.0f} s {way} the hub's. Set one of them right (NTP):"
    return Finding("clock", "warning", f"{message} times such as --not-before will be off.")


def _versions(who: dict[str, Any]) -> Finding:
    hub, own = who["version"], __version__
    message = f"hub {hub}, client {own}"
    try:
        apart = [abs(a - b) for a, b in zip(_numbers(hub), _numbers(own), strict=True)]
    except ValueError:
        return Finding("version", "warning", f"{message}: cannot be compared")
    if apart[0] or apart[1] > 1:
        return Finding("version", "warning", f"{message}: update the older one")
    return Finding("version", "ok", message)


def _numbers(version: str) -> tuple[int, int]:
    first, second, *_ = version.split(".")
    return int(first), int(second)


async def _upgrade(url: str, path: str) -> Finding:
    try:
        async with connect(addresses.socket(url, path), open_timeout=TIMEOUT_S):
            return Finding("socket", "ok", f"{path} opens")
    except InvalidStatus as refused:
        status = refused.response.status_code
        if status == httpx.codes.UPGRADE_REQUIRED:
            why = "a proxy removes Upgrade from the handshake; let it pass (docs/operations.md)"
        elif status in (httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN):
            why = "the hub does not have it, or a proxy does not pass it on"
        else:
            why = "a proxy in between refuses it"
        message = f"{path} is refused with HTTP {status}: {why}."
        raise Fault("socket", message, exits.UNREACHABLE) from refused
    except (OSError, asyncio.TimeoutError, InvalidHandshake) as error:
        message = f"{path} does not open ({error}): a proxy may not know WebSocket."
        raise Fault("socket", message, exits.UNREACHABLE) from error


async def _pings(url: str, token: str, idle_s: float) -> Finding:
    began = time.monotonic()
    try:
        async with connect(addresses.socket(url, "/ws/tasks"), ping_interval=None) as socket:
            await socket.send(json.dumps({"type": "identify", "token": token}))
            await asyncio.wait_for(socket.recv(), TIMEOUT_S)
            if idle_s:
                await asyncio.sleep(idle_s)
            began = time.monotonic()
            await asyncio.wait_for(await socket.ping(), TIMEOUT_S)
    except ConnectionClosed as closed:
        after = time.monotonic() - began
        message = f"the socket was closed after {after:.0f} s ({closed}): raise the proxy's timeout"
        raise Fault("ping", f"{message} for idle connections.", exits.UNREACHABLE) from closed
    except asyncio.TimeoutError as error:
        message = "pings are not answered: a proxy holds frames back."
        raise Fault("ping", message, exits.UNREACHABLE) from error
    took_ms = (time.monotonic() - began) * 1000
    idle = f", after {idle_s:g} s of silence too" if idle_s else ""
    return Finding("ping", "ok", f"answered in {took_ms:.0f} ms{idle}")
