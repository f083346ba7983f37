"""Gives the wheel the dependencies that requirements*.in name, each with its reason there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# The client of the same repository, whose version may differ from the hub's by one.
CLIENT = "agentcom-client>=0.2,<0.4"
EXTRAS = ("postgres", "redis", "uvicorn")


class Requirements(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        metadata["dependencies"] = [CLIENT, *self._read("requirements.in")]
        metadata["optional-dependencies"] = {
            extra: self._read(f"requirements-{extra}.in") for extra in EXTRAS
        }

    def _read(self, name: str) -> list[str]:
        lines = Path(self.root, name).read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]
