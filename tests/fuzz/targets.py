"""Every decoder of what somebody else wrote: how it is called, and how it may refuse.

A target takes bytes, since that is what a network and a disk bring; one that reads text gets
bytes that are no UTF-8 as lone surrogates, which is the worst that text can hold.
"""

import base64
import contextlib
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import msgspec

from fsm_worker.cli.config import load
from fsm_worker.cli.exit_codes import CommandFailed
from fsm_worker.client.remembered import MOST, Remembered
from fsm_worker.identity import KeyUnreadable, KnownClients
from fsm_worker.services.archive import ArchiveRefused, UnpackLimits, peek, unpack
from fsm_worker.services.compatibility import Offer, unmet
from fsm_worker.services.declared import DeclarationRefused, read_declared
from fsm_worker.services.launcher import read_record
from fsm_worker.services.log_stream import MAX_TEXT, LogReader, plain
from fsm_worker.services.manifest import ManifestMismatch, read_manifest
from fsm_worker.services.member_names import Names, parts_of
from fsm_worker.services.own_runners import RunnerRefused, read_runner
from fsm_worker.services.package_code import package_code
from fsm_worker.services.runners import Ports, builtin_runners, parse_script, runner_of
from fsm_worker.services.script import ScriptRefused, read_script
from fsm_worker.signaling.jwt_names import checked_name, unchecked_name
from fsm_worker.signaling.trust import JwtKey, NoUsableKey, read_api_keys
from protocol import codec, signaling, sleap_rtc
from protocol import messages as m
from protocol.bulk import Ranges, decode_chunk, encode_chunk
from protocol.errors import ErrorCode, ProtocolError
from protocol.need import NeedRefused, parse_need
from protocol.proof import BadSessionString, SessionString
from protocol.signaling import SignalingCode, SignalingRefused
from protocol.sleap_rtc import frames as f
from protocol.sleap_rtc.log_text import as_log_text
from protocol.sleap_rtc.peer import need_of, peer_payload, read_peer
from protocol.table import Direction
from protocol.trainer import decode_trainer

_GOLDEN = Path(__file__).parents[1] / "protocol" / "golden"
_FIXTURES = Path(__file__).parents[1] / "fixtures"
_LIMITS = UnpackLimits(
    max_entries=64, max_total_bytes=1024**2, ratio_from_bytes=64 * 1024, max_depth=8
)
_JWT_KEY = "an HMAC key of more than thirty-two bytes"


class Target(NamedTuple):
    """One decoder.

    Args:
        name: of the test.
        read: decodes; asserts what must be true of what it accepts.
        refusals: what it may raise; empty where it takes whatever comes.
        pool: inputs to start from; at least one is accepted.
        share: of all mutants, relative to the others; small where files are written.
    """

    name: str
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    pool: tuple[bytes, ...]
    share: float = 1.0


class Refused(NamedTuple):
    """What a decoder gave instead of a value."""

    error: Exception


def answer(target: Target, data: bytes) -> object:
    """Gives an input to a decoder; what it read, or a `Refused`.

    Raises:
        AssertionError: it was refused without a code or a sentence that can be passed on.
        Exception: whatever else the decoder let out; that is a fault of it.
    """
    try:
        return target.read(data)
    except target.refusals as refusal:
        _check_refusal(refusal)
        return Refused(refusal)


def tried(target: Target, data: bytes) -> bool:
    """Gives an input to a decoder as `answer` does; whether it was accepted."""
    return not isinstance(answer(target, data), Refused)


def _check_refusal(refusal: Exception) -> None:
    sentence = str(getattr(refusal, "sentence", refusal))
    assert sentence.strip(), "a refusal says what is wrong"
    assert len(sentence) <= 4096, "a refusal is a sentence"
    sentence.encode()  # it goes to a terminal or to a peer
    match refusal:
        case ProtocolError(code=code):
            assert isinstance(code, ErrorCode)
            codec.encode(codec.Frame(msg=m.Error(code=code, message=sentence, about="it")))
        case SignalingRefused(code=code):
            assert isinstance(code, SignalingCode)
            signaling.encode(signaling.Error(reason=code, code=code, message=sentence))
        case _:
            pass


