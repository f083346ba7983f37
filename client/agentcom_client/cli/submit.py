"""`submit`: queue one task, or many from a file, and wait for them if asked to."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentcom_client.cli import exits
from agentcom_client.cli.output import Progress, complain, print_json
from agentcom_client.errors import Invalid
from agentcom_client.hub import AsyncHub
from agentcom_client.info import TaskInfo
from agentcom_client.text import plain


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "submit",
        help="queue a task",
        description="Queues a task and prints its id; with --wait, prints its result and exits by"
        " how it ended.",
    )
    parser.add_argument(
        "description", nargs="?", help="what is to be done; - reads it from standard input"
    )
    parser.add_argument("--priority", help="urgent, high, normal or low")
    parser.add_argument(
        "--capability",
        action="append",
        dest="needed_capabilities",
        metavar="WORD",
        help="what the agent must be able to do; may be repeated",
    )
    parser.add_argument(
        "--metadata",
        action="append",
        metavar="KEY=VALUE",
        help="passed to the agent; a value that is JSON is sent as such; may be repeated",
    )
    parser.add_argument("--assign-to", metavar="AGENT", help="only this agent gets it")
    parser.add_argument("--max-retries", type=int, metavar="N", help="how many attempts in all")
    parser.add_argument("--not-before", metavar="TIME", help="as 2030-01-31T12:00:00Z")
    parser.add_argument("--complete-by", metavar="TIME", help="as 2030-01-31T12:00:00Z")
    parser.add_argument("--run-timeout", type=float, dest="run_timeout_s", metavar="S")
    parser.add_argument("--idle-timeout", type=float, dest="idle_timeout_s", metavar="S")
    parser.add_argument(
        "--key", help="an Idempotency-Key: with the same one, a second call queues nothing"
    )
    parser.add_argument(
        "--batch-file",
        metavar="FILE",
        help="one task a line, a JSON object of the API's fields or a JSON string; - reads standard"
        " input. The other options apply to tasks that do not have the field",
    )
    parser.add_argument("--wait", action="store_true", help="until it has ended; print the result")
    parser.add_argument("--timeout", type=float, metavar="S", help="with --wait: at most so long")
    parser.add_argument("--json", action="store_true", help="print tasks as JSON, one a line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if (options.description is None) == (options.batch_file is None):
        complain("Give a description, or - to read it, or --batch-file.")
        return exits.USAGE
    try:
        fields = _fields(options)
        tasks = list(_batch(options.batch_file, fields)) if options.batch_file else None
    except (OSError, ValueError) as error:
        complain(str(error))
        return exits.USAGE
    if tasks is None:
        return asyncio.run(_one(options, fields))
    return asyncio.run(_many(options, tasks))


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    names = (
        "priority", "needed_capabilities", "assign_to", "max_retries", "not_before", "complete_by",
        "run_timeout_s", "idle_timeout_s",
    )  # fmt: skip
    fields = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.metadata:
        fields["metadata"] = dict(map(_pair, options.metadata))
    if options.description is not None:
        text = sys.stdin.read() if options.description == "-" else options.description
        fields["description"] = text
    return fields


def _pair(given: str) -> tuple[str, Any]:
    key, mark, value = given.partition("=")
    if not mark or not key:
        raise ValueError(f"--metadata {given}: is not KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _batch(file: str, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            task = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: is not JSON: {error}") from error
        if isinstance(task, str):
            task = {"description": task}
        if not isinstance(task, dict):
            raise ValueError(f"{file}, line {number}: must be a JSON object or a JSON string")
        yield {**fields, **task}


async def _one(options: argparse.Namespace, fields: dict[str, Any]) -> int:
    async with AsyncHub() as hub:
        task_id = await hub.submit(**fields, idempotency_key=options.key)
        if not options.wait:
            print_json({"id": task_id}) if options.json else print(task_id)
            return exits.OK
        try:
            task = await hub.wait(task_id, options.timeout)
        except BaseException:  # whatever ends the waiting, the task goes on
            complain(f"No longer waiting for {task_id}.")
            raise
    if options.json:
        print_json(task.raw)
    elif task.status == "completed":
        print(_shown(task.result or {}))
    else:
        print_failure(task)
    return exits.of_task(task)


async def _many(options: argparse.Namespace, tasks: list[dict[str, Any]]) -> int:
    async with AsyncHub() as hub:
        try:
            ids = await hub.submit_many(tasks, idempotency_key=options.key)
        except Invalid as error:
            if error.submitted:
                complain(f"The first {len(error.submitted)} tasks are queued, the others are not.")
            if error.index is not None:
                complain(f"Task {error.index + 1} of the file is refused.")
            raise
        if not options.wait:
            for task_id in ids:
                print_json({"id": task_id}) if options.json else print(task_id)
            return exits.OK
        return await _wait(hub, ids, options)


async def _wait(hub: AsyncHub, ids: list[str], options: argparse.Namespace) -> int:
    bar = Progress(len(ids), "ended")
    worst, failed, done = exits.OK, 0, 0
    bar.show(0)

    async def follow() -> None:
        nonlocal worst, failed, done
        async for task in hub.as_ended(ids):
            done += 1
            code = exits.of_task(task)
            failed += code != exits.OK
            worst = exits.FAILED if exits.FAILED in (worst, code) else max(worst, code)
            bar.end()
            if options.json:
                print_json(task.raw)
            else:
                said = _shown(task.result or {}) if code == exits.OK else _why(task)
                print(f"{task.id}\t{task.status}\t{' '.join(said.split())}")
            bar.show(done, f"· {failed} without a result" if failed else "")

    try:
        await asyncio.wait_for(follow(), options.timeout)
    finally:
        bar.end()
    return worst


def print_failure(task: TaskInfo) -> None:
    complain(f"{task.id} is {task.status.replace('_', ' ')}: {_why(task)}")


def _why(task: TaskInfo) -> str:
    return plain(task.cancel_reason or task.last_error or "no reason was given")


def _shown(result: dict[str, Any]) -> str:
    """A text as it is, everything else as JSON."""
    if isinstance(text := result.get("text"), str):
        return plain(text)
    return json.dumps(result, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)
