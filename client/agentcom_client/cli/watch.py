"""`watch`: the fleet in a terminal, live from the dashboard's socket."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import sys
import time
from collections import deque
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from agentcom_client import addresses, config
from agentcom_client.cli import exits
from agentcom_client.cli.output import (
    BOLD,
    BY_STATUS,
    DIM,
    GREEN,
    RED,
    YELLOW,
    age,
    coloured,
    complain,
    cut,
    is_terminal,
    line,
    padded,
    print_json,
)
from agentcom_client.patches import fold

LARGEST_FRAME = 64 * 1024 * 1024  # a snapshot of many thousand agents
REDRAW_S = 0.25
LONGEST_DELAY_S = 10.0
EVENTS = 8  # shown below the agents
LIGHTS = {"ok": GREEN, "warning": YELLOW, "critical": RED}
# Those that are of interest come first.
STATES = ("unresponsive", "stopping", "blocked", "working", "assigned", "idle")
LOST = (OSError, asyncio.TimeoutError, InvalidHandshake, ConnectionClosed)


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "watch",
        help="watch the fleet, live",
        description="Shows health, queue, agents and events, live. Without a terminal, prints the"
        " events. Needs a hub whose dashboard is open to everybody who reaches it.",
    )
    parser.add_argument("--once", action="store_true", help="show it once and end")
    parser.add_argument("--json", action="store_true", help="print events as JSON, one a line")
    parser.set_defaults(run=lambda options: asyncio.run(_watch(options)))


async def _watch(options: argparse.Namespace) -> int:
    urls, _ = config.addresses_and_token(None, "none is needed")
    url = addresses.socket(urls[0], "/ws/dashboard")
    fleet = Fleet(urls[0])
    is_screen = is_terminal() and not options.json and not options.once
    lost_in_a_row = 0
    with _screen() if is_screen else contextlib.nullcontext():
        while True:
            try:
                async with connect(url, open_timeout=10, max_size=LARGEST_FRAME) as socket:
                    lost_in_a_row = 0
                    if await _follow(socket, fleet, options, is_screen):
                        return exits.OK
            except InvalidStatus as refused:
                if refused.response.status_code == 403:
                    complain(
                        "This hub shows its dashboard only to staff who are logged in. `tasks` and"
                        " `show` work with a token."
                    )
                    return exits.NOT_ACCEPTED
                lost: Exception = refused
            except LOST as gone:
                lost = gone
            if options.once:
                complain(f"{urls[0]} does not answer: {lost}")
                return exits.UNREACHABLE
            fleet.lost = f"no connection to {urls[0]}: {lost}"
            if is_screen:
                fleet.draw()
            elif not lost_in_a_row:
                complain(fleet.lost)
            lost_in_a_row += 1
            await asyncio.sleep(random.uniform(0.2, min(LONGEST_DELAY_S, 2**lost_in_a_row)))


async def _follow(
    socket: ClientConnection, fleet: Fleet, options: argparse.Namespace, is_screen: bool
) -> bool:
    """Whether that was all."""
    await socket.send(json.dumps({"type": "subscribe", "patches": True}))
    drawing = asyncio.ensure_future(_draw(fleet)) if is_screen else None
    try:
        async for frame in socket:
            message = json.loads(frame)
            events = fleet.hear(message)
            if options.once:
                fleet.draw(whole=True)
                return True
            if not is_screen:
                for event in events:
                    print_json(event) if options.json else print(in_words(event), flush=True)
                sys.stdout.flush()
    finally:
        if drawing is not None:
            drawing.cancel()
    return False


async def _draw(fleet: Fleet) -> None:
    while True:
        fleet.draw()
        await asyncio.sleep(REDRAW_S)


@contextlib.contextmanager
def _screen() -> Any:
    """The terminal's other screen, without a cursor; what was there before comes back."""
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


