"""One frame of every message, with every field set: what the golden files hold."""

from protocol import messages as m
from protocol.codec import Frame
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, ResultsState, WorkerState

JOB = "digits-20260801-1"
ROOT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
KEY = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
SIGNATURE = "5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKWvnyYi2e-N4zs3hjk2gNSbtBuv3v2Q4kAWCw"

PROBLEM = m.Problem(code=ErrorCode.SCRIPT_REFUSED, sentence="`rm` is no runner.", line=3)
RESULTS = m.ResultsInfo(state=ResultsState.HELD, size=2048, root=ROOT, files=4)
SNAPSHOT = m.JobSnapshot(
    job=JOB,
    name="digits",
    state=JobState.RUNNING,
    outcome=Outcome.NONE,
    problems=(PROBLEM,),
    stage=0,
    stages=2,
    log_bytes=512,
    results=RESULTS,
    submitted_at=1785542400.5,
)

FRAMES: tuple[Frame, ...] = (
    Frame(
        msg=m.Hello(
            versions=(1, 2),
            role="client",
            key=KEY,
            nonce=NONCE,
            session="s-1",
            generation=2,
            features=("digits",),
            implementation="fsm-worker/0.1.0",
        )
    ),
    Frame(msg=m.Proof(signature=SIGNATURE, invitation=NONCE)),
    Frame(
        msg=m.Welcome(
            session="s-1",
            received=41,
            rights=("submit",),
            worker="gpu-3",
            limits=m.Limits(frame=61440, chunk=65536),
        )
    ),
    Frame(msg=m.Resume(received=17)),
    Frame(ack=9, msg=m.Ack()),
    Frame(msg=m.Ping(n=7)),
    Frame(msg=m.Pong(n=7)),
    Frame(msg=m.Bye(code=ErrorCode.ABORTED, reason="done")),
    Frame(
        seq=3,
        ack=2,
        msg=m.Error(
            code=ErrorCode.NOT_ALLOWED,
            message="job is done: fetch its results",
            about="stop",
            job=JOB,
            transfer=5,
            row="J55",
        ),
    ),
    Frame(seq=1, msg=m.WorkerGet()),
    Frame(
        ack=1,
        msg=m.WorkerStatus(
            name="gpu-3",
            state=WorkerState.BUSY,
            job=JOB,
            reason="",
            capabilities=m.Capabilities(
                gpus=(
                    m.Gpu(
                        uuid="GPU-1",
                        model="NVIDIA H200",
                        memory_mb=143771,
                        memory_free_mb=143000,
                        driver="570.86",
                        cuda="12.8",
                        compute_capability="9.0",
                    ),
                ),
                runners=("digits", "sleap-nn train"),
                cpus=16,
                memory_mb=131072,
                disk_free_mb=65536,
                hostname="gpu-3.lab",
                platform="Linux-6.8",
                gpu="GPU-1",
                declared=("gpu.memory_mb",),
                tags=("a100-pool",),
                shared_storage=True,
            ),
        ),
    ),
    Frame(seq=2, msg=m.Reserve(need={"vram": "16GiB", "runner": "sleap-nn train"})),
    Frame(seq=2, ack=2, msg=m.Reserved(seconds=30.0, renewals=3)),
    Frame(
        seq=3,
        ack=2,
        msg=m.ReserveRefused(
            code=ErrorCode.NEED_UNMET,
            reasons=("vram=80GiB is asked for; the GPU here has 16384 MiB",),
            state=WorkerState.AVAILABLE,
        ),
    ),
    Frame(seq=3, msg=m.Release()),
    Frame(seq=4, ack=3, msg=m.Released()),
    Frame(
        seq=5,
        ack=3,
        msg=m.ReservationOver(
            code=ErrorCode.RESERVATION_EXPIRED, reason="no job of yours came in time"
        ),
    ),
    Frame(seq=4, msg=m.Drain(reason="a new driver", deadline_s=600.0)),
    Frame(seq=5, msg=m.Undrain()),
    Frame(seq=6, ack=5, msg=m.DrainState(drained=True, state=WorkerState.DRAINING)),
    Frame(
        seq=3,
        ack=1,
        msg=m.Submit(
            job=JOB,
            spec=m.JobSpec(kind="package", name="digits"),
            inputs=(m.InputFile(name="package.zip", size=4096, root=ROOT),),
            policy=m.JobPolicy(wall_s=3600.0, queue_s=60.5),
        ),
    ),
    Frame(seq=4, msg=m.Stop(job=JOB)),
    Frame(seq=5, msg=m.Cancel(job=JOB)),
    Frame(seq=6, msg=m.Attach(job=JOB)),
    Frame(seq=7, msg=m.JobsGet()),
    Frame(seq=8, ack=7, msg=m.Jobs(jobs=(SNAPSHOT,))),
    Frame(seq=9, ack=7, msg=SNAPSHOT),
    Frame(
        seq=10,
        ack=7,
        msg=m.JobStateChanged(
            job=JOB,
            before=JobState.VALIDATING,
            state=JobState.REJECTED,
            row="J15",
            event="validation_failed",
            outcome=Outcome.REJECTED,
            problems=(PROBLEM,),
            stage=0,
            stages=0,
            results=m.ResultsInfo(),
        ),
    ),
    Frame(
        msg=m.Progress(
            job=JOB,
            stage=1,
            event="epoch_end",
            epoch=4,
            epochs=20,
            batch=128,
            metrics={"loss": 0.25, "val_loss": 0.5},
            sent_at=1785542400.25,
        )
    ),
    Frame(
        msg=m.Telemetry(
            job=JOB, gpu_percent=87.5, gpu_memory_mb=2048, cpu_percent=199.5, memory_mb=512
        )
    ),
    Frame(seq=11, msg=m.LogGet(job=JOB, offset=512)),
    Frame(msg=m.Log(job=JOB, offset=512, next=530, text="\repoch 4 ✓ JOB_COMPLETE::\n")),
    Frame(msg=m.LogEnd(job=JOB, size=530)),
    Frame(
        seq=12,
        msg=m.FileOffer(transfer=1, job=JOB, name="package.zip", size=4096, root=ROOT, chunk=65536),
    ),
    Frame(seq=13, msg=m.FileNeed(transfer=1, ranges=((0, 1024), (2048, 4096)), chunk=32768)),
    Frame(seq=14, msg=m.FileStored(transfer=1, root=ROOT)),
    Frame(
        seq=15,
        msg=m.FileRefused(transfer=1, code=ErrorCode.DISK_FULL, message="Free 4 KiB, then retry."),
    ),
    Frame(
        seq=16, msg=m.FileAbort(transfer=1, code=ErrorCode.SOURCE_CHANGED, message="It changed.")
    ),
    Frame(seq=17, msg=m.Fetch(job=JOB)),
    Frame(seq=18, msg=m.Explain(job=JOB)),
    Frame(seq=19, msg=m.ExplainWorker()),
    Frame(
        seq=20,
        ack=18,
        msg=m.Explained(
            job=JOB,
            state="killing",
            steps=(
                m.ExplainedStep(
                    at=1785542400.5,
                    row="J44",
                    event="timer_step_expired",
                    before="stopping",
                    after="killing",
                    guards={"more_steps": False},
                    coupling="C1",
                ),
            ),
            awaits=("process_exited",),
        ),
    ),
)

BY_TYPE: dict[type[m.Message], m.Message] = {type(frame.msg): frame.msg for frame in FRAMES}
