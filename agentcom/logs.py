"""Log records as JSON, for programs that collect logs.

Written here rather than taken from python-json-logger: a formatter is these few lines, and what a
collector can rely on (these fields and no others, each on every server) is the hub's own promise.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from agentcom.redaction import masked_text


class JsonLines(logging.Formatter):
    """Each record, without secrets, as one line with an object: `time` (RFC 3339, UTC, ms),
    `level`, `logger`, `message`, `process` (its id), and `traceback` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        # Only ASCII, because what standard error can encode depends on the system, and what it
        # cannot would be escaped in a way that is no JSON.
        return json.dumps(self._fields(record))

    def _fields(self, record: logging.LogRecord) -> dict[str, str | int | None]:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, str | int | None] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": masked_text(record.getMessage()),
            "process": record.process,
        }
        if traceback := self._traceback(record):
            fields["traceback"] = masked_text(traceback)
        return fields

    def _traceback(self, record: logging.LogRecord) -> str:
        """Of an exception, or of where the line was logged if that was asked for."""
        raised = record.exc_text or ""
        if not raised and record.exc_info:
            raised = self.formatException(record.exc_info)
        stack = self.formatStack(record.stack_info) if record.stack_info else ""
        return "\n".join(filter(None, (raised, stack)))
