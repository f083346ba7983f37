"""The audit trail: what people, operators and the command line did or tried, from where, and why.

- `entries.py`: what an entry says, and the commands that add one. The table is
  `agentcom.models.AuditEntry`.
- `acting.py`: runs a command so that its entry is committed with it, or says why it was refused.
- `gathered.py`: what anybody can cause without rights (wrong tokens, refused calls) is counted in
  memory and written once a minute.
- `typed.py`: users that are made or changed on the command line.
- `lines.py`: the trail as JSON lines, for `manage.py export audit`.
"""
