"""What jobs force on the negotiations that they come from, and those on each other; see `coupling`.

A negotiation is over when its job is, and a peer that asks over and over pushes out whoever was
promised nothing before it pushes out anybody else.
"""

from collections.abc import Iterator

from fsm_worker.events import Crowded, JobCame, JobGone
from fsm_worker.machines.world import Forced, World
from protocol.lifecycle import TalkState
from protocol.table import MachineName

M, T = MachineName, TalkState
#: Negotiations that are remembered.
KEEP_TALKS = 64


def jobs_come_to_talks(world: World) -> Iterator[Forced]:
    """A job that comes is that of the oldest negotiation of its owner that waits for one."""
    waiting = [talk for talk in world.live(M.TALK) if talk.state is T.KEPT]
    if not waiting:
        return
    taken = {talk.facts.job for talk in world.moving(M.TALK)}
    for job in world.moving(M.JOB):
        if job.subject in taken:
            continue
        for talk in waiting:
            if talk.facts.key == job.facts.owner and job.subject not in talk.facts.older:
                waiting.remove(talk)
                yield Forced(M.TALK, talk.subject, JobCame(job=job.subject))
                break


def talks_lose_their_jobs(world: World) -> Iterator[Forced]:
    """A negotiation is not longer than its job."""
    for talk in world.live(M.TALK):
        job = world.get(M.JOB, talk.facts.job)
        if talk.state is T.WORKING and (job is None or job.final):
            yield Forced(M.TALK, talk.subject, JobGone())


def too_many_talks(world: World) -> Iterator[Forced]:
    """Of too many negotiations the oldest goes, of those that were promised nothing."""
    talks = world.live(M.TALK)
    spare = sorted(talks, key=lambda talk: talk.state is not T.ASKED)  # in their order otherwise
    for talk in spare[: max(0, len(talks) - KEEP_TALKS)]:
        yield Forced(M.TALK, talk.subject, Crowded())
