"""The coupling table: joint facts of two machines, and the event that they force.

It is the only place where one machine knows of another. Rows are level-triggered: as long as the
facts stand, the event is forced; the event changes the facts, so the table comes to rest. A row
whose event is ignored forces nothing.
"""

from fsm_worker.machines.coupled_jobs import (
    drain_is_overdue,
    inputs_are_offered_again,
    inputs_are_unwanted,
    inputs_arrive,
    job_is_done,
    job_leaves_slot,
    nothing_is_left,
    owner_comes_and_goes,
    queue_asks,
    reservation_is_claimed,
    results_are_packed,
    results_are_sent,
    results_are_unwanted,
    slot_is_granted,
    too_many_jobs,
    worker_leaves,
)
from fsm_worker.machines.coupled_links import (
    files_follow_sessions,
    guests_come_and_go,
    links_are_lost,
    links_are_too_many,
    links_carry_sessions,
    links_come_near,
    links_end_with_sessions,
    nobody_can_come,
    room_comes_and_goes,
    room_is_closed,
    room_is_refused,
    too_many_sessions,
    worker_has_stopped,
)
from fsm_worker.machines.coupled_talks import (
    jobs_come_to_talks,
    talks_lose_their_jobs,
    too_many_talks,
)
from fsm_worker.machines.world import Coupling

_LINKS = Coupling(
    "C1", "a proved link that its session does not hold",
    "session: link_up, if its key and generation allow; else link: superseded, session_ended",
    links_carry_sessions,
)  # fmt: skip
_LOST = Coupling(
    "C2", "a session whose link is over", "session: link_lost", links_are_lost
)  # fmt: skip
_FILES = Coupling(
    "C3", "a file whose session is over, detached, or attached by another link",
    "receiving, sending: session_ended, link_cut, link_resumed", files_follow_sessions,
)  # fmt: skip

CLIENT_COUPLINGS: tuple[Coupling, ...] = (
    _LINKS,
    _LOST,
    _FILES,
    Coupling("C20", "a client came into the room, or has no server any more",
             "session: room_entered, room_left", room_comes_and_goes),
    Coupling("C22", "a link of a client is about to prove itself, or is not any more",
             "session: link_near, link_far", links_come_near),
    Coupling("C23", "a client's session has a link, and others are being made",
             "link (those): superseded", links_are_too_many),
    Coupling("C27", "a client's session is over, and it has links",
             "link (those): session_ended", links_end_with_sessions),
    Coupling("C21", "the server does not let a client in that no worker has welcomed",
             "session: worker_refused", room_is_refused),
    Coupling("C31", "the server refuses a client for good that has no link, nor one on its way",
             "session (one that was welcomed): room_refused", room_is_closed),
)  # fmt: skip

WORKER_COUPLINGS: tuple[Coupling, ...] = (
    _LINKS,
    _LOST,
    _FILES,
    Coupling("C4", "an announced input is stored or refused while the job stages",
             "job: input_stored, input_refused", inputs_arrive),
    Coupling("C5", "a file is on its way in for a job that no longer stages",
             "receiving: unwanted", inputs_are_unwanted),
    Coupling("C17", "an input that is arriving is offered once more",
             "receiving (the older): superseded", inputs_are_offered_again),
    Coupling("C6", "the slot is free, or kept for somebody, and a job (of theirs) is queued",
             "worker: slot_requested", queue_asks),
    Coupling("C25", "the slot is kept for somebody, whose job comes in, or does not any more",
             "worker: reservation_claimed, reservation_unclaimed", reservation_is_claimed),
    Coupling("C26", "a break is wanted, and the running job has had its time",
             "job: drain_overdue", drain_is_overdue),
    Coupling("C7", "the slot names a queued job", "job: slot_granted", slot_is_granted),
    Coupling("C8", "the slot's job has no process any more", "worker: job_left_gpu",
             job_leaves_slot),
    Coupling("C9", "the worker leaves, stops or is forced to, and a job is alive",
             "job: worker_leaving (waiting), worker_stopping (on the slot), "
             "worker_stopped (forced)", worker_leaves),
    Coupling("C10", "a job is done or rejected", "results: job_done", job_is_done),
    Coupling("C11", "the owner's session came or went", "job: client_attached, client_detached",
             owner_comes_and_goes),
    Coupling("C12", "results are to be delivered", "sending: send_requested; results: "
             "results_acknowledged, delivery_failed", results_are_sent),
    Coupling("C13", "a file is on its way out that nobody waits for", "sending: unwanted",
             results_are_unwanted),
    Coupling("C32", "the worker is stopping, and results are being packed, or not any more",
             "worker: packing_began, packing_ended", results_are_packed),
    Coupling("C14", "the worker is stopping, no job is alive, nobody present waits for results",
             "worker: all_done", nothing_is_left),
    Coupling("C15", "the worker has stopped, and owners were told how their jobs ended",
             "session, link, signalling: worker_stopping",
             worker_has_stopped),
    Coupling("C16", "the server refuses this worker, and nobody is attached",
             "worker: nobody_can_come", nobody_can_come),
    Coupling("C18", "more ended jobs without results than are kept",
             "job (the oldest of the owner of most): crowded", too_many_jobs),
    Coupling("C19", "more sessions of one key than are kept",
             "session (its oldest detached): crowded", too_many_sessions),
    Coupling("C24", "a link of another dialect is up, or over", "guest: guest_came, guest_left",
             guests_come_and_go),
    Coupling("C28", "a job of a peer has come that the slot is kept for, and is no older one",
             "talk (its oldest that is kept): job_came", jobs_come_to_talks),
    Coupling("C29", "the job of a negotiation has ended, or is forgotten", "talk: job_gone",
             talks_lose_their_jobs),
    Coupling("C30", "more negotiations than are kept",
             "talk (the oldest without a promise, else the oldest): crowded", too_many_talks),
)  # fmt: skip