class Fleet:
    """What the hub has told."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._state: dict[str, Any] | None = None
        self._events: deque[dict[str, Any]] = deque(maxlen=200)
        self._drawn = ""
        self.lost = "connecting …"

    def hear(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """The events that are new."""
        self.lost = ""
        match message:
            case {"type": "snapshot", "data": state}:
                self._state = state
            case {"type": "patch"} if self._state is not None:
                self._state = fold(self._state, message)
            case {"type": "events", "data": events}:
                now = int(time.time() * 1000)
                told = [{"timestamp": now, **event} for event in events]
                self._events.extend(told)
                return told
            case {"type": "session_ended"}:
                raise OSError("the session has ended")
        return []

    def draw(self, whole: bool = False) -> None:
        """On the terminal; `whole`: all of it, however long, without erasing what is there."""
        size = shutil.get_terminal_size((100, 24))
        lines = self._lines(size.columns, 10_000 if whole else size.lines)
        if whole:
            print("\n".join(lines))
            return
        drawn = "\x1b[H" + "\x1b[K\n".join(lines) + "\x1b[K\x1b[J"
        if drawn != self._drawn:
            self._drawn = drawn
            sys.stdout.write(drawn)
            sys.stdout.flush()

    def _lines(self, columns: int, rows: int) -> list[str]:
        state = self._state
        if state is None:
            return [cut(self.lost, columns)]
        head = self._head(state, columns)
        events = [cut(in_words(event), columns) for event in list(self._events)[-EVENTS:]]
        foot = ["", coloured("events", BOLD), *events] if events else []
        room = max(1, rows - len(head) - len(foot) - 3)
        return [*head, "", *_agents(state, columns, room), *foot][:rows]

    def _head(self, state: dict[str, Any], columns: int) -> list[str]:
        health, queue, done = state["health"], state["queue"], state["throughput"]
        light = coloured("●", LIGHTS.get(health["status"]))
        title = f"{light} {coloured('AgentCom', BOLD)} {self._url}"
        if self.lost:
            title += "  " + coloured(line(self.lost), RED)
        counts = queue["by_status"]
        now = (
            f"{len(state['agents'])} agents · {counts['queued']} queued"
            f" · {counts['scheduled']} scheduled · {counts['assigned']} running"
            f" · {queue['dead_letter']} dead letters"
        )
        hour = f"{done['completed_last_hour']} done, {done['failed_last_hour']} failed"
        said = [
            coloured(cut(f"  {line(detail['message'])}", columns), LIGHTS[detail["severity"]])
            for detail in health["details"]
        ]
        held = [
            coloured(cut(f"  on hold: {_held(hold)}", columns), YELLOW) for hold in state["holds"]
        ]
        facts = [cut(f"  {each}", columns) for each in (now, f"in the last hour: {hour}")]
        return [title, *facts, *said, *held]


def _agents(state: dict[str, Any], columns: int, room: int) -> list[str]:
    agents = sorted(
        state["agents"],
        key=lambda agent: (STATES.index(agent["fsm_state"]), agent["agent_id"]),
    )
    if not agents:
        return [coloured("No agent is connected.", DIM)]
    shown = agents if len(agents) <= room else agents[: room - 1]
    width = min(40, max(len(line(agent["agent_id"])) for agent in shown))
    now = state["timestamp"]
    head = (
        f"{padded('AGENT', width)}  {'STATE':<12}  {'SINCE':<6}  {'DONE':>5}  {'FAILED':>6}  TASK"
    )
    lines = [coloured(cut(head, columns), BOLD)]
    for agent in shown:
        word = agent["fsm_state"]
        before = padded(cut(line(agent["agent_id"]), width), width)
        since = age(agent["last_state_change"], max(now, time.time() * 1000))
        after = (
            f"  {since:<6}  {agent['completed_this_hour']:>5}  {agent['failed_this_hour']:>6}"
            f"  {line(agent['current_task_title'] or '')}"
        )
        rest = cut(after, columns - width - 14)
        lines.append(f"{before}  {coloured(f'{word:<12}', BY_STATUS.get(word))}{rest}")
    if len(shown) < len(agents):
        lines.append(coloured(f"… and {len(agents) - len(shown)} more", DIM))
    return lines


def _held(hold: dict[str, Any]) -> str:
    what = "the hub" if hold["scope"] == "hub" else f"{hold['scope']} {hold['subject']}"
    return line(f"{what}: {hold['reason']}")


def in_words(event: dict[str, Any]) -> str:
    """An event as one line."""
    at = time.strftime("%H:%M:%S", time.localtime(event["timestamp"] / 1000))
    kind = event.get("event", event["type"]).removeprefix("task_").replace("_", " ")
    who = event.get("agent_id") or event.get("actor") or ""
    said = next(
        (
            str(event[name])
            for name in ("title", "error", "message", "reason", "status")
            if event.get(name)
        ),
        "",
    )
    if hold := event.get("hold"):
        said = _held(hold)
    return line(f"{at} {kind}").ljust(28) + line(f"{event.get('task_id', '')} {who} {said}")
