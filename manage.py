#!/usr/bin/env python3
"""Runs AgentCom's commands: `python manage.py help` lists them."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentcom.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit(
            "Django is not installed for this Python. `make run` installs everything it needs."
        )
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
