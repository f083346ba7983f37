"""`manage.py torture`: does violence to a hub of its own and checks that it keeps its promises.

`plan` says what is done and when; `fleet` works for the hub and misbehaves; `ledger` keeps what the
hub promised to the fleet; `audit` reads the hub's database and says which promise is broken;
`ordeal` starts the hub, does the violence and asks for the audits.
"""