def text_of(data: bytes) -> str:
    """Bytes as a text, whatever they are."""
    return data.decode("utf-8", "surrogateescape")


# --- What is done with an input; each asserts that what is accepted can be said again ---------


def _native(direction: Direction) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        frame = codec.decode(data, direction)
        with contextlib.suppress(ProtocolError):  # too_large: escapes may take more than they took
            assert codec.decode(codec.encode(frame), direction) == frame or _has_nan(frame)
        return frame

    return read


def _native_text(data: bytes) -> object:
    return codec.decode(text_of(data), Direction.TO_WORKER)


def _has_nan(frame: codec.Frame) -> bool:
    return "NaN" in str(frame) or "nan" in str(frame)


def _dialect(
    decode: Callable[[str | bytes], Any], encode: Callable[[Any], str | bytes]
) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        frame = decode(text_of(data))
        # A sentence may be written otherwise, and what is written once is written so again.
        with contextlib.suppress(ProtocolError):
            said = encode(frame)
            assert encode(decode(said)) == said
        return frame

    return read


def _dialect_bytes(data: bytes) -> object:
    frame = sleap_rtc.decode(data)
    assert isinstance(frame, f.Chunk | f.KeepAlive)
    if isinstance(frame, f.Chunk) and data:
        assert b"".join(chunk.payload for chunk in sleap_rtc.chunks(data)) == data
    return frame


def _peer(data: bytes) -> object:
    message = signaling.decode_from_peer(data)
    if not isinstance(message, signaling.PeerMessage):
        return message
    need = need_of(message.payload)  # read before the word is known to be one, by the worker too
    assert all(isinstance(sentence, str) for sentence in unmet(need, Offer()))
    word = read_peer(message.payload)
    assert read_peer(peer_payload(word)) == word
    return word


def _from_peer(data: bytes) -> object:
    message = signaling.decode_from_peer(data)
    with contextlib.suppress(SignalingRefused):
        assert signaling.decode_from_peer(signaling.encode(message)) == message
    signaling.canonical(data)
    return message


def _from_server(data: bytes) -> object:
    message = signaling.decode_from_server(data)
    with contextlib.suppress(SignalingRefused):
        assert signaling.decode_from_server(signaling.encode(message)) == message
    return message


def _canonical(data: bytes) -> object:
    once = signaling.canonical(data)
    assert signaling.canonical(once) == once
    return once


def _chunk(data: bytes) -> object:
    chunk = decode_chunk(data)
    assert encode_chunk(chunk.transfer, chunk.offset, chunk.payload) == data
    ranges = Ranges.of([(chunk.offset, chunk.offset + len(chunk.payload))])
    assert ranges.total == len(chunk.payload)
    return chunk


def _ranges(data: bytes) -> object:
    numbers = [int.from_bytes(data[at : at + 8], "big", signed=True) for at in range(0, 4096, 8)]
    ranges = Ranges.of(zip(numbers[::2], numbers[1::2], strict=True))
    assert list(ranges.spans) == sorted(ranges.spans)
    return ranges


def _trainer(data: bytes) -> object:
    message = decode_trainer(data)
    msgspec.json.encode(message)
    return message


def _need(data: bytes) -> object:
    text = text_of(data)
    need = parse_need(text)
    assert parse_need(",".join(f"{name}={value}" for name, value in need.items())) == need
    for sentence in unmet(need, Offer()):
        sentence.encode()
    return need


def _wire_need(data: bytes) -> object:
    """A need as a native client sends it: any map of texts."""
    frame = codec.decode(data, Direction.TO_WORKER)
    if isinstance(frame.msg, m.Reserve):
        for sentence in unmet(frame.msg.need, Offer()):
            sentence.encode()
            assert len(sentence) < 500
    return frame


