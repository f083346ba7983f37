"""AgentCom: a hub that hands tasks to AI agents and shows the fleet live."""

import sys
from pathlib import Path

__version__ = "0.2.0"

# In a checkout the rooms (tasks, fleet, …) are beside this package. A wheel has them inside it,
# because other programs of an environment may have a module called `tasks` or `worker` too. First
# in the path, because the hub must not get theirs.
_rooms = Path(__file__).resolve().parent / "rooms"
if _rooms.is_dir():
    sys.path.insert(0, str(_rooms))
