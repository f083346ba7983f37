"""Hubs of our own for tests, `manage.py bench` and `manage.py torture`.

They run where this process's settings say: on SQLite in a folder, or, with `DATABASE_URL` on
PostgreSQL, in a new database on that server, which is dropped again. What else is set for a real
hub does not reach them, and its database is not touched.
"""
