"""Laws of the source that no other tool holds: what may stand where.

An exception is listed with its reason; one that is not needed any more fails too.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What a tool leaves behind, or what is not ours.
_NOT_OURS = {"__pycache__", "build", "dist", "results", "node_modules"}
_HIDDEN_BUT_OURS = {".ci", ".github", ".gitignore"}

MOST_LINES = 400
MOST_LINES_OF_THE_ORCHESTRATOR = 300
LONGER = {
    "fsm_worker/effects.py": "a vocabulary: one small struct an effect",
    "fsm_worker/events.py": "a vocabulary: one small struct an event",
    "protocol/messages.py": "a vocabulary: one small struct a message",
    "protocol/signaling.py": "a vocabulary: one small struct a message",
    "fsm_worker/services/supervisor.py": "it runs alone, from its file, and can import nothing",
}

_TURN = "sleep(0) gives others their turn, and waits for nothing"
SLEEPS = {
    ("fsm_worker/examples/digits/training.py", "train"): "--pace stretches an epoch on purpose",
    ("fsm_worker/services/job_executor.py", "_sample"): "a sampling rate, not a wait",
    ("fsm_worker/services/leftovers.py", "end_of"): (
        "a system without pidfd tells nobody but the parent that a process ended"
    ),
    ("fsm_worker/services/progress_reporter.py", "_read"): _TURN,
    ("fsm_worker/services/trainer_ports.py", "watch"): _TURN,
    ("fsm_worker/signaling/app.py", "_read"): _TURN,
    ("fsm_worker/signaling/server.py", "_close"): "uvicorn takes a connection some turns late",
}
TASKS = {
    (
        "fsm_worker/seams/gathering.py",
        "_to_its_end",
    ): "awaited right here, also when it is cancelled",
    ("fsm_worker/runtime.py", "spawn"): "the runtime's own task group, kept as its attribute",
    ("fsm_worker/signaling/server.py", "__aexit__"): (
        "closing goes on while the task that closes is cancelled; it is awaited right here"
    ),
}
CONNECTIONS = ("fsm_worker/worker_class.py", "fsm_worker/client/")
THE_ENGINE = "fsm_worker/machines/engine.py"
#: Of `services`, what a client may know: files on their way, and nothing about jobs.
FOR_CLIENTS = {
    "archive",
    "disk",
    "file_manager",
    "incoming_file",
    "log_stream",
    "manifest",
    "member_names",
    "packing",
    "shared_storage",
    "transfer",
}

Finding = tuple[int, str]  # line, function (or what was found)


def product_files() -> list[str]:
    return sorted(
        path.relative_to(ROOT).as_posix()
        for package in ("protocol", "fsm_worker")
        for path in (ROOT / package).rglob("*.py")
    )


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def calls(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.Call]]:
    """Every call, with the name of the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield within, node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from calls(node, node.name)
        else:
            yield from calls(node, within)


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or an attribute; what is called or subscripted counts as `()`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "()"


def imported_from(tree: ast.Module, module: str) -> dict[str, str]:
    """Names that a module takes out of another, and how they are called there."""
    return {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
    }


def sleeps(tree: ast.Module) -> Iterator[Finding]:
    bare = {
        name
        for module in ("time", "asyncio", "anyio")
        for name, origin in imported_from(tree, module).items()
        if origin == "sleep"
    }
    for function, call in calls(tree):
        name = dotted(call.func)
        if name in bare or name in {"time.sleep", "asyncio.sleep", "anyio.sleep"}:
            yield call.lineno, function


def unowned_tasks(tree: ast.Module) -> Iterator[Finding]:
    """Tasks that no task group owns."""
    groups = {
        dotted(item.optional_vars)
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if item.optional_vars is not None
        and isinstance(item.context_expr, ast.Call)
        and dotted(item.context_expr.func).endswith("TaskGroup")
    }
    bare = {name for name, origin in imported_from(tree, "asyncio").items()
            if origin in {"create_task", "ensure_future"}}  # fmt: skip
    for function, call in calls(tree):
        owner, _, verb = dotted(call.func).rpartition(".")
        free = verb in {"create_task", "ensure_future"} and owner not in groups and bool(owner)
        if free or dotted(call.func) in bare:
            yield call.lineno, function


