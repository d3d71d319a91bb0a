"""What a job asks of a worker, as people write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.need import (
    MAX_NEED,
    READERS,
    NeedRefused,
    compute_of,
    parse_need,
    size_of,
)


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("vram=16GiB,runner=sleap-nn", {"vram": "16GiB", "runner": "sleap-nn"}),
        (" gpu = A100 , cpus=8 ", {"gpu": "A100", "cpus": "8"}),
        ("gpu=1", {"gpu": "1"}),
        ("gpu=4090", {"gpu": "4090"}),
        ("compute=8.0,disk=50 GiB,memory=1.5tb", {"compute": "8.0", "disk": "50 GiB",
                                                  "memory": "1.5tb"}),
        ("runner=sleap-nn train,tag=lab-b", {"runner": "sleap-nn train", "tag": "lab-b"}),
    ],
)  # fmt: skip
def test_a_need_is_read_in_the_order_written(text: str, need: dict[str, str]) -> None:
    assert list(parse_need(text).items()) == list(need.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write NAME=VALUE"),
        ("vram", "'vram' is no need: write NAME=VALUE"),
        ("vram=", "write NAME=VALUE"),
        ("=16GiB", "write NAME=VALUE"),
        ("vram=1GiB,", "write NAME=VALUE"),
        ("vrma=1GiB", "'vrma' is no need that is known: gpu, vram, compute, runner"),
        ("vram=1GiB,vram=2GiB", "vram is asked for twice"),
        ("vram=16", "vram=16 is no size: write it as 16GiB"),
        ("vram=16KiB", "is no size"),
        ("vram=-1GiB", "is no size"),
        ("vram=٣GiB", "is no size"),
        ("disk=1e9GiB", "is no size"),
        ("memory=9999999999GiB", "is no size"),
        ("cpus=eight", "cpus=eight is no number"),
        ("cpus=1.5", "is no number"),
        ("cpus=100000", "is no number"),
        ("compute=8.", "compute=8. is no compute capability: write it as 8.0"),
        ("compute=sm_80", "is no compute capability"),
        ("gpu=-1", "is no number and no name"),
        ("gpu=²", "is no number and no name"),
        ("tag=\x1b[2J", "is no name"),
        ("runner=" + "x" * 65, "is no name"),
        ("x" * (MAX_NEED + 1), f"at most {MAX_NEED} characters"),
    ],
)
def test_what_can_not_be_compared_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(NeedRefused) as refused:
        parse_need(text)
    assert said in refused.value.sentence
    assert refused.value.sentence == str(refused.value)
    assert refused.value.sentence.isprintable()
    assert len(refused.value.sentence) < 200


@given(st.text() | st.lists(st.tuples(st.sampled_from(sorted(READERS)), st.text())).map(
    lambda pairs: ",".join(f"{name}={value}" for name, value in pairs)
))  # fmt: skip
def test_any_text_is_a_need_or_is_refused(text: str) -> None:
    try:
        need = parse_need(text)
    except NeedRefused as refusal:
        assert refusal.sentence.isprintable()
    else:
        again = ",".join(f"{name}={value}" for name, value in need.items())
        assert parse_need(again) == need


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1MiB", 2**20),
        ("1GB", 10**9),
        ("0.5TiB", 2**39),
        ("0.0000001MB", 1),
        ("999999999TiB", 999999999 * 2**40),
    ],
)
def test_a_size_is_bytes_rounded_up(text: str, size: int) -> None:
    assert size_of("disk", text) == size


def test_ten_is_more_than_nine() -> None:
    assert compute_of("compute", "10.0") > compute_of("compute", "9.0") == (9, 0)
    assert compute_of("compute", "9") == (9, 0)
