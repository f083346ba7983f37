"""The fleet's state in memory: read from the database once, then kept up to date with the journal.

`part.py` says what a part is; each of the other files has one: `agents.py`, `queue.py`,
`throughput.py`, `newest.py` (completions and dead letters) and `holds.py`. `whole.py` reads and
updates all of them together.
"""
