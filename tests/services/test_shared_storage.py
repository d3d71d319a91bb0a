"""No word of a client leads out of the shared storage, or overwrites what is in it."""

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm_worker.services import shared_package, shared_results
from fsm_worker.services.archive import (
    ArchiveRefused,
    LeftOut,
    ManifestMismatch,
    UnpackLimits,
    UnpackStopped,
    verify_manifest,
)
from fsm_worker.services.disk import NotEnoughDisk
from fsm_worker.services.shared_package import take_package
from fsm_worker.services.shared_results import place_results
from fsm_worker.services.shared_storage import PathRefused, SharedStorage
from fsm_worker.services.spool import PackageRefused, SharedPackages
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import ResultsState

SCRIPT = "digits train --data digits.npz\n"
JOB = "job-00000001"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A storage with a package in it, and a file beside it that nobody may have."""
    root = tmp_path / "lab"
    (root / "jobs" / "one" / "data").mkdir(parents=True)
    (root / "jobs" / "one" / "train-script.sh").write_text(SCRIPT)
    (root / "jobs" / "one" / "data" / "labels.slp").write_bytes(b"labels")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "train-script.sh").write_text("stolen\n")
    return root


@pytest.fixture
def storage(root: Path) -> SharedStorage:
    return SharedStorage(root)


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def refused(doing: Callable[[], object]) -> str:
    with pytest.raises(PathRefused) as caught:
        doing()
    assert caught.value.code is ErrorCode.PATH_ERROR
    return caught.value.sentence


def open_package(storage: SharedStorage, path: str) -> None:
    with storage.package(path):
        pass


# --- every trick ----------------------------------------------------------------------------------

#: Names that would lead elsewhere somewhere.
TRICKS = (
    "", ".", "..", "/", "//", "../secret", "jobs/../../secret", "jobs/one/../../../secret",
    "./jobs/one", "jobs/./one", "jobs//one", "/etc/passwd", "//etc/passwd", "~", "~/x", "~root/x",
    "..\\secret", "jobs\\..\\..\\secret", "C:\\secret", "C:/secret", "c:secret", "\\\\host\\share",
    "jobs/one\x00", "jobs/one\n", "\x1bjobs", "jobs/\x7f", "\ud800", "jobs/\udcff",
    "..\u200b/secret", "\u2024\u2024/secret", "\uff0e\uff0e/secret", "\uff0e\uff0e\uff0fsecret",
    "\u2025/secret", "..\u2215secret", "..\u2044secret", "jobs\uff3csecret", "\u202e../secret",
    "jobs/one.", "jobs/one ", "jobs/one/ .. /x", ".. /secret", "... /x", "con", "jobs/NUL",
    "jobs/com1.txt", "aux.zip", "%2e%2e/secret", "..%2fsecret", "file:///etc/passwd",
    "x" * 256, "x/" * 40 + "y", "x" * 2000,
)  # fmt: skip


@pytest.mark.parametrize("path", TRICKS, ids=ascii)
def test_a_name_that_is_a_trick_is_refused_as_input(
    storage: SharedStorage, root: Path, path: str
) -> None:
    sentence = refused(lambda: open_package(storage, path))
    assert str(root) not in sentence, "where the root lies is nobody's business"
    assert sentence.isprintable()


@pytest.mark.parametrize("path", TRICKS, ids=ascii)
def test_a_name_that_is_a_trick_makes_nothing_outside(
    storage: SharedStorage, root: Path, tmp_path: Path, path: str
) -> None:
    outside = {name: data for name, data in everything(tmp_path).items() if name[:4] != "lab/"}
    for doing in (
        lambda: storage.check_output(path),
        lambda: place_results(storage, path, JOB, {}),
    ):
        try:
            doing()
        except ProtocolError as error:
            assert error.code is ErrorCode.PATH_ERROR
    left = {name: data for name, data in everything(tmp_path).items() if name[:4] != "lab/"}
    assert left == outside


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["..", ".", "", "a", "/", "\\", "~"])).map("/".join)
)
def test_no_text_leads_out(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    base = tmp_path_factory.mktemp("any")
    (base / "lab").mkdir()
    storage = SharedStorage(base / "lab")
    with contextlib.suppress(ProtocolError, OSError):
        place_results(storage, path, JOB, {})
    assert [one.name for one in base.iterdir()] == ["lab"]


@pytest.mark.parametrize("target", ["../../secret", "/", "/etc", "one", "../../lab/jobs/one", "no"])
def test_no_link_is_followed_wherever_it_leads(
    storage: SharedStorage, root: Path, target: str
) -> None:
    (root / "jobs" / "link").symlink_to(target)
    before = everything(root)
    for path in ("jobs/link", "jobs/link/train-script.sh", "jobs/link/deeper/x"):
        assert "link" in refused(lambda path=path: open_package(storage, path))
        assert "link" in refused(lambda path=path: storage.check_output(path))
    for path in ("jobs/link/out", "jobs/link/deeper/out"):
        refused(lambda path=path: place_results(storage, path, JOB, {}))
    assert everything(root) == before


def test_results_go_beside_a_link_and_not_through_it(
    storage: SharedStorage, root: Path, tmp_path: Path
) -> None:
    """It came after the folder was checked."""
    (root / "out").symlink_to(tmp_path / "secret")
    placed = place_results(storage, "out", JOB, {})
    assert placed.folder == f"out-{JOB}"
    assert (root / "out").is_symlink()
    assert everything(tmp_path / "secret") == {"train-script.sh": b"stolen\n"}


@pytest.mark.parametrize("part", ["jobs", "one", "train-script.sh"])
def test_what_becomes_a_link_between_two_looks_at_it_is_refused(
    storage: SharedStorage, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Somebody is as fast as can be: it was a folder, or a file, a moment before it is opened."""
    twin = tmp_path / "one"
    twin.mkdir()
    (twin / "train-script.sh").write_text("stolen\n")
    place = {"jobs": "jobs", "one": "jobs/one", "train-script.sh": "jobs/one/train-script.sh"}[part]
    target = {"jobs": tmp_path, "one": twin, "train-script.sh": twin / "train-script.sh"}[part]
    really_open, swapped = os.open, []

    def open_late(name: object, *args: int, dir_fd: int | None = None) -> int:
        if name == part and not swapped:
            (root / place).rename(tmp_path / "moved")
            (root / place).symlink_to(target)
            swapped.append(name)
        return really_open(name, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_late)
    refused(lambda: open_package(storage, "jobs/one/train-script.sh"))
    assert swapped == [part]


