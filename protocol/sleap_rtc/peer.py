"""What clients of sleap-rtc and a worker say to each other through the signaling server.

The words are the payloads of `peer_message`, as sleap-rtc writes them (0.0.7,
`worker/job_coordinator.py`; the reports of a job: `worker/job_executor.py`). Who speaks is not in
them: it is the peer id that the server has bound to the connection.

Left out of what the original says: how long a job will take. It makes that up; its clients take a
missing number for 0.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct, field

from protocol.errors import ErrorCode, ProtocolError
from protocol.need import Need
from protocol.table import Direction

#: sleap-rtc's kinds of job, and the runners that do them.
JOB_TYPES: Final = {"training": "sleap-nn train", "inference": "sleap-nn track"}

PeerJob = Annotated[str, Meta(min_length=1, max_length=128)]  # chosen by the client, often a UUID


class PeerWord(Struct, frozen=True, kw_only=True, tag_field="app_message_type", omit_defaults=True):
    """Base of all payloads; the tag is sleap-rtc's."""


class JobRequest(PeerWord, frozen=True, kw_only=True, tag="job_request"):
    """Asks whether the worker can do a job, and to keep the slot for it."""

    job_id: PeerJob
    job_type: Annotated[str, Meta(max_length=64)] = ""  # "training" or "inference"
    requirements: dict[str, Any] = field(default_factory=dict)  # `min_gpu_memory_mb` is read


class WorkerInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the worker has at this moment."""

    gpu_utilization: float | None = None  # 0 to 1
    available_memory_mb: int | None = None  # MiB


class JobResponse(PeerWord, frozen=True, kw_only=True, tag="job_response"):
    """Whether the slot is kept."""

    job_id: str
    accepted: bool
    reason: str = ""  # "busy" or "incompatible"
    message: str = ""  # the same for people; not of sleap-rtc, whose clients do not read it
    estimated_start_time_sec: int | None = None  # 0: at once


class JobAssignment(PeerWord, frozen=True, kw_only=True, tag="job_assignment"):
    """The client comes: the slot is kept a little longer."""

    job_id: PeerJob


class JobCancel(PeerWord, frozen=True, kw_only=True, tag="job_cancel"):
    """Throws the job away, or the slot that was kept for it."""

    job_id: PeerJob
    reason: Annotated[str, Meta(max_length=512)] = ""


class JobCancelled(PeerWord, frozen=True, kw_only=True, tag="job_cancelled"):
    """Nothing of the job runs any more."""

    job_id: str
    status: str
    cleanup_complete: bool


class JobStatus(PeerWord, frozen=True, kw_only=True, tag="job_status"):
    """What the job is doing."""

    job_id: str
    status: str
    message: str = ""


class JobComplete(PeerWord, frozen=True, kw_only=True, tag="job_complete"):
    """The job ended well."""

    job_id: str
    status: str
    result: dict[str, Any] = field(default_factory=dict)
    transfer_method: str = "webrtc"
    ready_for_download: bool = False


class Failure(Struct, frozen=True, kw_only=True):
    """Why a job failed."""

    code: str
    message: str
    recoverable: bool = False


class JobFailed(PeerWord, frozen=True, kw_only=True, tag="job_failed"):
    """The job failed, or can't begin."""

    job_id: str
    status: str
    error: Failure


class PeerRow(NamedTuple):
    """One payload."""

    word: type[PeerWord]
    direction: Direction
    meaning: str  # the native message that it becomes, or that becomes it


PEER_WORDS: Final[tuple[PeerRow, ...]] = (
    PeerRow(JobRequest, Direction.TO_WORKER, "reserve"),
    PeerRow(JobAssignment, Direction.TO_WORKER, "reserve, again"),
    PeerRow(JobCancel, Direction.TO_WORKER, "release; cancel, once there is a job"),
    PeerRow(JobResponse, Direction.TO_CLIENT, "reserved, reserve_refused"),
    PeerRow(JobCancelled, Direction.TO_CLIENT, "released; job_state, of a cancelled job"),
    PeerRow(JobStatus, Direction.TO_CLIENT, "job_state; reserved, of an assignment"),
    PeerRow(JobComplete, Direction.TO_CLIENT, "job_state, of a job that ended well"),
    PeerRow(JobFailed, Direction.TO_CLIENT, "job_state, of one that did not; reservation_over"),
)

FromClient = JobRequest | JobAssignment | JobCancel
_ENCODER: Final = msgspec.json.Encoder()


def read_peer(payload: dict[str, Any]) -> FromClient:
    """Reads what a client says.

    Args:
        payload: of its `peer_message`; anything that JSON can hold.

    Raises:
        ProtocolError: `malformed`, or `unknown_type` where no row of a client has this tag.
    """
    tag = payload.get("app_message_type")
    tags = {row.word.__struct_config__.tag for row in PEER_WORDS if row.direction is _TO_WORKER}
    if not isinstance(tag, str) or tag not in tags:
        raise ProtocolError(ErrorCode.UNKNOWN_TYPE, "no client of sleap-rtc says this to a worker")
    try:
        word: FromClient = msgspec.convert(payload, FromClient)
    except msgspec.ValidationError as error:
        raise ProtocolError(ErrorCode.MALFORMED, f"{tag}: {error}") from error
    return word


def peer_payload(word: PeerWord) -> dict[str, Any]:
    """What goes into a `peer_message`."""
    built: dict[str, Any] = msgspec.json.decode(_ENCODER.encode(word))
    return built


def need_of(request: Mapping[str, object]) -> Need:
    """Read what a `job_request` of sleap-rtc asks for (0.0.7, `worker/capabilities.py`).

    Args:
        request: its `job_type` and its `requirements.min_gpu_memory_mb` are looked at; from a
            peer, it may hold anything.

    Returns:
        The same in the words of `protocol.need`; what can't be compared is left to `unmet`.
    """
    need: Need = {}
    requirements = request.get("requirements")
    memory = requirements.get("min_gpu_memory_mb") if isinstance(requirements, Mapping) else None
    if memory:
        need["vram"] = f"{memory}MiB"
    kind = request.get("job_type")
    if kind:
        need["runner"] = JOB_TYPES.get(str(kind), str(kind))
    return need


_TO_WORKER = Direction.TO_WORKER

if {row.word for row in PEER_WORDS} != set(PeerWord.__subclasses__()):
    raise TypeError("protocol.sleap_rtc.peer: give every payload one row")
