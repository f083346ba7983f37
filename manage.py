#!/usr/bin/env python3
"""Runs AgentCom's commands: `python manage.py help` lists them."""

from agentcom.command import main

if __name__ == "__main__":
    main()
