"""What the hub needs of the server that runs it, and how Daphne and uvicorn give it that.

Nothing outside this folder knows which server runs, except the command that starts it.

1. `running.py`: which server runs this process. `asgi.py` and `sockets.py` ask it.
2. `limits.py`: how much a client may send and how slowly, the same for both.
3. `refusals.py`: what a server answers by itself, before the application sees the request.
4. `connection.py`: one socket's connection: what waits in both directions, and how it is closed.
5. `daphne*.py` and `uvicorn*.py`: the two servers.
"""