def _session(data: bytes) -> object:
    session = SessionString.decode(text_of(data))
    assert SessionString.decode(session.encode()) == session
    return session


def _session_inside(data: bytes) -> object:
    """The same with the mutation under the base64, where the fields are."""
    return SessionString.decode("fsm-worker:" + base64.urlsafe_b64encode(data).decode())


def _names(data: bytes) -> object:
    names = Names()
    for name in text_of(data).split("\n"):
        parts = parts_of(name, max_depth=16)
        assert Path("/root", *parts).is_relative_to("/root") and ".." not in parts
        names.add(parts, folder=name.endswith("/"))
    return names


# any program will do for sleap-nn: none is started
_RUNNERS = {**builtin_runners(Path(sys.executable)), **package_code()}
_PORTS = Ports(publish="tcp://127.0.0.1:1", control="tcp://127.0.0.1:2")


def _commands(data: bytes) -> object:
    """A script is read before the job, and what it says is asked for again when the job ends."""
    stages = parse_script(text_of(data), _RUNNERS)
    for stage in stages:
        runner = runner_of(stage, _RUNNERS)
        folder = Path("/no/package")
        with contextlib.suppress(ScriptRefused):
            runner.check(stage, folder)
        assert all(not Path(path).is_absolute() for path in runner.outputs(stage, folder))
        runner.max_epochs(stage, folder)
        assert runner.argv(stage, _PORTS)[1:]
    return stages


def _log_text(data: bytes) -> object:
    frame = sleap_rtc.decode_from_worker(as_log_text(text_of(data)))
    assert isinstance(frame, f.LogText), "no output is taken for a frame"
    return frame


def _terminal_text(data: bytes) -> object:
    shown = plain(text_of(data[: 64 * 1024]))  # it is given pieces, never a whole log
    assert not {c for c in shown if not c.isprintable() and ord(c) < 0xA0} - set("\n\t\r")
    return shown


def _jwt(data: bytes) -> object:
    return unchecked_name(text_of(data), 0.0)


def _signed_jwt(data: bytes) -> object:
    """The mutation under a good signature."""
    token = jwt.api_jws.PyJWS().encode(data, _JWT_KEY, "HS256")
    return checked_name(token, JwtKey.of_secret(_JWT_KEY.encode()), 0.0)


# --- All of them ------------------------------------------------------------------------------


def _golden_native() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(_GOLDEN.glob("*.json")))


def _golden_chunks() -> tuple[bytes, ...]:
    found = []
    for path in (_GOLDEN / "chunk.hex", *sorted((_GOLDEN / "sleap_rtc").glob("*.hex"))):
        lines = path.read_text(encoding="ascii").splitlines()
        found.append(bytes.fromhex("".join(line.partition("#")[0] for line in lines)))
    return tuple(found)


def _golden_lines(name: str) -> tuple[bytes, ...]:
    return tuple((_GOLDEN / "sleap_rtc" / name).read_bytes().splitlines())


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive in memory."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def _json(*values: object) -> tuple[bytes, ...]:
    return tuple(json.dumps(value).encode() for value in values)


