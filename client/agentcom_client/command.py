"""Any command as work: a process for each task. The command line's `run` is made of this.

The task comes as JSON on standard input and as `AGENTCOM_TASK_…` variables, and in arguments in the
place of `{description}`, `{task_id}` and `{metadata.KEY}`. One argument stays one argument, and no
shell reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentcom_client import guard
from agentcom_client.connection import encode
from agentcom_client.errors import NoRetry, Reject, RetryAfter
from agentcom_client.slot import LARGEST_RESULT, Task
from agentcom_client.text import plain

PLACEHOLDER = re.compile(r"\{(description|task_id|metadata(?:\.[A-Za-z0-9_-]+)+)\}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Programs that read one of their arguments as code, with the options that say so.
INTERPRETERS = re.compile(
    r"((ba|da|z|k|c|tc|fi|a)?sh|python[\d.]*|pypy[\d.]*|perl|ruby|node|deno|bun|php|lua|pwsh|awk)"
)
CODE_OPTION = re.compile(r"-[A-Za-z]*[cCeErp]|--eval|--exec|--command|--print|-Command")
# The same in one argument: `python -c'…'`, `node --eval=…`
CODE_ATTACHED = re.compile(r"-[A-Za-z]*[cCeErp]|--(eval|exec|command|print)=")
# Programs that may read any of their arguments as code.
READS_CODE = frozenset(
    {"ssh", "su", "runuser", "eval", "awk", "gawk", "mawk", "xargs", "parallel", "watch", "script"}
)
SPLITS = re.compile(r"-[A-Za-z]*S|--split-string")  # an option of env, which runs what follows

KEPT_OUT = 256 * 1024  # bytes of standard output, the last ones
KEPT_ERR = 16 * 1024  # of standard error
CHUNK = 64 * 1024
PROGRESS_S = 1.0  # between two reports
LONGEST_MESSAGE = 500  # characters of one
LONGEST_ERROR = 3_500
ERROR_LINES = 20
POLL_S = 0.05
DRAIN_S = 1.0  # for what a command that has ended leaves in its pipes
GRACE_S = 10.0
RETRY_AFTER_S = 60.0
MAX_CANDIDATES = 1_000  # lines that may begin the result


class UnsafeCommand(ValueError):
    """A task's text would be read as code. A sentence for people."""


@dataclass
class Command:
    """Call it with a `Task`: the work of an `Agent`. `limit`s are in seconds.

    - `argv`: the program and its arguments; with `is_shell`, a single text for `/bin/sh`.
    - `timeout_s`: then it is stopped, and the attempt has failed.
    - `grace_s`: between SIGTERM and SIGKILL, which go to the whole process group.
    - `retry_later`, `reject`, `no_retry`: exit codes, see `_failure`. `retry_after_s`: how much
      later.
    - `folders`: each task gets a working directory of its own there, `TASK_ID`; it is kept, and a
      later attempt finds it again.
    - `allow_options`: an argument made of a task's text may begin with a dash.

    Raises `UnsafeCommand`.
    """

    argv: Sequence[str]
    is_shell: bool = False
    timeout_s: float | None = None
    grace_s: float = GRACE_S
    retry_later: Collection[int] = (75,)  # EX_TEMPFAIL of sysexits.h
    retry_after_s: float = RETRY_AFTER_S
    reject: Collection[int] = ()
    no_retry: Collection[int] = ()
    folders: Path | None = None
    allow_options: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def __post_init__(self) -> None:
        check(self.argv, self.is_shell)
        self._watch = Watch(self.grace_s)

    async def __call__(self, task: Task) -> dict[str, Any]:
        running = await self._start(task)
        self._watch.begun(running.group)
        try:
            return await self._follow(running, task)
        finally:
            await running.end(self.grace_s)
            self._watch.ended(running.group)

    async def _start(self, task: Task) -> Running:
        argv = ["/bin/sh", "-c", self.argv[0]] if self.is_shell else self._filled(task)
        folder = None
        if self.folders is not None:
            folder = self.folders / task.id
            folder.mkdir(parents=True, exist_ok=True)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env={**self.environment, **variables(task)},
                start_new_session=True,
            )
        except OSError as error:
            raise RuntimeError(f"{argv[0]} cannot be started: {error.strerror}") from error
        return Running(process, task)

    def _filled(self, task: Task) -> list[str]:
        program, *arguments = self.argv
        return [program, *(self._fill(argument, task) for argument in arguments)]

    def _fill(self, argument: str, task: Task) -> str:
        filled = PLACEHOLDER.sub(lambda found: _value(found[1], task), argument)
        if filled.startswith("-") and not argument.startswith("-") and not self.allow_options:
            raise NoRetry(
                f"{argument} begins with a dash in this task, and could be read as an option"
                " (--allow-options lets it pass)"
            )
        return filled

    async def _follow(self, running: Running, task: Task) -> dict[str, Any]:
        try:
            await asyncio.wait_for(running.exited(), self.timeout_s)
        except asyncio.TimeoutError:
            await running.stop(self.grace_s)
            raise RuntimeError(f"it took longer than {self.timeout_s:g} s") from None
        except asyncio.CancelledError:
            await running.stop(self.grace_s)
            if task.cancel is None:  # the agent stops: the task is given back
                raise
            return running.result()
        await running.drained()
        code = running.process.returncode or 0
        if code:
            raise self._failure(code, running)
        return running.result()

    def _failure(self, code: int, running: Running) -> Exception:
        error = f"{_ended_by(code)}\n{running.last_lines()}".strip()
        if code in self.retry_later:
            return RetryAfter(error, self.retry_after_s)
        if code in self.reject:
            return Reject(error)
        if code in self.no_retry:
            return NoRetry(error)
        return RuntimeError(error)


