"""One event for everything that a row can listen to."""

from fsm_worker import events as e
from fsm_worker.events import Event, On, Received, Timer, TimerExpired
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome
from protocol.messages import Capabilities, Message
from protocol.sleap_rtc.frames import NotPerformed
from tests.protocol import samples
from tests.protocol.samples import JOB, PROBLEM, RESULTS, ROOT

#: Serial of the armed timer that a sample lets run out.
SERIAL = 7

EVENTS: dict[type[Event], Event] = {
    type(event): event
    for event in (
        e.EffectFailed(effect="open_job", reason="the disk is full", code=ErrorCode.DISK_FULL),
        e.Started(),
        e.ProbeSucceeded(capabilities=Capabilities(cpus=16)),
        e.ProbeFailed(reason="the driver does not answer"),
        e.SlotRequested(job=JOB, owner="alice"),
        e.NeedChecked(key="alice", session="s-1", unmet=("vram=80GiB is asked for",)),
        e.NeedCheckFailed(key="alice", session="s-1"),
        e.ReservationClaimed(),
        e.ReservationUnclaimed(),
        e.DrainOverdue(),
        e.JobLeftGpu(),
        e.CleanSucceeded(),
        e.CleanFailed(reason="process 7 is still there"),
        e.TerminateRequested(),
        e.AllDone(),
        e.EverythingKilled(),
        e.NobodyCanCome(),
        e.PackingBegan(),
        e.PackingEnded(),
        e.JournalFailed(reason="the disk is full"),
        e.RecvOffer(peer="p-1", sdp="v=0", room_for_more=True),
        e.DialRequested(peer="w-1", session="s-1", generation=2),
        e.RecvAnswer(sdp="v=0"),
        e.SentAnswer(),
        e.IceCompleted(),
        e.IceFailed(),
        e.PeerClosed(),
        e.ControlOpened(native=True, session="guest-l-1"),
        e.ChannelClosed(),
        e.FrameArrived(number=1, expected=1, message=samples.BY_TYPE[samples.m.JobsGet]),
        e.FrameRefused(code=ErrorCode.MALFORMED, strikes=1),
        e.Superseded(),
        e.Flushed(),
        e.ProofChecked(
            proved=True, trusted=True, rights=("submit",), reason="this key is not known here"
        ),
        e.LinkUp(link="l-1", generation=2, key="alice", peer="p-1"),
        e.LinkLost(link="l-1", farewell=False),
        e.WorkerRefused(code=ErrorCode.NOT_AUTHENTICATED, reason="this key is not known here"),
        e.LinkRefused(reason="no network path was found in time"),
        e.OutboxFilled(),
        e.OutOfStep(),
        e.LinkNear(),
        e.LinkFar(),
        e.RoomEntered(),
        e.RoomLeft(),
        e.RoomRefused(code=ErrorCode.NOT_AUTHENTICATED, reason="the room's token is wrong"),
        e.InputStored(name="package.zip"),
        e.InputRefused(name="package.zip", code=ErrorCode.INPUT_REFUSED, reason="it was refused"),
        e.ValidationPassed(stages=2),
        e.ValidationFailed(problems=(PROBLEM,)),
        e.SlotGranted(),
        e.Prepared(gpu_free=True, reason="process 9 of another user holds 4 GiB"),
        e.TrainerReported(event="train_begin"),
        e.ProcessExited(stage=0, ok=True, out_of_memory=False, reason="it ended with code 1"),
        e.Collected(results=RESULTS),
        e.CollectFailed(reason="the disk is full"),
        e.FileProgressed(),
        e.WorkerLeaving(),
        e.WorkerStopping(),
        e.WorkerStopped(),
        e.Crowded(),
        e.ClientAttached(),
        e.ClientDetached(),
        e.JobDone(results=RESULTS, owner="alice"),
        e.ResultsAcknowledged(),
        e.DeliveryFailed(),
        e.ChunksCompleted(),
        e.DigestMatched(),
        e.DigestMismatched(),
        e.StorageFailed(code=ErrorCode.DISK_FULL, reason="the disk is full"),
        e.SendRequested(
            session="s-1", transfer=3, job=JOB, path="", name=f"{JOB}.zip", size=2048, root=ROOT
        ),
        e.SourceFailed(reason="the file changed"),
        e.Unwanted(),
        e.LinkCut(),
        e.LinkResumed(link="l-1"),
        e.SessionEnded(),
        e.GuestCame(session="guest-l-1"),
        e.GuestLeft(),
        e.PackageNamed(kind="track"),
        e.FolderNamed(folder="models"),
        e.PackageAnnounced(name="digits.zip", size=2048, gui=True, reason="the disk is full"),
        e.PackageEnded(),
        e.PackageChecked(root=ROOT, reason="too few bytes came", job=JOB, stages=("digits",)),
        e.PackageWanted(ranges=((0, 2048),)),
        e.PackageTaken(),
        e.JobTold(
            state=JobState.DONE, outcome=Outcome.SUCCEEDED, problems=(PROBLEM,), results=RESULTS
        ),
        e.LogOver(),
        e.ResultsOffered(transfer=3, size=2048, root=ROOT),
        e.ResultsLost(reason="the results have expired"),
        e.HandedOver(files=1),
        e.StopAsked(),
        e.CancelAsked(),
        e.FlowAsked(frame=NotPerformed(tag="FS_GET_INFO")),
        e.SharedJobNamed(label="j-1"),
        e.InputNamed(path="jobs/j-1/in.zip"),
        e.OutputNamed(path="jobs/j-1/out"),
        e.InputChecked(
            path="jobs/j-1/in.zip", kind="track", stages=("inference",), reason="it is not there"
        ),
        e.OutputChecked(path="jobs/j-1/out", reason="it holds something"),
        e.PathRefused(reason="it is absolute"),
        e.SharedJobAsked(job=JOB),
        e.GuestRefused(reason="no frame of this dialect begins so"),
        e.JobAsked(peer="p-1", key="sleap-rtc:p-1", label="7f2c", reason="it may submit no job"),
        e.JobAssigned(peer="p-1", label="7f2c", reason="it may submit no job"),
        e.JobDropped(peer="p-1", label="7f2c", reason="it may submit no job"),
        e.SlotKept(seconds=30.0),
        e.SlotRefused(code=ErrorCode.WORKER_BUSY, reason="it is reserved for somebody else"),
        e.SlotReleased(),
        e.SlotLost(code=ErrorCode.RESERVATION_EXPIRED, reason="no job of yours came in time"),
        e.DropRefused(code=ErrorCode.NOT_HOLDER),
        e.JobCame(job=JOB),
        e.JobGone(),
        e.SocketOpened(),
        e.SocketFailed(reason="connection refused"),
        e.RecvRegistered(room="r-1"),
        e.RecvRefusal(final=False, code=ErrorCode.ABORTED, reason="the room is full"),
        e.SignalArrived(),
        e.StatusChanged(),
    )
}


def received(message: Message, *, key: str = "alice") -> Received:
    """A message of a client."""
    return Received(message=message, link="l-1", session="s-1", key=key)


#: Everything that a machine may be told.
SAMPLES: dict[On, Event] = {
    **EVENTS,
    **{kind: received(message) for kind, message in samples.BY_TYPE.items()},
    **{timer: TimerExpired(timer=timer, serial=SERIAL) for timer in Timer},
}
