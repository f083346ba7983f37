"""Frames to clients, as bytes (RFC 6455, section 5.2)."""

from __future__ import annotations

_FINAL_TEXT = 0x81  # the first byte of a text frame that is no part of a longer message


def text_frame(payload: bytes) -> bytes:
    """Not masked, as all frames of a server."""
    size = len(payload)
    if size < 126:
        return bytes((_FINAL_TEXT, size)) + payload
    if size < 65_536:
        return bytes((_FINAL_TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_FINAL_TEXT, 127)) + size.to_bytes(8, "big") + payload
