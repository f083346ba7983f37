"""The right to be the one worker that acts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agentcom import actors
from agentcom.models import Lease
from agentcom.work import Wanted, Work


@dataclass(frozen=True, slots=True)
class HoldLease:
    """Take, renew or (until now) give up a lease. Gives whether it is the holder's now."""

    name: str
    holder: str
    now: datetime
    until: datetime
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return [(Lease, [self.name])]

    def apply(self, work: Work) -> bool:
        lease = work.get(Lease, self.name)
        if lease is None:
            work.add(Lease(name=self.name, holder=self.holder, expires_at=self.until))
        elif lease.holder == self.holder or self._is_over(lease, work.now):
            lease.holder, lease.expires_at = self.holder, self.until
        else:
            return False
        return True

    def _is_over(self, lease: Lease, now: datetime) -> bool:
        """A longer one than this was taken before the clock was set back, perhaps by the dead."""
        return lease.expires_at <= self.now or lease.expires_at > now + (self.until - self.now)