def test_what_is_no_file_and_no_folder_is_refused_at_once(
    storage: SharedStorage, root: Path
) -> None:
    os.mkfifo(root / "pipe")
    assert "neither a file nor a folder" in refused(lambda: open_package(storage, "pipe"))
    (root / "file").touch()
    assert "no folder" in refused(lambda: open_package(storage, "file/x"))
    assert "no folder" in refused(lambda: storage.check_output("file"))
    assert "not there" in refused(lambda: open_package(storage, "jobs/two"))


def test_a_storage_that_is_not_mounted_is_said_without_its_place(tmp_path: Path) -> None:
    storage = SharedStorage(tmp_path / "later")
    assert not storage.is_there()
    sentence = refused(lambda: open_package(storage, "jobs/one"))
    assert "is not there now" in sentence
    assert str(tmp_path) not in sentence
    (tmp_path / "later").mkdir()
    assert storage.is_there()


@pytest.mark.parametrize("root", [None, ""])
def test_a_worker_without_a_storage_says_how_it_gets_one(root: str | None) -> None:
    storage = SharedStorage(root)
    assert not storage.is_there()
    for doing in (
        lambda: open_package(storage, "x"),
        lambda: storage.check_output("x"),
        lambda: place_results(storage, "x", JOB, {}),
    ):
        with pytest.raises(ProtocolError, match="--shared-storage") as caught:
            doing()
        assert caught.value.code is ErrorCode.NOT_SUPPORTED


# --- the folder for results -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["out", "jobs/one/out", "new/er/out", "jobs/empty", "out/"])
def test_a_new_or_an_empty_folder_can_hold_results(
    storage: SharedStorage, root: Path, path: str
) -> None:
    (root / "jobs" / "empty").mkdir()
    before = everything(root)
    storage.check_output(path)
    assert everything(root) == before


def test_a_folder_with_something_in_it_can_not(storage: SharedStorage) -> None:
    assert "holds something" in refused(lambda: storage.check_output("jobs/one"))


