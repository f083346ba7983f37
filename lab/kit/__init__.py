"""Clients of a hub, for tests, `manage.py bench` and `manage.py torture`.

Those of `sockets`, `agent` and `viewer` cost little; a `Fleet` runs agents of `agentcom_client`.
"""
