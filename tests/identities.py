"""Agents whose tokens the tests know, so that no process has to issue them for each hub. They are
operators' tokens: a test may do everything with them.

    python -m tests.identities

issues them in the database that the environment leads to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

FILL = ("-m", "tests.identities")  # what a `Hub` or `Cluster` is filled by
COUNT = 400


def known_identities() -> Iterator[tuple[str, str]]:
    """As (agent id, token), in the order of their names."""
    for number in range(COUNT):
        agent_id = f"agent-{number:03}"
        yield agent_id, f"token-of-{agent_id}"


def main() -> None:
    from agentcom.rights import Grant, TokenKind
    from agentcom.writer import writer
    from fleet.presence import hash_of
    from fleet.tokens import CreateTokens

    hashes = {agent_id: hash_of(token) for agent_id, token in known_identities()}
    writer.commit([CreateTokens(hashes, Grant(TokenKind.OPERATOR))])


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentcom.settings")
    import django

    django.setup()
    main()
