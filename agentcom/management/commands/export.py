"""`manage.py export`: the tasks or the audit trail, for people who want to keep more than the hub
does."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agentcom.audit import lines as audit_lines
from agentcom.database import consistent_read
from agentcom.faults import refuse_schema
from tasks import export
from tasks.models import Status


class Command(BaseCommand):
    help = (
        "Writes tasks as JSON lines or CSV, in the order in which they were submitted; or the "
        "audit trail as JSON lines, oldest first."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "which", nargs="?", choices=["tasks", "audit"], default="tasks", help="tasks by default"
        )
        parser.add_argument(
            "--output", type=Path, metavar="FILE", help="instead of standard output"
        )
        parser.add_argument("--format", choices=["json", "csv"], default="json")
        parser.add_argument("--status", choices=Status.values, help="only tasks with this status")
        parser.add_argument(
            "--since",
            type=_moment,
            metavar="TIME",
            help="only tasks that were created, or entries that were written, then or later: "
            "2030-01-31 or 2030-01-31T12:00:00Z, UTC if it names no zone",
        )
        parser.add_argument("--until", type=_moment, metavar="TIME", help="only those from before")
        parser.add_argument(
            "--history",
            action="store_true",
            help="add each task's history, as far back as the journal is kept; JSON only",
        )
        parser.add_argument(
            "--with-secrets",
            action="store_true",
            help="keep what AGENTCOM_REDACT masks in tasks otherwise",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["history"] and options["format"] == "csv":
            raise CommandError("A history does not fit into a row: --history needs JSON.")
        if options["which"] == "audit":
            _refuse_options_of_tasks(options)
        refuse_schema()
        with consistent_read():
            lines = _audit(options) if options["which"] == "audit" else _tasks(options)
            if options["output"]:
                _write_file(options["output"], lines)
            else:
                _write_stdout(lines)


def _refuse_options_of_tasks(options: dict[str, Any]) -> None:
    if options["status"] or options["history"] or options["with_secrets"]:
        raise CommandError("--status, --history and --with-secrets are for tasks.")
    if options["format"] == "csv":
        raise CommandError("The audit trail is exported as JSON only.")


def _audit(options: dict[str, Any]) -> Iterable[bytes]:
    return audit_lines.json_lines(audit_lines.matching(options["since"], options["until"]))


def _tasks(options: dict[str, Any]) -> Iterable[bytes]:
    tasks = export.matching(options["status"], options["since"], options["until"])
    if options["format"] == "csv":
        return export.csv_lines(tasks, options["with_secrets"])
    return export.json_lines(tasks, options["history"], options["with_secrets"])


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(f"{text} is no time in ISO 8601, as 2030-01-31T12:00:00Z") from None


def _write_file(output: Path, lines: Iterable[bytes]) -> None:
    """Under another name until it is complete. Only its owner may read it."""
    target = output.resolve()  # a link stays one
    if target.exists() and not target.is_file():
        raise CommandError(f"{output} is not a file.")
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=".partial", delete=False
        ) as partial:
            try:
                _write(partial, lines)
                os.fsync(partial.fileno())
                Path(partial.name).replace(target)
            except BaseException:
                Path(partial.name).unlink()
                raise
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {error.strerror}.") from None


def _write_stdout(lines: Iterable[bytes]) -> None:
    try:
        _write(sys.stdout.buffer, lines)
    except OSError as error:
        # Python writes what is left once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # its reader has read enough
            sys.exit(128 + signal.SIGPIPE)
        raise CommandError(f"Standard output cannot be written: {error.strerror}.") from None


def _write(out: IO[bytes], lines: Iterable[bytes]) -> None:
    out.writelines(lines)
    out.flush()
