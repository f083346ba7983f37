"""How much clients may send and how slowly, and how much may wait for them. On every server."""

from __future__ import annotations

from agentcom.api import ARRAY_LIMIT

# --- Requests

MAX_HEAD = 16 * 1024  # bytes of the request line and all headers
FREE_BODY = 64 * 1024  # bytes of a body that are read from anybody; more only from known callers
MAX_BODY = ARRAY_LIMIT
IDLE_S = 60  # for a connection without a request
HEAD_S = 30  # from the first byte of a request to the end of its headers
BODY_S = 30  # for a body, plus the time that its size takes at the slowest rate
SLOWEST = 64 * 1024  # bytes a second
LINGER_S = 5  # discard what a refused client still sends, so that it can read the response

# --- Sockets

MAX_FRAME = 256 * 1024  # bytes a client may send at once
MAX_BACKLOG = 4 * 1024 * 1024  # bytes queued for a client that has stopped reading
FRAME_COST = 64  # bytes that an outgoing frame takes besides its content
# Of one socket, what may wait to be handled. Beyond that, nothing is read from it until half of it
# has been handled.
MAX_WAITING_FRAMES, MAX_WAITING_BYTES = 64, 4 * MAX_FRAME
# Handled frames of one socket, before the other connections get their turn.
FRAMES_IN_A_ROW = 16
# How long a client has to receive what is queued for it and the close frame; then its connection is
# aborted. autobahn rounds down to a full second, so it may be up to one second less. With
# autobahn's default of 1 s that was often no time at all, and the close frame was never sent.
CLOSE_TIMEOUT_S = 2