class Running:
    """One process, its group, and the ends of what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process, task: Task) -> None:
        self.process = process
        self.group = process.pid
        self.out, self.err = Tail(KEPT_OUT), Tail(KEPT_ERR)
        assert process.stdout is not None
        assert process.stderr is not None
        self._pipes = [
            asyncio.ensure_future(self.out.fill(process.stdout)),
            asyncio.ensure_future(self.err.fill(process.stderr)),
        ]
        self._helpers = [
            asyncio.ensure_future(self._hand_over(task)),
            asyncio.ensure_future(self._report(task)),
        ]

    async def exited(self) -> None:
        # Not `process.wait`: with some Pythons it also waits for the pipes, which what the command
        # has started may keep open.
        while self.process.returncode is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    async def drained(self) -> None:
        """What was printed before the exit has been read. What was started and is still there
        prints nothing more that counts."""
        await asyncio.wait(self._pipes, timeout=DRAIN_S)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace, to the whole group."""
        until = time.monotonic() + grace_s
        is_there = self._send(signal.SIGTERM)
        while is_there and time.monotonic() < until:
            await asyncio.sleep(POLL_S)
            is_there = self._send(0)
        self._send(signal.SIGKILL)
        await self.exited()
        await self.drained()

    async def end(self, grace_s: float) -> None:
        """Whatever happened: nothing of the group is left, and nothing waits for it."""
        for helper in self._helpers:
            helper.cancel()
        if self.process.returncode is None or self._send(0):
            await self.stop(min(grace_s, DRAIN_S))
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, *self._helpers, return_exceptions=True)
        transport = getattr(self.process, "_transport", None)
        if transport is not None:
            transport.close()

    def _send(self, number: int) -> bool:
        """Whether the group had a process."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)
            return True
        return False

    async def _hand_over(self, task: Task) -> None:
        """The task, on standard input; a command that does not read it is welcome too."""
        pipe = self.process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            pipe.write(encode(as_json(task)).encode() + b"\n")
            await pipe.drain()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            pipe.close()

    async def _report(self, task: Task) -> None:
        """What it prints is its progress. If it prints the same again, it goes on all the same."""
        seen, said = 0, ""
        while True:
            await asyncio.sleep(PROGRESS_S)
            printed = self.out.total + self.err.total
            if printed == seen:
                continue
            seen = printed
            message = self.out.last_line() or self.err.last_line()
            await task.progress(None, None if message == said else message)
            said = message

    def result(self) -> dict[str, Any]:
        """The last JSON object that was printed, or the text."""
        text = self.out.text()
        found = last_object(text)
        if found is not None:
            if "tokens_used" not in found and (tokens := _tokens_of(found)) is not None:
                found["tokens_used"] = tokens
            if len(encode(found)) <= LARGEST_RESULT:
                return found
        return _bounded(plain(text).strip(), self.out.total)

    def last_lines(self) -> str:
        """Of standard error, or of the output if there is nothing."""
        lines = plain(self.err.text() or self.out.text()).strip().splitlines()
        return "\n".join(lines[-ERROR_LINES:])[-LONGEST_ERROR:]


class Tail:
    """The end of a stream, of at most `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = bytearray()
        self.total = 0

    async def fill(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(CHUNK):
            self.total += len(chunk)
            self._kept += chunk
            if len(self._kept) > 2 * self._size:
                del self._kept[: -self._size]

    def text(self) -> str:
        return bytes(self._kept[-self._size :]).decode("utf-8", "replace")

    def last_line(self) -> str:
        """The last line that is not empty, cut."""
        end = bytes(self._kept[-4 * LONGEST_MESSAGE :]).decode("utf-8", "replace")
        lines = [found for each in plain(end).splitlines() if (found := each.strip())]
        return lines[-1][:LONGEST_MESSAGE] if lines else ""


class Watch:
    """Tells the guard (guard.py) which process groups there are; starts it with the first one."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._groups: set[int] = set()
        self._guard: subprocess.Popen[bytes] | None = None

    def begun(self, group: int) -> None:
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def ended(self, group: int) -> None:
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        if self._guard is None or self._guard.poll() is not None:
            self._guard = subprocess.Popen(  # noqa: S603 – our own program
                [sys.executable, "-I", "-S", guard.__file__, f"{self._grace_s:g}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            line = "".join(f"+{group}\n" for group in self._groups)
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the next one starts another guard
            self._guard.stdin.write(line.encode())
            self._guard.stdin.flush()


def check(argv: Sequence[str], is_shell: bool) -> None:
    """Raises `UnsafeCommand` where a task's text would be read as code: who may submit tasks must
    not be able to run commands on the machines of agents. Knows the usual programs, not all."""
    if is_shell:
        if len(argv) != 1:
            raise UnsafeCommand("--shell takes the command as a single argument")
        if PLACEHOLDER.search(argv[0]):
            raise UnsafeCommand(_IN_SHELL)
        return
    if PLACEHOLDER.search(argv[0]):
        raise UnsafeCommand("The program itself cannot come from a task, only its arguments.")
    names = [os.path.basename(argument) for argument in argv]
    has_interpreter = False
    for number, argument in enumerate(argv):
        has_interpreter = has_interpreter or bool(INTERPRETERS.fullmatch(names[number]))
        if not PLACEHOLDER.search(argument):
            continue
        before = argv[number - 1]
        is_code = has_interpreter and (
            CODE_OPTION.fullmatch(before) or CODE_ATTACHED.match(argument)
        )
        is_split = "env" in names[:number] and (SPLITS.fullmatch(before) or SPLITS.match(argument))
        if is_code or is_split or READS_CODE & set(names[:number]):
            raise UnsafeCommand(_IN_SHELL)


_IN_SHELL = (
    "A task's text would be run as code there. Use a variable in the place of the braces, such as"
    ' "$AGENTCOM_TASK_DESCRIPTION" in a shell, or read the task from standard input.'
)


def as_json(task: Task) -> dict[str, Any]:
    """What a command gets on standard input."""
    return {
        "task_id": task.id,
        "description": task.description,
        "metadata": task.metadata,
        "generation": task.generation,
        "assigned_at": task.assigned_at,
        "agent_id": task.agent.agent_id,
    }


def variables(task: Task) -> dict[str, str]:
    """`AGENTCOM_TASK_…`; each key of the metadata that can be a variable's name is one as well."""
    found = {
        "AGENTCOM_TASK_ID": task.id,
        "AGENTCOM_TASK_DESCRIPTION": task.description,
        "AGENTCOM_TASK_METADATA": _text(task.metadata),
        "AGENTCOM_TASK_GENERATION": str(task.generation),
        "AGENTCOM_TASK_ASSIGNED_AT": str(task.assigned_at),
        "AGENTCOM_TASK_AGENT": task.agent.agent_id,
    }
    for key, value in task.metadata.items():
        if VARIABLE.fullmatch(key):
            found[f"AGENTCOM_TASK_METADATA_{key}"] = _text(value)
    return found


def last_object(text: str) -> dict[str, Any] | None:
    """The last JSON object that begins at the beginning of a line."""
    decoder = json.JSONDecoder()
    end = len(text)
    for _ in range(MAX_CANDIDATES):
        start = text.rfind("{", 0, end)
        if start < 0:
            return None
        end = start
        if start and text[start - 1] not in "\r\n":
            continue
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _value(name: str, task: Task) -> str:
    if name == "description":
        return task.description
    if name == "task_id":
        return task.id
    value: Any = task.metadata
    for key in name.split(".")[1:]:
        if not isinstance(value, dict) or key not in value:
            raise NoRetry(f"the task has no {name}")
        value = value[key]
    return _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tokens_of(found: dict[str, Any]) -> int | None:
    """From a `usage` with input and output tokens, as the tools of several vendors print it."""
    usage = found.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("input_tokens"), usage.get("output_tokens")]
    return sum(counts) if all(type(count) is int for count in counts) else None  # type: ignore[arg-type]


def _bounded(text: str, total: int) -> dict[str, Any]:
    """The end of the text, as much as fits into a result."""
    result: dict[str, Any] = {"text": text}
    while len(encode(result)) > LARGEST_RESULT or (total > KEPT_OUT and len(result) == 1):
        size = len(encode(result))
        keep = len(text) * min(LARGEST_RESULT - 1_000, size) // size
        text = text[-keep:] if keep else ""
        left_out = max(0, total - len(text.encode("utf-8", "replace")))
        result = {"text": text, "left_out_bytes": left_out}
    return result


def _ended_by(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
