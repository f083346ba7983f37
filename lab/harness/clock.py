"""The clock of a host that some of the hub's processes run on, to be set while they run."""

from __future__ import annotations

import struct
from pathlib import Path

SHIFTED = Path(__file__).with_name("shifted")


class HostClock:
    """`environment` leads processes to it; those that share it are on one host."""

    def __init__(self, file: Path, ahead_s: float = 0) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(struct.pack("d", ahead_s))

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(SHIFTED), "SHIFT_FILE": str(self._file)}

    @property
    def ahead_s(self) -> float:
        seconds: float
        (seconds,) = struct.unpack("d", self._file.read_bytes())
        return seconds

    def set_ahead(self, seconds: float) -> None:
        """Of the right time. In place: the processes have the file mapped."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("d", seconds))
