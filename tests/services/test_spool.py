"""Files of clients of sleap-rtc: whole and hashed, or refused; and gone when they have gone on."""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsm_worker.services import spool as module
from fsm_worker.services.disk import NotEnoughDisk
from fsm_worker.services.script import commands
from fsm_worker.services.spool import FileSpool, PackageRefused, Spools, name_of


def zipped(**files: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_DOT_", "."), content)
    return target.getvalue()


def package(script: str, kind: str = "train", top: str = "") -> bytes:
    return zipped(**{f"{top}{kind}-script_DOT_sh": script.encode()})


@pytest.fixture
def spools(tmp_path: Path) -> Iterator[Spools]:
    made = Spools(tmp_path / "guests")
    yield made
    for spool in made._open:
        spool.discard()


def filled(spools: Spools, data: bytes, size: int | None = None) -> FileSpool:
    spool = spools.open(len(data) if size is None else size)
    for start in range(0, len(data), 7):
        spool.append(data[start : start + 7])
    return spool


@pytest.mark.parametrize("top", ["", "digits__"])
def test_a_whole_package_has_a_hash_and_names(spools: Spools, top: str) -> None:
    script = (
        "sleap-nn train --config-name centroid.yaml\nsleap-nn train -c topdown --config-dir .\n"
    )
    data = package(script, top=top)
    root, names = filled(spools, data).check("train")
    assert root == hashlib.sha256(data).hexdigest()
    assert names == ("centroid", "topdown")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("sleap-nn train --config-name a/b/centroid.yaml", "centroid"),
        ("sleap-nn train --config=b.yml", "b"),
        ("sleap-nn train my.config.yaml trainer_config.max_epochs=2", "my.config"),
        ("digits train --epochs 2", "digits"),
        ("'x::y z' --epochs 2", "x_y_z"),
        ("sleap-nn train --config-name .yaml", "yaml"),
    ],
)
def test_a_command_is_called_as_its_configuration(line: str, name: str) -> None:
    [words] = commands(line)
    assert name_of(words, "train") == name
    assert name_of(words, "track") == "inference"


@pytest.mark.parametrize("more", [-1, 1, 1000])
def test_another_size_than_announced_is_refused(spools: Spools, more: int) -> None:
    data = package("digits train\n")
    spool = filled(spools, data, len(data) + more)
    with pytest.raises(PackageRefused, match=f"{len(data)} bytes came and {len(data) + more}"):
        spool.check("train")


def test_no_more_than_was_announced_is_written(spools: Spools, tmp_path: Path) -> None:
    filled(spools, b"x" * 1000, 10)
    assert [path.stat().st_size for path in (tmp_path / "guests").iterdir()] == [10]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04 no zip", "not a zip file"),
        (package("digits train\n", "track"), "train-script.sh"),
        (package("digits train\n", top="a__b__"), "train-script.sh"),
        (b"", "0 bytes came"),
    ],
)
def test_what_is_no_package_of_its_kind_is_refused(spools: Spools, data: bytes, words: str) -> None:
    with pytest.raises(PackageRefused, match=words):
        filled(spools, data).check("train")


def test_a_script_that_the_worker_will_refuse_is_the_worker_s_to_refuse(spools: Spools) -> None:
    data = package("rm -rf / && echo\n")
    assert filled(spools, data).check("train") == (hashlib.sha256(data).hexdigest(), ())


def test_a_disk_that_fails_is_told_at_the_end(
    spools: Spools, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_at", full)
    spool = filled(spools, package("digits train\n"))
    with pytest.raises(PackageRefused, match="No space left"):
        spool.check("train")


def test_there_must_be_room_for_what_was_promised_too(
    spools: Spools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda _: module.RESERVE + 1000)
    first = spools.open(600)
    with pytest.raises(NotEnoughDisk):
        spools.open(600)
    first.discard()
    spools.open(600)


def test_what_an_earlier_process_left_goes(tmp_path: Path) -> None:
    (tmp_path / "guests" / "old").mkdir(parents=True)
    (tmp_path / "guests" / "7").write_bytes(b"left")
    spool = Spools(tmp_path / "guests").open(1)
    assert [path.name for path in (tmp_path / "guests").iterdir()] == ["1"]
    spool.discard()


def results(spools: Spools, data: bytes) -> FileSpool:
    spool = spools.open(len(data))
    half = len(data) // 2
    spool.write(half, data[half:])
    assert not spool.complete
    spool.write(0, data[:half])
    assert spool.complete
    return spool


def test_training_gives_the_archive_and_tracking_the_predictions_in_it(
    spools: Spools, tmp_path: Path
) -> None:
    slp = os.urandom(3000)
    data = zipped(
        out__a_DOT_slp=slp, b_DOT_slp=b"", output_DOT_log=b"said", manifest_DOT_json=b"{}"
    )
    spool = results(spools, data)
    assert spool.digest() == hashlib.sha256(data).hexdigest()
    assert spool.for_client("train", "v1:labels.zip") == (("trained_v1_labels.zip", spool),)
    found = spool.for_client("track", "labels.zip")
    assert [(name, file.size) for name, file in found] == [("a.slp", 3000), ("b.slp", 0)]
    assert found[0][1].read(1000, 5000) == slp[1000:]
    spool.discard()
    spool.discard()
    assert list((tmp_path / "guests").iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        found[0][1].read(0, 1)
