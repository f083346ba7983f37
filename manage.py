#!/usr/bin/env python3
"""Runs AgentCom's commands: `python manage.py help` lists them."""

import os
import sys

from agentcom.signals import end_at_once


def main() -> None:
    if sys.argv[1:2] in (["hub"], ["runworker"]):
        end_at_once()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentcom.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit(
            "Django is not installed for this Python. `make run` installs everything it needs."
        )
    try:
        execute_from_command_line(sys.argv)
    except Exception as error:
        from agentcom.config import stop
        from agentcom.faults import database_fault

        fault = database_fault(error)
        if fault is None or "--traceback" in sys.argv:
            raise
        stop(fault)


if __name__ == "__main__":
    main()