_PEER_WORDS = (
    {
        "app_message_type": "job_request",
        "job_id": "j-1",
        "job_type": "training",
        "requirements": {"min_gpu_memory_mb": 8192},
    },
    {"app_message_type": "job_assignment", "job_id": "j-1"},
    {"app_message_type": "job_cancel", "job_id": "j-1", "reason": "user"},
)
PEER_MESSAGES = _json(
    *(
        {"type": "peer_message", "from_peer_id": "c", "to_peer_id": "w", "payload": word}
        for word in _PEER_WORDS
    )
)
FROM_PEER = _json(
    {
        "type": "register",
        "peer_id": "w",
        "room_id": "r",
        "token": "t",
        "id_token": "i",
        "role": "worker",
        "is_admin": True,
        "metadata": {"tags": ["a"], "properties": {"gpu_memory_mb": 1}},
    },
    {"type": "update_metadata", "peer_id": "w", "metadata": {"properties": {"status": "busy"}}},
    {"type": "discover_peers", "from_peer_id": "c", "filters": {"properties": {"x": {"$gte": 2}}}},
    {"type": "offer", "sender": "c", "target": "w", "sdp": "v=0\r\n", "link": "1"},
    {"type": "answer", "sender": "w", "target": "c", "sdp": {"type": "answer", "sdp": "v=0\r\n"}},
    {"type": "candidate", "sender": "c", "target": "w", "candidate": {"candidate": "1 1 udp"}},
    {"type": "error", "target": "c", "reason": "worker_busy", "current_status": "busy"},
    {"type": "ping"},
)
FROM_SERVER = _json(
    {
        "type": "registered_auth",
        "room_id": "r",
        "token": "t",
        "peer_id": "w",
        "peer_list": ["c"],
        "peer_metadata": {"c": {"tags": ["a"]}},
        "ice_servers": [{"urls": ["stun:x"], "username": "u", "credential": "c"}],
    },
    {"type": "metadata_updated", "metadata": {"tags": ["a"]}},
    {
        "type": "peer_list",
        "to_peer_id": "c",
        "peers": [{"peer_id": "w", "role": "worker", "metadata": {}, "connected_at": 1.5}],
        "count": 1,
    },
    {"type": "error", "reason": "room_full", "code": "room_full", "message": "later"},
)
NEEDS = tuple(
    text.encode()
    for text in (
        "vram=16GiB,runner=sleap-nn,gpu=A100,compute=8.0",
        "gpu=1, disk=50GiB, memory=16384MiB",
        "cpus=8,tag=lab-b",
    )
)
SCRIPTS = tuple(
    text.encode()
    for text in (
        "#!/bin/bash\ndigits train --data data.npz --epochs 3 --output models\n",
        "sleap-nn train --config-name centroid.yaml \\\n  --config-dir . "
        "trainer_config.ckpt_dir=models 'data_config.train_labels_path=[a.slp]'\n",
        'sleap-nn track --data_path "labels.slp" --model_paths models/a -o out.slp\n',
        "python train.py --lr 0.1  # mine\r\n",
        "sleap-nn-train a.yaml\nsleap-nn-track --model models\n",
    )
)
MANIFESTS = _json(
    {
        "version": 1,
        "files": [{"path": "models/best.ckpt", "size": 3, "sha256": "ab" * 32}],
        "left_out": [{"path": "a\\b", "why": "a link"}],
    }
)
CLAIMS = _json(
    {"sub": "u", "username": "n", "exp": 9e9, "nbf": 0},
    {"sub": 7, "exp": 9e9},
    {"username": "n", "aud": ["x"], "exp": 9e9},
)
SESSION = SessionString(
    url="ws://127.0.0.1:8080", room="r-1", token="t", peer="w", key="A" * 43, secret="B" * 43
)
EXIT_RECORDS = _json(
    {"code": 0, "signal": None, "started": 1.5, "ended": 2.5, "pid": 7, "output_bytes": 3}
)
JOBS = (
    msgspec.json.encode(
        {"version": 1, "jobs": [{"session": SESSION.encode(), "job": "j", "name": "n", "at": 1.5}]}
    ),
)
TOML = tuple(
    text.encode()
    for text in (
        'listen = "127.0.0.1:0"\ngpu = 0\nallow_sleap_rtc = true\nname = "w"\nstun = "off"\n',
        'signaling = "wss://h:1"\nroom = "r"\ntoken = """t"""\n',
        '[declare]\ngpu_model = "A100"\ngpu_memory_mb = 24576\ngpu_compute = "8.0"\n'
        'gpu_count = 2\ntags = ["lab-b", "x"]\n',
        '[runners.mine]\nargv = ["python", "worker.toml", "--x=1"]\nargs = true\n'
        'outputs = ["models"]\nenv = { OMP_NUM_THREADS = "1" }\n[runners.b]\nargv = ["sh", "-c"]\n',
        "[runners]\nmine.argv = ['true']\nmine.args = false\n# 1979-05-27T07:32:00Z\n",
    )
)
_TABLES = _json(
    {"mine": {"argv": ["sh", "-c", "x"], "args": False, "outputs": ["m"], "env": {"A": "1"}}},
    {"b": {"argv": ["true"]}, "declare": {"gpu_model": "A", "gpu_count": 1, "tags": ["a"]}},
    {"declare": {"gpu_compute": "8.0", "gpu_memory_mb": 1}},
)
ARCHIVES = (
    zipped({"train-script.sh": b"digits train --data d.npz\n", "d.npz": b"\0" * 900}),
    zipped({"p/track-script.sh": b"x\n", "p/sub/": b"", "p/sub/a.txt": b"abc" * 50}),
    zipped({"train-script.sh": b"stored"}, zipfile.ZIP_STORED),
    zipped({}),
)


