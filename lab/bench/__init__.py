"""`manage.py bench`: what the hub can do, measured at a real hub through its sockets.

A scenario starts hubs of its own, puts load on them from this process and gives figures; `report`
holds them against their bars. The load is written by hand (`clients.py`), because on a small
machine it shares the processor with the hub.
"""

SOMEBODY = "bulk"  # the capability that the servable half of a long queue needs
HELD = "held"  # the capability, with a hold on it, that half of the held tasks need
