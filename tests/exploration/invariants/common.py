"""The words in which laws are written: states, work, what effects say, steps of rows."""

from collections.abc import Sequence
from typing import Any

from fsm_worker import effects as f
from fsm_worker.effects import Effect
from fsm_worker.machines.engine import Step
from protocol import messages as m
from protocol.lifecycle import (
    GuestState,
    JobState,
    LinkState,
    ReceivingState,
    ResultsState,
    SendingState,
    SignallingState,
    WorkerState,
)
from protocol.table import MachineName
from tests.exploration.stage import Frozen, Stage

M, W, J, R = MachineName, WorkerState, JobState, ResultsState
UP = {LinkState.UP, LinkState.SUSPECT}
BEFORE_UP = {
    LinkState.NEGOTIATING, LinkState.CHECKING, LinkState.SECURING, LinkState.AUTHENTICATING,
}  # fmt: skip
LINK_OVER = {LinkState.CLOSED, LinkState.FAILED, LinkState.REJECTED}
ENDED = {J.DONE, J.REJECTED}
WAITING = {J.STAGING, J.VALIDATING, J.QUEUED}

#: Who waits for work has it under way; one of these, where there are several.
WORK: dict[tuple[MachineName, Any], tuple[type[Effect], ...]] = {
    (M.WORKER, W.CLEANING): (f.CleanSlot,),
    (M.JOB, J.VALIDATING): (f.ValidatePackage,),
    (M.JOB, J.PREPARING): (f.PrepareRun,),
    (M.JOB, J.COLLECTING): (f.CollectOutputs, f.DiscardOutputs),
    (M.RECEIVING, ReceivingState.VERIFYING): (f.VerifyIncoming,),
    (M.SENDING, SendingState.SENDING): (f.SendRanges,),
    (M.LINK, LinkState.NEGOTIATING): (f.HandleConnection, f.MakeOffer),
    (M.LINK, LinkState.CLOSING): (f.Farewell,),
    (M.SIGNALLING, SignallingState.CONNECTING): (f.OpenSocket,),
    (M.GUEST, GuestState.CHECKING): (f.CheckPackage,),
    (M.GUEST, GuestState.HANDING): (f.HandOver,),
}
#: What an effect says to a peer.
WORDS: dict[type[Effect], tuple[type[m.Message], ...]] = {
    f.SendHello: (m.Hello,),
    f.SendProof: (m.Proof,),
    f.SendWelcome: (m.Welcome,),
    f.SendPong: (m.Pong,),
    f.KeepIceAlive: (m.Ping,),
    f.Farewell: (m.Bye,),
    f.SendSnapshot: (m.JobSnapshot,),
    f.ReportState: (m.JobStateChanged,),
    f.ReplyError: (m.Error,),
    f.SendWorkerStatus: (m.WorkerStatus,),
    f.GrantReservation: (m.Reserved,),
    f.RefuseReservation: (m.ReserveRefused,),
    f.ConfirmRelease: (m.Released,),
    f.ConfirmDrain: (m.DrainState,),
    f.SendExplanation: (m.Explained,),
    f.SendJobs: (m.Jobs,),
    f.StreamLog: (m.Log, m.LogEnd),
    f.OpenIncoming: (m.FileNeed,),
    f.AskMissing: (m.FileNeed,),
    f.ConfirmStored: (m.FileStored,),
    f.RefuseIncoming: (m.FileRefused,),
    f.OfferFile: (m.FileOffer,),
    f.AbortOutgoing: (m.FileAbort,),
    f.SendResume: (m.Resume,),
}


def fired(stage: Stage, machine: MachineName) -> Sequence[Step]:
    """Steps of rows of one machine."""
    return stage.fired.get(machine, ())


def asked(step: Step, *kinds: type[Effect]) -> bool:
    """Whether a step asks for one of these effects."""
    return any(isinstance(effect, kinds) for effect in step.effects)


def before_of(before: Frozen) -> dict[tuple[MachineName, str], tuple[Any, Any]]:
    """State and facts by machine and subject."""
    return {(k.name, k.subject): (k.state, k.facts) for k in (*before.moving, *before.ended)}


def armed(step: Step) -> list[f.StartTimer]:
    """The timers that a step begins."""
    return [effect for effect in step.effects if isinstance(effect, f.StartTimer)]
