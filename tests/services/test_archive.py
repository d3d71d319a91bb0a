"""Archives: what is packed comes back byte for byte, and nothing else is ever let out of one."""

import hashlib
import io
import json
import os
import shutil
import stat
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsm_worker.examples.digits import build_package
from fsm_worker.services.archive import (
    ArchiveRefused,
    ManifestMismatch,
    UnpackLimits,
    UnpackStopped,
    _unpack_file,
    find_script,
    pack,
    pack_results,
    package_root,
    read_manifest,
    snapshot,
    unpack,
    verify_manifest,
)
from fsm_worker.services.member_names import parts_of


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def make(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


FILES = {"b/c.txt": b"c" * 3000, "b.txt": b"", "a": os.urandom(70_000), "é/日本.bin": b"\0\xff"}


# --- packing ------------------------------------------------------------------------------------


def test_a_folder_comes_back_byte_for_byte_with_its_empty_folders(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", FILES)
    (folder / "models/empty").mkdir(parents=True)
    packed = pack(folder, tmp_path / "x.zip")
    files = unpack(packed.path, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)
    assert files == [tmp_path / "out" / name for name in sorted(FILES)]
    assert packed.files == len(FILES)
    assert packed.size == packed.path.stat().st_size
    assert packed.root == hashlib.sha256(packed.path.read_bytes()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "x.zip"]


def test_the_same_files_give_the_same_bytes_whatever_their_order_times_and_modes(
    tmp_path: Path,
) -> None:
    one = make(tmp_path / "one", FILES)
    two = make(tmp_path / "two", dict(reversed(FILES.items())))
    for path in two.rglob("*"):
        os.utime(path, (0, 0))
    (two / "a").chmod(0o700)
    assert pack(one, tmp_path / "1.zip").root == pack(two, tmp_path / "2.zip").root
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(FILES)


def test_every_byte_is_told_and_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", {"a": b"x" * 2_500_000, "b": b"y"})
    told: list[tuple[int, int]] = []
    pack(folder, tmp_path / "x.zip", on_bytes=lambda *both: told.append(both))
    assert told[0] == (0, 2_500_001)
    assert told[-1] == (2_500_001, 2_500_001)
    assert told == sorted(told)
    assert len(told) == 5

    def give_up(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    (tmp_path / "x.zip").unlink()
    with pytest.raises(KeyboardInterrupt):
        pack(folder, tmp_path / "x.zip", on_bytes=give_up)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_archive_made_inside_its_folder_does_not_hold_itself(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", {"a": b"1"})
    first = pack(folder, folder / "package.zip")
    assert pack(folder, folder / "package.zip").root == first.root
    assert [p.name for p in unpack(first.path, tmp_path / "out")] == ["a"]


def test_a_link_inside_is_packed_as_its_file_and_any_other_is_refused_by_name(
    tmp_path: Path,
) -> None:
    folder = make(tmp_path / "in", {"best.ckpt": b"best"})
    (folder / "last.ckpt").symlink_to("best.ckpt")
    unpack(pack(folder, tmp_path / "x.zip").path, tmp_path / "out")
    assert tree(tmp_path / "out") == {"best.ckpt": b"best", "last.ckpt": b"best"}
    make(tmp_path / "elsewhere", {"secret": b"s"})
    links = {"secret": "../elsewhere/secret", "all": "../elsewhere", "self": "self", "up": "."}
    for name, target in links.items():
        (folder / name).symlink_to(target)
        with pytest.raises(ArchiveRefused, match="is no file, or a link to none inside") as refused:
            pack(folder, tmp_path / "y.zip")
        assert refused.value.member == name
        (folder / name).unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ArchiveRefused, match="'pipe' is no file"):
        pack(folder, tmp_path / "y.zip")
    assert not (tmp_path / "y.zip").exists()


@pytest.mark.parametrize("name", ["aux.txt", "a\\b", "end.", "line\nbreak"])
def test_a_name_that_another_system_does_not_allow_is_refused_before_it_is_sent(
    tmp_path: Path, name: str
) -> None:
    folder = make(tmp_path / "in", {name: b""})
    with pytest.raises(ArchiveRefused, match="rename it") as refused:
        pack(folder, tmp_path / "x.zip")
    assert refused.value.member == name


_NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: "/" not in name and name not in (".", "..") and "\0" not in name
)


@settings(max_examples=60)
@given(st.dictionaries(_NAMES, st.binary(max_size=300), max_size=5))
def test_what_can_be_packed_can_be_unpacked_with_the_default_limits(
    files: dict[str, bytes],
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = make(Path(temporary) / "in", {f"top/{name}": files[name] for name in files})
        folder.mkdir(exist_ok=True)
        try:
            packed = pack(folder, Path(temporary) / "x.zip")
        except ArchiveRefused as refused:
            assert refused.member in {f"top/{name}" for name in files}
            return
        unpack(packed.path, Path(temporary) / "out")
        assert tree(Path(temporary) / "out") == tree(folder)


def test_a_folder_full_of_zeros_is_not_taken_for_a_bomb(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", {"mask": bytes(40_000_000)})
    packed = pack(folder, tmp_path / "x.zip")
    assert packed.size < 200_000
    unpack(packed.path, tmp_path / "out")


# --- results ------------------------------------------------------------------------------------


def test_results_carry_a_manifest_that_proves_them(tmp_path: Path) -> None:
    job = make(tmp_path / "job", {"results/model.npz": b"m" * 999, "data.npz": b"input"})
    make(tmp_path, {"output.log": b"epoch 1\n"})
    packed = pack_results(job, ["results"], tmp_path / "r.zip", log=tmp_path / "output.log")
    unpack(packed.path, tmp_path / "out")
    verify_manifest(tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {
        *("results", "results/model.npz", "output.log", "manifest.json")
    }
    assert (packed.files, packed.left_out) == (2, ())
    manifest = json.loads((tmp_path / "out/manifest.json").read_bytes())
    assert manifest["version"] == 1
    assert manifest["files"][1] == {
        "path": "results/model.npz",
        "size": 999,
        "sha256": hashlib.sha256(b"m" * 999).hexdigest(),
    }


def test_nothing_odd_among_the_results_keeps_the_rest_from_being_packed(tmp_path: Path) -> None:
    job = make(
        tmp_path / "job",
        {"out/model": b"m", "out/aux.txt": b"a", "out/A": b"1", "out/a": b"2", "manifest.json": b""}
        | {"output.log": b"the trainer's own"},
    )
    (tmp_path / "log").mkdir()
    make(tmp_path, {"log/output.log": b"the worker's"})
    (job / "out/link").symlink_to("/etc/hostname")
    (job / "away").symlink_to("/etc")
    os.mkfifo(job / "out/pipe")
    os.close(os.open(os.fsencode(job) + b"/out/caf\xe9", os.O_CREAT))
    outputs = ["out", "out/model", "missing", "away", "../log", "manifest.json", "output.log"]
    packed = pack_results(job, outputs, tmp_path / "r.zip", log=tmp_path / "log/output.log")
    unpack(packed.path, tmp_path / "out")
    verify_manifest(tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {
        *("out", "out/model", "out/A", "output.log", "job-output.log", "manifest.json")
    }
    left_out = {entry.path: entry.why for entry in packed.left_out}
    assert set(left_out) == {
        *("out/aux.txt", "out/a", "out/link", "out/pipe", "out/caf\\udce9"),
        *("missing", "away", "../log", "manifest.json"),
    }
    assert left_out["missing"] == "was not written"
    assert read_manifest(tmp_path / "out").left_out == packed.left_out


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder of a user who may not read everything."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o777)
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)


def test_an_unreadable_result_is_left_out_and_an_unreadable_input_refused(
    ordinary_folder: Path,
) -> None:
    job = make(ordinary_folder / "job", {"out/model": b"m", "out/dir/x": b"", "out/locked": b""})
    (job / "out/dir").chmod(0)
    with pytest.raises(ArchiveRefused, match="'out/dir' can't be read: Permission denied"):
        pack(job, ordinary_folder / "p.zip")
    (job / "out/locked").chmod(0)
    packed = pack_results(job, ["out"], ordinary_folder / "r.zip")
    assert packed.files == 1
    assert {entry.path for entry in packed.left_out} == {"out/locked", "out/dir"}
    (job / "out/dir").chmod(0o700)
    with pytest.raises(ArchiveRefused, match="'out/locked' can't be read: Permission denied"):
        pack(job, ordinary_folder / "p.zip")


def test_inputs_that_are_still_the_same_are_no_results(tmp_path: Path) -> None:
    job = make(tmp_path / "job", {"labels.slp": b"l", "models/old": b"o", "log.csv": b"1"})
    before = snapshot(job)
    make(job, {"models/new": b"n", "log.csv": b"1,2"})
    packed = pack_results(job, ["."], tmp_path / "r.zip", inputs=before)
    assert packed.files == 2
    unpack(packed.path, tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {"models", "models/new", "log.csv", "manifest.json"}


@pytest.mark.parametrize(
    ("harm", "path"),
    [
        (lambda out: (out / "r/a").write_bytes(b"other"), "r/a"),
        (lambda out: (out / "r/a").write_bytes(b"longer than it was"), "r/a"),
        (lambda out: (out / "r/a").unlink(), "r/a"),
        (lambda out: (out / "r/b").write_bytes(b""), "r/b"),
        (lambda out: (out / "r/b").symlink_to("a"), "r/b"),
        (lambda out: (out / "manifest.json").unlink(), "manifest.json"),
        (lambda out: (out / "manifest.json").write_bytes(b"\xff["), "manifest.json"),
        (lambda out: (out / "manifest.json").write_bytes(b'{"files": 1}'), "manifest.json"),
        (
            lambda out: (out / "manifest.json").write_bytes(b'{"files": [], "version": 2}'),
            "manifest.json",
        ),
        (
            lambda out: (out / "manifest.json").write_bytes(
                b'{"files": [{"path": "../a", "size": 0, "sha256": ""}]}'
            ),
            "manifest.json",
        ),
    ],
)
def test_any_difference_from_the_manifest_is_found_and_named(
    tmp_path: Path, harm: Callable[[Path], object], path: str
) -> None:
    job = make(tmp_path / "job", {"r/a": b"exact"})
    unpack(pack_results(job, ["r"], tmp_path / "r.zip").path, tmp_path / "out")
    verify_manifest(tmp_path / "out")
    harm(tmp_path / "out")
    with pytest.raises(ManifestMismatch) as mismatch:
        verify_manifest(tmp_path / "out")
    assert mismatch.value.path == path


# --- unpacking what somebody else packed ----------------------------------------------------------

Member = tuple[str, bytes, dict[str, int]]


def crafted(path: Path, *members: Member) -> Path:
    """Make an archive in which anything about a member may be a lie."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)  # that there are duplicates
        for name, content, attributes in members:
            info = zipfile.ZipInfo("x")
            info.filename = name  # past the constructor, which cuts names at a NUL
            info.create_system = 3
            info.external_attr = attributes.pop("external_attr", 0)
            info.compress_type = attributes.pop("compress_type", zipfile.ZIP_STORED)
            archive.writestr(info, content)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
    return path


def plain(name: str) -> Member:
    return (name, b"", {})


def special(name: str, mode: int) -> Member:
    return (name, b"/etc/passwd", {"external_attr": mode << 16})


HOSTILE_NAMES = [
    *("/etc/passwd", "//host/x", "../x", "a/../../x", "a/..", "..", ".", "./x", "a//b", "a/./b"),
    *("a\\b", "..\\x", "\\\\host\\x", "C:\\x", "C:/x", "C:x", "c:", "a\0.txt", "a\nb", "a\x1b[2J"),
    *("a\x7f", "a\x85b", "CON", "con.txt", "Aux", "nul.tar.gz", "a/PRN/b", "COM1", "lpt9.log"),
    *("com¹", "CONIN$", "nul .txt", "a.", "a ", "a./b", "/", "x/" * 40 + "x", "n" * 256),
    "m" * 200 + ("/" + "m" * 200) * 5,
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_is_not_plain_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str
) -> None:
    archive = crafted(tmp_path / "x.zip", plain("fine"), plain(name))
    with pytest.raises(ArchiveRefused) as refused:
        unpack(archive, tmp_path / "out")
    assert refused.value.member == name
    assert str(refused.value).isprintable()
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


HOSTILE_SETS: list[tuple[Member, ...]] = [
    (plain("a"), plain("a")),
    (plain("a/"), plain("a/")),
    (plain("a"), plain("A")),
    (plain("a/x"), plain("A/y")),
    (plain("straße"), plain("STRASSE")),
    (plain("caf\u00e9"), plain("cafe\u0301")),
    (plain("\u1e9b\u0323"), plain("\u1e69")),
    (plain("a"), plain("a/b")),
    (plain("a/b"), plain("a")),
    (plain("a"), plain("a/")),
    (special("link", stat.S_IFLNK | 0o777),),
    (special("link", stat.S_IFLNK | 0o777), plain("link/x")),
    (special("pipe", stat.S_IFIFO),),
    (special("disk", stat.S_IFBLK),),
    (special("tty", stat.S_IFCHR),),
    (special("socket", stat.S_IFSOCK),),
    (special("folder", stat.S_IFDIR),),
    (special("file/", stat.S_IFREG),),
    (("reparse", b"", {"external_attr": 0x400}),),
    (("secret", b"x", {"flag_bits": 0x1}),),
    (("secret", b"x", {"flag_bits": 0x41}),),
    (("bz", b"x" * 99, {"compress_type": zipfile.ZIP_BZIP2}),),
    (("xz", b"x" * 99, {"compress_type": zipfile.ZIP_LZMA}),),
    (("crc", b"content", {"CRC": 1}),),
    (("short", b"content", {"file_size": 3}),),
    (("long", b"content", {"file_size": 30, "compress_size": 30}),),
    (("longer", b"content", {"file_size": 30, "compress_type": zipfile.ZIP_DEFLATED}),),
    (("deflate", b"not deflated", {"compress_type": 0}), ("x", b"y", {"header_offset": 7})),
    (("a", b"same bytes", {}), ("b", b"same bytes", {"header_offset": 0})),
]


@pytest.mark.parametrize("members", HOSTILE_SETS)
def test_a_member_that_is_not_what_it_says_is_refused_and_nothing_is_written(
    tmp_path: Path, members: tuple[Member, ...]
) -> None:
    archive = crafted(tmp_path / "x.zip", *((name, body, dict(at)) for name, body, at in members))
    with pytest.raises(ArchiveRefused):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_names_that_only_look_dangerous_stay_what_they_are(tmp_path: Path) -> None:
    """Full-width dots and slashes, a percent escape, and three dots climb nowhere."""
    names = {
        "\uff0e\uff0e\uff0fx",
        "%2e%2e%2fx",
        "...x",
        "~root",
        "-rf",
        "$HOME",
        "a;b",
        "console.txt",
        "com10",
    }
    archive = crafted(tmp_path / "x.zip", *(plain(name) for name in sorted(names)))
    unpack(archive, tmp_path / "out")
    assert set(tree(tmp_path / "out")) == names


def test_windows_refuses_the_characters_that_only_it_can_not_have() -> None:
    assert parts_of("10:00 a?.txt", max_depth=2, windows=False) == ("10:00 a?.txt",)
    for name in ("ab:c", "dir/C:x", "a?", 'a"b', "a|b", "<a>", "a*"):
        with pytest.raises(ArchiveRefused, match="Windows does not allow"):
            parts_of(name, max_depth=9, windows=True)


def test_modes_in_an_archive_change_nothing(tmp_path: Path) -> None:
    archive = crafted(tmp_path / "x.zip", special("tool", stat.S_IFREG | 0o6777))
    (tool,) = unpack(archive, tmp_path / "out")
    assert stat.S_IMODE(tool.stat().st_mode) & 0o7111 == 0


def bomb(path: Path, size: int, **lies: int) -> Path:
    attributes = {"compress_type": zipfile.ZIP_DEFLATED, **lies}
    return crafted(path, ("zeros", bytes(size), attributes))


@pytest.mark.parametrize(
    ("limits", "lies"),
    [
        (UnpackLimits(), {}),
        (UnpackLimits(), {"file_size": 100}),
        (UnpackLimits(max_ratio=1e9, max_total_bytes=1_000_000), {}),
        (UnpackLimits(max_ratio=1e9, max_total_bytes=1_000_000), {"file_size": 0}),
    ],
)
def test_a_bomb_is_refused_whether_or_not_it_says_its_size(
    tmp_path: Path, limits: UnpackLimits, lies: dict[str, int]
) -> None:
    archive = bomb(tmp_path / "x.zip", 20_000_000, **lies)
    assert archive.stat().st_size < 30_000
    with pytest.raises(ArchiveRefused):
        unpack(archive, tmp_path / "out", limits)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_bytes_are_counted_as_they_come_out_whatever_any_header_says(tmp_path: Path) -> None:
    """`unpack` looks at the sizes in the headers first; this is the count that it relies on."""
    archive = bomb(tmp_path / "x.zip", 2_000_000)
    with zipfile.ZipFile(archive) as opened, pytest.raises(ArchiveRefused, match="1000 bytes"):
        _unpack_file(opened, opened.getinfo("zeros"), tmp_path / "zeros", 1000, lambda: False)
    assert (tmp_path / "zeros").stat().st_size <= 1000


def test_unpacking_can_be_stopped_before_any_member_and_any_block_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    folder = make(tmp_path / "in", {"a": os.urandom(600_000), "b/c": b"c"})
    (folder / "d").mkdir()
    archive = pack(folder, tmp_path / "x.zip").path
    shutil.rmtree(folder)
    looks = 0

    def count() -> bool:
        nonlocal looks
        looks += 1
        return False

    unpack(archive, tmp_path / "out", stopped=count)
    shutil.rmtree(tmp_path / "out")
    assert looks == 3 + 4  # members, and the blocks of two of them
    for last in range(looks):
        answers = iter([False] * last + [True])
        with pytest.raises(UnpackStopped):
            unpack(archive, tmp_path / "out", stopped=lambda answers=answers: next(answers))
        assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_sizes_are_counted_over_all_members(tmp_path: Path) -> None:
    members: list[Member] = [(f"f{n}", bytes(400), {}) for n in range(3)]
    archive = crafted(tmp_path / "x.zip", *members)
    unpack(archive, tmp_path / "enough", UnpackLimits(max_total_bytes=1200))
    with pytest.raises(ArchiveRefused, match="1199 bytes"):
        unpack(archive, tmp_path / "out", UnpackLimits(max_total_bytes=1199))


def test_more_entries_or_folders_than_allowed_are_refused(tmp_path: Path) -> None:
    archive = crafted(tmp_path / "x.zip", *(plain(f"d/{n}") for n in range(11)))
    unpack(archive, tmp_path / "enough", UnpackLimits(max_entries=11, max_depth=2))
    with pytest.raises(ArchiveRefused, match="more than 10 entries"):
        unpack(archive, tmp_path / "out", UnpackLimits(max_entries=10))
    with pytest.raises(ArchiveRefused, match="deeper than 1"):
        unpack(archive, tmp_path / "out", UnpackLimits(max_depth=1))


def test_a_directory_larger_than_its_entries_is_refused_before_it_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    size = 50_000_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0)
    with archive.open("wb") as file:
        file.seek(size)
        file.write(end)
    with pytest.raises(ArchiveRefused, match="larger directory"):
        unpack(archive, tmp_path / "out")
    (tmp_path / "many.zip").write_bytes(b"")
    crafted(tmp_path / "many.zip", *(plain(f"{n:0100}") for n in range(2000)))
    with pytest.raises(ArchiveRefused, match="larger directory"):
        unpack(tmp_path / "many.zip", tmp_path / "out", UnpackLimits(max_entries=10))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"not a zip", b"PK\5\6" + b"\xff" * 18, b"PK\5\6" + bytes(17), b"\x1f\x8b"],
)
def test_what_is_no_zip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ArchiveRefused, match="the archive is not a zip file"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def _valid() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train-script.sh", "d/é.bin", "e/"):
            archive.writestr(zipfile.ZipInfo(name), name.encode() * 20)
    return file.getvalue()


VALID = _valid()


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, len(VALID)),
)
def test_no_damage_to_an_archive_does_anything_but_refuse_it_or_give_its_files(
    changes: list[tuple[int, int]], end: int
) -> None:
    damaged = bytearray(VALID)
    for at, value in changes:
        damaged[at] = value
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "x.zip").write_bytes(damaged if end % 3 else damaged[:end])
        try:
            files = unpack(folder / "x.zip", folder / "out")
        except ArchiveRefused:
            assert [p.name for p in folder.iterdir()] == ["x.zip"]
            return
        assert all(path.is_file() for path in files)
        assert {p.name for p in folder.iterdir()} == {"x.zip", "out"}


def test_an_existing_folder_is_never_unpacked_into(tmp_path: Path) -> None:
    archive = crafted(tmp_path / "x.zip", plain("a"))
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="unpack into a new folder"):
        unpack(archive, tmp_path / "out")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        unpack(archive, tmp_path / "link")
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "gone.zip", tmp_path / "new")


# --- what a package is ----------------------------------------------------------------------------


@pytest.mark.parametrize("top", ["", "labels.v001/"])
def test_a_package_may_be_flat_or_have_one_folder_at_its_top(tmp_path: Path, top: str) -> None:
    package = build_package(tmp_path / "in" / (top or "."))
    make(tmp_path / "in", {"__MACOSX/._x": b"", ".DS_Store": b""})
    root = unpack(pack(tmp_path / "in", tmp_path / "x.zip").path, tmp_path / "out")
    assert package_root(tmp_path / "out") == tmp_path / "out" / top
    assert find_script(tmp_path / "out") == tmp_path / "out" / top / "train-script.sh"
    assert find_script(package, "train") == package / "train-script.sh"
    assert root


def test_a_package_without_one_script_says_what_to_add(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", {"a/data": b"", "b/train-script.sh": b""})
    with pytest.raises(ArchiveRefused, match=r"holds no train-script.sh or track-script.sh"):
        find_script(folder)
    make(folder, {"train-script.sh": b""})
    with pytest.raises(ArchiveRefused, match=r"holds no track-script.sh"):
        find_script(folder, "track")
    make(folder, {"track-script.sh": b""})
    assert find_script(folder, "track") == folder / "track-script.sh"
    with pytest.raises(ArchiveRefused, match="leave one of them out"):
        find_script(folder)