@contextlib.contextmanager
def nobody_special() -> Iterator[None]:
    """As root, who may write everywhere, somebody else for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_folder_that_the_worker_may_not_make_is_refused_before_the_job_runs() -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is for its owner alone
        root = Path(folder)
        (root / "jobs" / "empty").mkdir(parents=True)
        (root / "open").mkdir()
        (root / "open").chmod(0o777)
        for one in (root, root / "jobs"):
            one.chmod(0o555)
        storage = SharedStorage(root)
        with nobody_special():
            for path in ("out", "jobs/out", "jobs/new/er", "jobs/empty"):
                sentence = refused(lambda path=path: storage.check_output(path))
                assert "may not be written" in sentence
            storage.check_output("open/out")
        for one in (root, root / "jobs"):
            one.chmod(0o755)


# --- packages -------------------------------------------------------------------------------------


def test_a_folder_is_copied_whole(storage: SharedStorage, root: Path, tmp_path: Path) -> None:
    (root / "jobs" / "one" / "empty").mkdir()
    take_package(storage, "jobs/one", tmp_path / "here", UnpackLimits())
    assert everything(tmp_path / "here") == everything(root / "jobs" / "one")
    (tmp_path / "here" / "data" / "labels.slp").write_bytes(b"changed")
    assert (root / "jobs" / "one" / "data" / "labels.slp").read_bytes() == b"labels"


def test_an_archive_is_unpacked(storage: SharedStorage, root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(root / "in.zip", "w") as archive:
        archive.writestr("one/train-script.sh", SCRIPT)
    take_package(storage, "in.zip", tmp_path / "here", UnpackLimits())
    assert everything(tmp_path / "here") == {"one": b"", "one/train-script.sh": SCRIPT.encode()}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: (folder / "x").symlink_to("../../secret/train-script.sh"), "link"),
        (lambda folder: (folder / "x").symlink_to("/"), "link"),
        (lambda folder: (folder / "x").symlink_to("data"), "link"),
        (lambda folder: os.mkfifo(folder / "x"), "link or a device"),
        (lambda folder: (folder / "a\\b").touch(), "backslash"),
        (lambda folder: (folder / "LABELS").touch() or (folder / "labels").touch(), "same name"),
        (lambda folder: (folder / "nul").touch(), "device on Windows"),
        (lambda folder: (folder / "big").write_bytes(b"x" * 200), "does not fit"),
        (lambda folder: [(folder / f"{n}").touch() for n in range(20)], "more than 9 entries"),
        (lambda folder: (folder / "a/b/c/d/e").mkdir(parents=True), "deeper than 4"),
    ],
)
def test_what_an_archive_may_not_hold_a_folder_may_not_either(
    storage: SharedStorage,
    root: Path,
    tmp_path: Path,
    make: Callable[[Path], object],
    words: str,
) -> None:
    make(root / "jobs" / "one")
    limits = UnpackLimits(max_entries=9, max_total_bytes=150, max_depth=4)
    with pytest.raises(ArchiveRefused, match=words):
        take_package(storage, "jobs/one", tmp_path / "here", limits)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["lab", "secret"]


def test_a_disk_without_room_is_said_before_anything_is_written(
    storage: SharedStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_package, "free_bytes", lambda _folder: 1000)
    with pytest.raises(NotEnoughDisk):
        take_package(storage, "jobs/one", tmp_path / "here", UnpackLimits())
    monkeypatch.setattr(shared_package, "free_bytes", lambda _folder: shared_package.RESERVE + 10)
    with pytest.raises(ArchiveRefused, match="does not fit into the 10 bytes"):
        take_package(storage, "jobs/one", tmp_path / "here", UnpackLimits())
    assert not (tmp_path / "here").exists()


def test_copying_ends_when_nobody_waits_for_it(storage: SharedStorage, tmp_path: Path) -> None:
    asked: list[bool] = []

    def stopped() -> bool:
        asked.append(True)
        return len(asked) > 2

    with pytest.raises(UnpackStopped):
        take_package(storage, "jobs/one", tmp_path / "here", UnpackLimits(), stopped=stopped)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["lab", "secret"]


# --- the script, for clients of sleap-rtc ---------------------------------------------------------


@pytest.mark.parametrize("top", ["", "inner/"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("kind", "names"), [("train", ("a",)), ("track", ("inference",))])
def test_the_commands_of_a_package_are_known_before_it_is_copied(
    storage: SharedStorage, root: Path, top: str, zipped: bool, kind: str, names: tuple[str, ...]
) -> None:
    name, text = f"{top}{kind}-script.sh", "sleap-nn any --config-name a.yaml\n"
    if zipped:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr(name, text)
        (root / "in").write_bytes(data.getvalue())
    else:
        (root / "in" / name).parent.mkdir(parents=True)
        (root / "in" / name).write_text(text)
    assert SharedPackages(storage).check_input("in") == (kind, names)


def test_a_package_without_a_script_is_refused_and_a_bad_script_is_the_workers_to_refuse(
    storage: SharedStorage, root: Path
) -> None:
    packages = SharedPackages(storage)
    (root / "in").mkdir()
    with pytest.raises(PackageRefused, match=r"holds no train-script\.sh"):
        packages.check_input("in")
    (root / "in" / "train-script.sh").symlink_to("../../secret/train-script.sh")
    with pytest.raises(PackageRefused):
        packages.check_input("in")
    (root / "in" / "train-script.sh").unlink()
    (root / "in" / "train-script.sh").write_text("rm -rf / | sh\n")
    assert packages.check_input("in") == ("train", ())


# --- results --------------------------------------------------------------------------------------


@pytest.fixture
def members(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "best").write_bytes(b"weights")
    (tmp_path / "made" / "log").write_bytes(b"epoch 1\n")
    return {
        "models/best.bin": tmp_path / "made" / "best",
        "output.log": tmp_path / "made" / "log",
        "models/none/": tmp_path / "made",
    }


def test_results_appear_whole_with_a_manifest_that_the_worker_vouches_for(
    storage: SharedStorage, root: Path, members: dict[str, Path]
) -> None:
    placed = place_results(
        storage, "jobs/one/out/", JOB, members, [LeftOut(path="x", why="was not written")]
    )
    folder = root / "jobs" / "one" / "out"
    assert (placed.state, placed.folder) == (ResultsState.SHARED, "jobs/one/out")
    assert (placed.files, placed.size, placed.root) == (2, 15, "")
    assert placed.manifest == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    verify_manifest(folder, placed.manifest)
    assert (folder / "models" / "best.bin").read_bytes() == b"weights"
    assert (folder / "models" / "none").is_dir()
    assert json.loads((folder / "manifest.json").read_text())["left_out"][0]["path"] == "x"
    assert [one.name for one in folder.parent.iterdir() if one.name.startswith(".")] == []
    with pytest.raises(ManifestMismatch, match="not the one"):
        verify_manifest(folder, "0" * 64)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_empty_folder_keeps_its_owner(
    storage: SharedStorage, root: Path, members: dict[str, Path]
) -> None:
    (root / "out").mkdir()
    os.chown(root / "out", 12345, 23456)
    place_results(storage, "out", JOB, members)
    after = (root / "out").stat()
    assert (after.st_uid, after.st_gid) == (12345, 23456)


def test_an_empty_folder_keeps_its_permissions(
    storage: SharedStorage, root: Path, members: dict[str, Path]
) -> None:
    (root / "out").mkdir()
    (root / "out").chmod(0o770)
    assert place_results(storage, "out", JOB, members).folder == "out"
    assert (root / "out").stat().st_mode & 0o777 == 0o770


@pytest.mark.parametrize("taken", ["folder", "file"])
def test_what_has_come_there_meanwhile_is_not_touched(
    storage: SharedStorage, root: Path, members: dict[str, Path], taken: str
) -> None:
    if taken == "folder":
        (root / "out").mkdir()
        (root / "out" / "mine").write_text("mine")
    else:
        (root / "out").write_text("mine")
    before = everything(root)
    placed = place_results(storage, "out", JOB, members)
    assert placed.folder == f"out-{JOB}"
    verify_manifest(root / placed.folder, placed.manifest)
    after = everything(root)
    assert {name: after[name] for name in before} == before
    (root / "again").mkdir()
    (root / "again" / "mine").touch()
    (root / f"again-{JOB}").mkdir()
    (root / f"again-{JOB}" / "mine").touch()
    before = everything(root)
    assert "so does the folder beside it" in refused(
        lambda: place_results(storage, "again", JOB, members)
    )
    assert everything(root) == before


def test_a_copy_that_fails_leaves_nothing(
    storage: SharedStorage, root: Path, members: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoLongerWanted(Exception):
        pass

    def end(done: int, _total: int) -> None:
        if done:
            raise NoLongerWanted

    before = everything(root)
    with pytest.raises(NoLongerWanted):
        place_results(storage, "out", JOB, members, on_bytes=end)
    assert everything(root) == before
    monkeypatch.setattr(shared_results, "RESERVE", 2**62)
    with pytest.raises(NotEnoughDisk):
        place_results(storage, "out", JOB, members)
    assert everything(root) == before


def test_a_file_that_can_not_be_read_is_left_out_and_said(
    storage: SharedStorage, root: Path, members: dict[str, Path]
) -> None:
    members["models/gone.bin"] = members["output.log"].parent  # it opens as no file
    placed = place_results(storage, "out", JOB, members)
    manifest = json.loads((root / "out" / "manifest.json").read_text())
    assert [one["path"] for one in manifest["left_out"]] == ["models/gone.bin"]
    verify_manifest(root / "out", placed.manifest)
