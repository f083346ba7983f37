"""`manage.py torture`: does violence to a hub of its own and checks that it keeps its promises.

`plan` says what is done and when; `clients` and `agents` work for the hub and misbehave;
`processes` are hurt and watched; `ledger` keeps what the hub promised; `truth` what is wrong, to
hold against the light; `audit` reads the hub's database and says which promise is broken; `ordeal`
is the whole, step by step.
"""