def async_functions(trees: list[ast.Module]) -> set[str]:
    """Names that only `async def` functions have."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return {node.name for node in nodes if isinstance(node, ast.AsyncFunctionDef)} - plain


def async_handlers(tree: ast.Module, known: set[str]) -> Iterator[Finding]:
    """Coroutine functions given to `.on()`: pyee would start tasks that nobody owns."""

    def is_async(node: ast.expr) -> bool:
        if isinstance(node, ast.Lambda):
            return isinstance(node.body, ast.Call) and is_async(node.body.func)
        if isinstance(node, ast.Call) and dotted(node.func).endswith("partial") and node.args:
            return is_async(node.args[0])
        return dotted(node).rpartition(".")[2] in known

    for function, call in calls(tree):
        if isinstance(call.func, ast.Attribute) and call.func.attr in {
            "on",
            "once",
            "add_listener",
        }:
            for handler in (*call.args[1:], *(word.value for word in call.keywords)):
                if is_async(handler):
                    yield call.lineno, function
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                bare = decorator.func if isinstance(decorator, ast.Call) else decorator
                if isinstance(bare, ast.Attribute) and bare.attr in {"on", "once", "listens_to"}:
                    yield node.lineno, node.name


def peer_connections(tree: ast.Module) -> Iterator[Finding]:
    for function, call in calls(tree):
        if dotted(call.func).rpartition(".")[2] == "RTCPeerConnection":
            yield call.lineno, function


def set_states(tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if isinstance(node, ast.Attribute) and stored and node.attr == "state":
            yield node.lineno, "state"
    for function, call in calls(tree):
        if dotted(call.func) == "setattr" and any(
            isinstance(word, ast.Constant) and word.value == "state" for word in call.args
        ):
            yield call.lineno, function


def foreign_imports(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def found(check: Callable[[ast.Module], Iterator[Finding]]) -> dict[tuple[str, str], list[int]]:
    everywhere: dict[tuple[str, str], list[int]] = {}
    for name in product_files():
        for line, function in check(parsed(name)):
            everywhere.setdefault((name, function), []).append(line)
    return everywhere


def test_nothing_sleeps_but_for_a_listed_reason() -> None:
    assert set(found(sleeps)) == set(SLEEPS)


def test_every_task_has_an_owner() -> None:
    assert set(found(unowned_tasks)) == set(TASKS)


def test_no_coroutine_function_is_given_to_an_event_emitter() -> None:
    known = async_functions([parsed(name) for name in product_files()])
    assert found(lambda tree: async_handlers(tree, known)) == {}


def test_only_the_two_owners_make_peer_connections() -> None:
    assert [name for name, _ in found(peer_connections) if not name.startswith(CONNECTIONS)] == []


def test_only_the_engine_moves_a_state() -> None:
    assert {name for name, _ in found(set_states)} <= {THE_ENGINE}


def test_only_the_runtime_gives_a_world_its_events() -> None:
    feeders = {
        file
        for file in product_files()
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Attribute) and node.attr == "feed"
        if "world" in ast.unparse(node.value)
    }
    assert feeders == {"fsm_worker/runtime.py"}


def test_the_protocol_needs_nothing_but_msgspec() -> None:
    allowed = {"protocol", "msgspec", *sys.stdlib_module_names}
    foreign = {
        name.partition(".")[0]
        for file in product_files()
        if file.startswith("protocol/")
        for name in foreign_imports(parsed(file))
    }
    assert foreign - allowed == set()


def test_a_client_knows_of_services_what_moves_files() -> None:
    known = {
        name.split(".")[2]
        for file in product_files()
        if file.startswith("fsm_worker/client/")
        for name in foreign_imports(parsed(file))
        if name.startswith("fsm_worker.services.")
    }
    assert known <= FOR_CLIENTS


def test_a_module_has_one_job_and_so_few_lines() -> None:
    lines = {name: len((ROOT / name).read_text().splitlines()) for name in product_files()}
    long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert set(long) == set(LONGER)
    assert lines["fsm_worker/worker_class.py"] <= MOST_LINES_OF_THE_ORCHESTRATOR


def our_files(folder: Path = ROOT) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") and path.name not in _HIDDEN_BUT_OURS
        if hidden or path.name in _NOT_OURS or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            yield from our_files(path)
        else:
            yield path


def test_no_file_names_a_place_outside_the_repository() -> None:
    # Written in two parts, so that this file does not name them either.
    outside = re.compile(rb"(?<![\w./~-])/" rb"work\b|(?<![\w/-])shared" rb"/")
    named = {
        path.relative_to(ROOT).as_posix(): match[0]
        for path in our_files()
        if (match := outside.search(data := path.read_bytes())) and b"\0" not in data
    }
    assert named == {}


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (sleeps, "import time\ndef f():\n    time.sleep(1)"),
        (sleeps, "from asyncio import sleep as rest\nasync def f():\n    await rest(0.1)"),
        (unowned_tasks, "import asyncio\nasync def f():\n    asyncio.create_task(g())"),
        (unowned_tasks, "from asyncio import ensure_future\ndef f():\n    ensure_future(g())"),
        (unowned_tasks, "def f():\n    asyncio.get_running_loop().create_task(g())"),
        (peer_connections, "import aiortc\ndef f():\n    return aiortc.RTCPeerConnection()"),
        (set_states, "def f():\n    job.state = DONE"),
        (set_states, "def f():\n    job.state, x = DONE, 1"),
        (set_states, "def f():\n    setattr(job, 'state', DONE)"),
    ],
)
def test_these_checks_find_what_they_look_for(
    check: Callable[[ast.Module], Iterator[Finding]], source: str
) -> None:
    assert len(list(check(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "async def f(): ...\npc.on('track', f)",
        "async def f(): ...\npc.on('track', lambda track: self.f(track))",
        "async def f(): ...\npc.on('track', functools.partial(f, 1))",
        "async def f(): ...\npc.once('track', f=f)",
        "@pc.on('track')\nasync def f(): ...",
    ],
)
def test_a_coroutine_function_is_found_however_it_is_given(source: str) -> None:
    tree = ast.parse(source)
    assert len(list(async_handlers(tree, async_functions([tree])))) == 1


def test_a_task_of_a_task_group_is_owned() -> None:
    source = "async def f():\n    async with asyncio.TaskGroup() as group:\n        {}"
    assert list(unowned_tasks(ast.parse(source.format("group.create_task(g())")))) == []
    assert list(unowned_tasks(ast.parse(source.format("loop.create_task(g())")))) == [(3, "f")]