def targets(folder: Path) -> tuple[Target, ...]:
    """All decoders.

    Args:
        folder: an empty one, for those that read files.
    """
    protocol, server = (ProtocolError,), (SignalingRefused,)
    native, chunks = _golden_native(), _golden_chunks()
    to_worker, to_client = _golden_lines("to_worker.txt"), _golden_lines("to_client.txt")
    trainer = tuple((_FIXTURES / "sleap_nn_0.3.5_zmq.jsonl").read_bytes().splitlines()[:40])
    log = tuple({*to_client, *to_worker, b"Epoch 1\rEpoch 2\n", b"\x1b[1mbold\x1b[0m \xc3\xa9\n"})
    reserve = _json({"msg": {"type": "reserve", "need": {"gpu": "1", "vram": "16GiB", "x": "y"}}})
    files = _Files(folder)
    return (
        Target("native to a worker", _native(Direction.TO_WORKER), protocol, native, 2),
        Target("native to a client", _native(Direction.TO_CLIENT), protocol, native, 2),
        Target("native, as text", _native_text, protocol, native),
        Target("a need on the wire", _wire_need, protocol, reserve),
        Target(
            "sleap-rtc to a worker",
            _dialect(sleap_rtc.decode, sleap_rtc.encode_from_client), protocol, to_worker, 2,
        ),
        Target(
            "sleap-rtc to a client",
            _dialect(sleap_rtc.decode_from_worker, sleap_rtc.encode), protocol, to_client, 2,
        ),
        Target("sleap-rtc, bytes", _dialect_bytes, protocol, chunks, 0.5),
        Target("a peer's payload", _peer, protocol + server, PEER_MESSAGES, 2),
        Target("signaling to a server", _from_peer, server, FROM_PEER, 2),
        Target("signaling to a peer", _from_server, server, FROM_SERVER + FROM_PEER, 2),
        Target("a canonical frame", _canonical, server, FROM_SERVER + FROM_PEER),
        Target("a chunk", _chunk, protocol, chunks),
        Target("byte ranges", _ranges, protocol, (bytes(range(64)), bytes(16) * 9), 0.2),
        Target("a trainer's message", _trainer, protocol, trainer, 2),
        Target("a need in words", _need, (NeedRefused,), NEEDS, 2),
        Target("a session string", _session, (BadSessionString,), (SESSION.encode().encode(),)),
        Target(
            "a session string, inside", _session_inside, (BadSessionString,),
            (msgspec.json.encode(SESSION),),
        ),
        Target(
            "names in an archive", _names, (ArchiveRefused,),
            (b"train-script.sh", "a/b\na/c\nd/\nd/é.txt".encode(), b"A\nb/a"), 2,
        ),
        Target("a script", _commands, (ScriptRefused,), SCRIPTS, 2),
        Target("output for sleap-rtc", _log_text, protocol, log),
        Target("output for a terminal", _terminal_text, (), log),
        Target("a JWT", _jwt, server, (jwt.encode(json.loads(CLAIMS[0]), _JWT_KEY).encode(),)),
        Target("a signed JWT", _signed_jwt, server, CLAIMS, 0.5),
        Target("an archive", files.archive, (ArchiveRefused,), ARCHIVES, 0.4),
        Target("a manifest", files.manifest, (ManifestMismatch,), MANIFESTS, 0.2),
        Target("a script's file", files.script, (ScriptRefused,), SCRIPTS, 0.2),
        Target("a log's file", files.log, (), log, 0.2),
        Target("worker.toml", files.toml, (CommandFailed,), TOML, 0.2),
        Target("tables", files.tables, (RunnerRefused, DeclarationRefused), _TABLES, 0.5),
        Target("remembered jobs", files.remembered, (), JOBS, 0.3),
        Target("known clients", files.clients, (KeyUnreadable,), _json({"k": ["submit"]}), 0.2),
        Target("an exit record", files.exit_record, (), EXIT_RECORDS, 0.2),
        Target("API keys", files.api_keys, (NoUsableKey,), (b"l " + b"k" * 40 + b"\n# x\n",), 0.2),
    )  # fmt: skip


