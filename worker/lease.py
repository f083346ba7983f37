"""The lease that lets one worker act while the others stand by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agentcom import actors
from agentcom.models import Lease
from agentcom.work import Wanted, Work


@dataclass(frozen=True, slots=True)
class HoldLease:
    """Take or renew a lease, or give it up (`until` is now). Gives whether the holder has it."""

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
        """Also if it expires later than a lease taken now could: it was taken before the clock was
        set back, perhaps by a process that has died."""
        return lease.expires_at <= self.now or lease.expires_at > now + (self.until - self.now)