class _Files:
    """Decoders that read a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _written(self, name: str, data: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(data)
        return path

    def archive(self, data: bytes) -> object:
        archive, dest = self._written("a.zip", data), self._folder / "unpacked"
        try:
            files = unpack(archive, dest, _LIMITS)
            assert all(path.is_relative_to(dest) and path.is_file() for path in files)
            assert sum(path.stat().st_size for path in files) <= _LIMITS.max_total_bytes
            peek(archive, "train-script.sh", 100, _LIMITS)
        finally:
            shutil.rmtree(dest, ignore_errors=True)
        return files

    def manifest(self, data: bytes) -> object:
        return read_manifest(self._written("manifest.json", data).parent)

    def script(self, data: bytes) -> object:
        return read_script(self._written("train-script.sh", data))

    def log(self, data: bytes) -> object:
        """Whatever a log holds, its pieces are read to its end and fit into frames."""
        reader, at = LogReader(self._written("log.txt", data)), 0
        limit = 256 if len(data) < 4096 else MAX_TEXT
        while True:
            piece = reader.read(at, limit, final=True)
            codec.encode(codec.Frame(msg=m.Log(job="j", offset=at, next=piece.next, text="")))
            assert len(msgspec.json.encode(piece.text)) - 2 <= limit
            if piece.next == at:
                break
            at = piece.next
        assert at == len(data)
        return at

    def toml(self, data: bytes) -> object:
        config = load({}, {}, self._written("worker.toml", data))
        config.lines()
        return config.objects()

    def tables(self, data: bytes) -> object:
        """Tables as a TOML parser gives them: values of any type under the names of any key."""
        try:
            found = json.loads(data)
            json.dumps(found, ensure_ascii=False).encode()  # a TOML file is UTF-8
        except (ValueError, RecursionError):
            return None
        tables = found if isinstance(found, dict) else {"x": found}
        declared = tables.pop("declare", {})
        if isinstance(declared, dict):
            read_declared(declared)
        return [read_runner(name, table, self._folder) for name, table in tables.items()]

    def remembered(self, data: bytes) -> object:
        found = Remembered(self._written("jobs.json", data))
        assert found.complaint == "" or found.entries == []
        found.job("j")
        assert len(found.entries) <= max(MOST, len(data))
        return found

    def clients(self, data: bytes) -> object:
        return KnownClients(self._written("clients.json", data)).rights("k")

    def exit_record(self, data: bytes) -> object:
        record = read_record(self._written("exit.json", data))
        assert record is None or isinstance(record.pid, int)
        return record

    def api_keys(self, data: bytes) -> object:
        return read_api_keys(self._written("keys.txt", data))
