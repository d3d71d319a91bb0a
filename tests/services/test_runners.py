"""Scripts: what a worker runs of them, and that it runs nothing else."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from fsm_worker.examples.digits import build_package
from fsm_worker.services.runners import (
    Ports,
    Runner,
    ScriptRefused,
    Stage,
    builtin_runners,
    parse_script,
    read_script,
    runner_of,
)

PORTS = Ports("tcp://127.0.0.1:4001", "tcp://127.0.0.1:4002")
SLEAP_NN = Path(sys.executable)  # any program: these tests only look at argument vectors
MINE = Runner("mine", ("python3", "/opt/mine/train.py"))
RUNNERS = {**builtin_runners(SLEAP_NN), ("mine",): MINE}
DIGITS = "digits train --data digits.npz"
TRAIN = "sleap-nn train --config-name config.yaml --config-dir ."
TRACK = "sleap-nn track --data_path labels.pkg.slp --model_paths models/good -o out.slp"


def stages(text: str) -> list[tuple[str, tuple[str, ...], int]]:
    return [(stage.runner, stage.args, stage.line) for stage in parse_script(text, RUNNERS)]


def argv(text: str) -> tuple[str, ...]:
    (stage,) = parse_script(text, RUNNERS)
    return runner_of(stage, RUNNERS).argv(stage, PORTS)


def test_a_script_may_have_comments_blank_lines_continuations_quotes_and_several_stages() -> None:
    text = (
        "#!/bin/bash\n"
        "# Auto-generated; `rm -rf /` in a comment \\\n"
        "\n"
        "sleap-nn train --config-name 'my config.yaml' \\\n"
        "  --config-dir .  # where it is\n"
        "\tsleap-nn track \\\r\n"
        "  --data_path labels.pkg.slp \\\r\n"
        '  --model_paths "models/a b" -o out\\ 1.slp\r\n'
        "digits train --data=digits.npz"
    )
    assert stages(text) == [
        ("sleap-nn train", ("--config-name", "my config.yaml", "--config-dir", "."), 4),
        (
            "sleap-nn track",
            ("--data_path", "labels.pkg.slp", "--model_paths", "models/a b", "-o", "out 1.slp"),
            6,
        ),
        ("digits", ("--data=digits.npz",), 9),
    ]


def test_what_sleap_exports_is_accepted() -> None:
    """As written by sleap's "export training job package", now and before sleap-nn 0.1."""
    overrides = "trainer_config.ckpt_dir=models trainer_config.run_name=260818.centroid.n=180 "
    for program in ("sleap-nn train", "sleap-nn-train"):
        text = f"#!/bin/bash\n{program} --config-name centroid.yaml --config-dir . {overrides}\n"
        assert argv(text) == (
            *(str(SLEAP_NN), "train", "--config-name", "centroid.yaml", "--config-dir", "."),
            *overrides.split(),
            "++trainer_config.zmq.publish_port=4001",
            "++trainer_config.zmq.controller_port=4002",
        )


# Each line: a script, and the line where it must be refused.
HOSTILE = [
    ("", 1),
    ("#!/bin/bash\n# nothing\n\n", 1),
    (f"#!/bin/bash\n{DIGITS}\nrm -rf /\n", 3),
    (f"{DIGITS}; rm -rf x", 1),
    (f"{DIGITS} && touch x", 1),
    (f"{DIGITS} || touch x", 1),
    (f"{DIGITS} | tee log", 1),
    (f"{DIGITS} &", 1),
    (f"{DIGITS} > log", 1),
    (f"{DIGITS} 2>&1", 1),
    (f"{DIGITS} < in", 1),
    (f"{DIGITS} << EOF\nx\nEOF", 1),
    (f"{DIGITS} --output `id`", 1),
    (f"{DIGITS} --output $(id)", 1),
    (f'{DIGITS} --output "$(id)"', 1),
    (f"{DIGITS} --output $HOME", 1),
    (f'{DIGITS} --output "${{HOME}}"', 1),
    (f"{DIGITS} --output '${{oc.env:HOME}}'", 1),
    (f"{DIGITS} --output \\$HOME", 1),
    (f"{DIGITS} \\\n  --output a*b", 2),
    (f"{DIGITS} --output a?", 1),
    (f"{DIGITS} --output {{a,b}}", 1),
    (f"{DIGITS} --output [ab]", 1),
    (f"{DIGITS} --output ~/x", 1),
    (f"(\n{DIGITS}\n)", 1),
    (f"{{ {DIGITS}; }}", 1),
    (f"if true; then\n{DIGITS}\nfi", 1),
    (f"CUDA_VISIBLE_DEVICES=1 {DIGITS}", 1),
    (f"\nexport A=1\n{DIGITS}", 2),
    (f"cd ..\n{DIGITS}", 1),
    (f"exec {DIGITS}", 1),
    (f"sudo {DIGITS}", 1),
    (f"python -m {DIGITS}", 1),
    (f". ./env.sh\n{DIGITS}", 1),
    (f"./{DIGITS}", 1),
    (f"/usr/bin/{TRAIN}", 1),
    (f"'' {DIGITS}", 1),
    (f"{DIGITS}\nset -e", 2),
    (f"{DIGITS}\rrm -rf x", 1),
    (f"{DIGITS}\n\rrm -rf x\n", 2),
    (f"{DIGITS}\r", 1),
    (f"{DIGITS}\0", 1),
    (f"# a\n{DIGITS}\x1b[2K", 2),
    (f"{DIGITS}\v{DIGITS}", 1),
    (f"{DIGITS}\u2028rm", 1),
    (f"{DIGITS} --output \u202ex", 1),
    (f"\ufeff{DIGITS}", 1),
    (f"digits\u00a0train --data digits.npz\n{DIGITS}", 1),
    (f"{DIGITS} --output 'a\nb'", 1),
    (f'{DIGITS} --output "a', 1),
    (f"{DIGITS}\n{DIGITS} --output \\", 2),
    ("digits \\\n train --data digits.npz --output res\\\nults", 3),
    (f"# comment \\\nrm x\n{DIGITS}", 2),
    (f"{DIGITS} \\\n# end\nrm x", 3),
    ("digits predict --data digits.npz", 1),
    ("sleap-nn \\\n  predict x", 2),
    ("digits", 1),
    ("digits train", 1),
    ("digits train --epochs 3", 1),
    (f"{DIGITS} --epochs \\\n 0", 2),
    (f"{DIGITS} --epochs 1e3", 1),
    (f"{DIGITS} --epochs", 1),
    (f"{DIGITS} --epochs=", 1),
    (f"{DIGITS} --epochs ٣", 1),
    (f"{DIGITS} --lr nan", 1),
    (f"{DIGITS} --lr -0.1", 1),
    (f"{DIGITS} --output ''", 1),
    (f"{DIGITS} --output --epochs 3", 1),
    (f"{DIGITS} --epoch 3", 1),
    (f"{DIGITS} \\\n --help", 2),
    (f"{DIGITS} more", 1),
    ("digits train --data /etc/passwd", 1),
    ("digits train --data ../../etc/passwd", 1),
    ("digits train --data a/../../b", 1),
    ("digits train --data=/etc/passwd", 1),
    ("digits train --data 'C:\\x'", 1),
    ("digits train --data '~root/x'", 1),
    (f"{TRAIN}\nsleap-nn train --config /etc/x.yaml", 2),
    ("sleap-nn train ../x.yaml", 1),
    ("sleap-nn train --config-dir .. --config-name x", 1),
    ("sleap-nn train trainer_config.max_epochs=3", 1),
    ("sleap-nn train --config-name", 1),
    ("sleap-nn train --help", 1),
    ("sleap-nn train -cx.yaml", 1),
    (f"{TRAIN} trainer_config.ckpt_dir=/tmp", 1),
    (f"{TRAIN} ++trainer_config.ckpt_dir=a/../..", 1),
    (f"{TRAIN} \\\n data_config.train_labels_path=[ok.slp,/etc/x]", 2),
    (f"{TRAIN} 'data_config={{a: /etc/x}}'", 1),
    (f"{TRAIN} data_config.train_labels_path=\"['/etc/x']\"", 1),
    (f"{TRAIN} data_config.x=file:///etc/x", 1),
    (f"{TRAIN} data_config.x=https://example.org/x", 1),
    (f"{TRAIN} hydra.run.dir=x", 1),
    (f"{TRAIN} +hydra/launcher=x", 1),
    (f"{TRAIN} 'hydra.searchpath=[pkg://x]'", 1),
    (f"{TRAIN} --config-path x", 1),
    (f"{TRAIN} --video-paths", 1),
    (f"{TRAIN} --prefix-map /old", 1),
    (f"{TRAIN} --prefix-map /old /etc", 1),
    (f"{TRACK} -o /tmp/x.slp", 1),
    (f"{TRACK} -o/tmp/x.slp", 1),
    (f"{TRACK} -to/tmp/x.slp", 1),
    (f"{TRACK} -o../x.slp", 1),
    (f"{TRACK} --model_paths=/root/m", 1),
    ("sleap-nn track --data_path a.slp --video_index 1", 1),
    ("sleap-nn track --model_paths a", 1),
    ("mine --config=/etc/x", 1),
    ("# " + "x" * 70_000, 1),
]


@pytest.mark.parametrize(("text", "line"), HOSTILE)
def test_anything_but_a_known_command_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ScriptRefused) as refused:
        parse_script(text, RUNNERS)
    assert refused.value.line == line
    assert str(refused.value) == f"line {line}: {refused.value.sentence}"
    assert refused.value.sentence.isprintable()
    assert len(refused.value.sentence) < 400


def test_a_refusal_of_the_package_s_own_code_names_the_setting_that_allows_it() -> None:
    with pytest.raises(ScriptRefused, match="allow_package_code") as refused:
        parse_script("# mine\npython train.py", builtin_runners())
    assert refused.value.line == 2


def test_a_refusal_names_the_word_and_what_is_allowed() -> None:
    with pytest.raises(ScriptRefused, match=r"^line 2: `rm` is not run.* digits train, mine"):
        parse_script(f"{DIGITS}\nrm x", RUNNERS)
    with pytest.raises(ScriptRefused, match=r"`/etc/x` in `a=\[b,/etc/x\]` is outside the package"):
        parse_script(f"{TRAIN} a=[b,/etc/x]", RUNNERS)
    with pytest.raises(ScriptRefused, match=r"`0` after --epochs is not a whole number from 1"):
        parse_script(f"{DIGITS} --epochs 0", RUNNERS)
    with pytest.raises(ScriptRefused, match="allowed here: nothing"):
        parse_script(DIGITS, {})


def test_a_script_that_is_not_utf8_or_too_long_is_refused_before_it_is_parsed(
    tmp_path: Path,
) -> None:
    script = tmp_path / "train-script.sh"
    script.write_bytes(f"{DIGITS}\n# caf\xe9\n".encode("latin-1"))
    with pytest.raises(ScriptRefused, match="line 2: the byte 0xe9 is not UTF-8"):
        read_script(script)
    script.write_bytes(b"\n" * 70_000)
    with pytest.raises(ScriptRefused, match="longer than 65536 bytes"):
        read_script(script)
    script.write_bytes(f"# café\r\n{DIGITS}\r\n".encode())
    assert [stage.line for stage in parse_script(read_script(script), RUNNERS)] == [2]


_FRAGMENTS = st.sampled_from(
    [
        *(DIGITS, TRAIN, TRACK, "mine", "sleap-nn", "train", "--epochs", "3", "-o", "x.slp"),
        *(" ", " ", "\n", "\n", " \\\n", "\t", "\r\n", "#", "'", '"', "\\", "=", "a", "b.yaml"),
        *("$", "`", ";", "|", "&", ">", "*", "[x]", "{", "/", "..", "~", "/etc/passwd", "\0"),
    ]
)
_TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(_FRAGMENTS, max_size=12).map("".join),
    st.lists(
        st.sampled_from(
            [TRACK, TRAIN, "mine a=[b]", "mine './x'", "a", "=", " b", "/c", ".", "\n"]
        ),
        max_size=4,
    ).map(lambda parts: f"mine {''.join(parts)}"),
    st.lists(st.one_of(_FRAGMENTS, st.text(max_size=3)), max_size=10).map(
        lambda parts: f"{DIGITS}\n{TRAIN} {' '.join(parts)}"
    ),
)


@given(_TEXTS)
def test_no_text_ever_runs_a_program_that_is_not_a_runners_nor_names_a_path_outside(
    text: str,
) -> None:
    try:
        found = parse_script(text, RUNNERS)
    except ScriptRefused as refused:
        event("refused")
        assert 1 <= refused.line <= text.count("\n") + 1
        return
    event("accepted")
    folder = Path("/package")
    for stage in found:
        vector = runner_of(stage, RUNNERS).argv(stage, PORTS)
        assert vector[0] in {sys.executable, str(SLEAP_NN), "python3"}
        assert vector[: len(runner_of(stage, RUNNERS).program)] == runner_of(stage, RUNNERS).program
        for word in stage.args:
            joined = word[2:] if word.startswith("-") else ""
            for path in (word, word.partition("=")[2], joined):
                assert (folder / path).is_absolute()
                assert ".." not in (folder / path).parts
                assert (folder / path).is_relative_to(folder)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)))
def test_any_plain_words_quoted_as_a_shell_would_come_back_unchanged(words: list[str]) -> None:
    words = [w for w in words if not set(w) & set("$`/\\~") and ".." not in w]
    (stage,) = parse_script(shlex.join(["mine", *words]), RUNNERS)
    assert list(stage.args) == words


def test_only_known_options_with_typed_values_reach_the_digits() -> None:
    text = f"{DIGITS} --epochs 7 --lr=1e-3 --seed 0 --pace 0.5 --output out/a --epochs 9"
    (stage,) = parse_script(text, RUNNERS)
    runner = runner_of(stage, RUNNERS)
    assert argv(text)[:4] == (sys.executable, "-P", "-m", "fsm_worker.examples.digits")
    assert runner.max_epochs(stage, Path("/nowhere")) == 9
    assert runner.outputs(stage) == ("out/a",)
    (default,) = parse_script(DIGITS, RUNNERS)
    assert (runner.max_epochs(default, Path()), runner.outputs(default)) == (20, ("results",))


def test_the_workers_ports_replace_those_of_the_script() -> None:
    ours = argv(f"{TRAIN} ++trainer_config.zmq.publish_port=1 trainer_config.zmq=x a.zmq=2")
    assert ours[-3:] == (
        "a.zmq=2",
        "++trainer_config.zmq.publish_port=4001",
        "++trainer_config.zmq.controller_port=4002",
    )
    assert not any(word.endswith(("=1", "=x")) for word in ours)


def test_a_trainer_finds_its_ports_in_its_environment() -> None:
    assert MINE.env(PORTS) == {
        "FSM_WORKER_PUBLISH": "tcp://127.0.0.1:4001",
        "FSM_WORKER_CONTROL": "tcp://127.0.0.1:4002",
        "PYTHONUNBUFFERED": "1",
    }
    (stage,) = parse_script("mine --epochs 3 'a b'", RUNNERS)
    assert MINE.argv(stage, PORTS) == ("python3", "/opt/mine/train.py", "--epochs", "3", "a b")
    assert (MINE.max_epochs(stage, Path()), MINE.outputs(stage)) == (None, ("results",))
    MINE.check(stage, Path())


CONFIG = """
data_config:
  max_epochs: 1
trainer_config:  # the trainer's
  lr_scheduler:
    max_epochs: 2
  max_epochs: 30  # enough
  ckpt_dir: "models"
other:
  max_epochs: 4
"""


@pytest.mark.parametrize(
    ("config", "overrides", "epochs", "output"),
    [
        (CONFIG, "", 30, "models"),
        (CONFIG, "trainer_config.max_epochs=5 trainer_config.ckpt_dir=out", 5, "out"),
        (CONFIG, "++trainer_config.max_epochs=6 ++trainer_config.max_epochs='7'", 7, "models"),
        (CONFIG, "trainer_config.max_epochs=many", None, "models"),
        (CONFIG.replace("30", "null").replace('"models"', "null"), "", None, "."),
        ("trainer_config: {max_epochs: 3}", "", None, "."),
        ("trainer_config:\n- 1\n", "", None, "."),
        ("\x00\xff: [", "", None, "."),
    ],
)
def test_epochs_and_model_folder_come_from_an_override_or_else_from_the_configuration(
    tmp_path: Path, config: str, overrides: str, epochs: int | None, output: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/config.yaml").write_bytes(config.encode("latin-1"))
    for named in (
        "sub/config.yaml",
        "--config sub/config.yaml",
        "--config=sub/config.yaml",
        "--config-name config -d sub",
        "--config-dir sub -c config.yaml",
    ):
        (stage,) = parse_script(f"sleap-nn train {named} {overrides}", RUNNERS)
        runner = runner_of(stage, RUNNERS)
        runner.check(stage, tmp_path)
        assert runner.max_epochs(stage, tmp_path) == epochs
        assert runner.outputs(stage, tmp_path) == (output,)


def test_without_a_readable_configuration_only_the_overrides_are_known(tmp_path: Path) -> None:
    plain, told = parse_script(f"{TRAIN}\n{TRAIN} trainer_config.ckpt_dir=out", RUNNERS)
    runner = runner_of(plain, RUNNERS)
    assert (runner.max_epochs(plain, tmp_path), runner.outputs(plain, tmp_path)) == (None, (".",))
    assert (runner.outputs(plain), runner.outputs(told)) == ((".",), ("out",))


def test_a_configuration_that_is_missing_or_writes_outside_is_refused_before_it_runs(
    tmp_path: Path,
) -> None:
    (stage,) = parse_script(f"\n{TRAIN}", RUNNERS)
    runner = runner_of(stage, RUNNERS)
    with pytest.raises(ScriptRefused, match=r"line 2: the package has no file `config.yaml`"):
        runner.check(stage, tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG.replace("models", "/home/me/models"))
    with pytest.raises(ScriptRefused, match=r"`/home/me/models` is outside the package"):
        runner.check(stage, tmp_path)
    (overridden,) = parse_script(f"{TRAIN} trainer_config.ckpt_dir=models", RUNNERS)
    runner.check(overridden, tmp_path)


def test_the_client_side_of_a_path_map_may_be_absolute_since_nothing_opens_it() -> None:
    assert "/home/me/a.mp4" in argv(f"{TRAIN} --video-path-map /home/me/a.mp4 a.mp4")


def test_where_predictions_go() -> None:
    data = "sleap-nn track --data_path"
    for text, output in (
        (TRACK, "out.slp"),
        (f"{data} labels.pkg.slp", "labels.pkg.predictions.slp"),
        (f"{data}=a/v.mp4", "a/v.predictions.slp"),
        (f"{data} v.mp4 --output_path=b/p.slp --video_index 1", "b/p.slp"),
    ):
        (stage,) = parse_script(text, RUNNERS)
        runner = runner_of(stage, RUNNERS)
        assert runner.outputs(stage) == (output,)
        assert runner.max_epochs(stage, Path()) is None


def test_a_worker_has_only_the_runners_whose_programs_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(builtin_runners()) == {("digits", "train")}
    with pytest.raises(FileNotFoundError, match="is not a program"):
        builtin_runners(tmp_path / "sleap-nn")
    (tmp_path / "sleap-nn").touch(0o755)
    assert builtin_runners()["sleap-nn", "train"].program == (str(tmp_path / "sleap-nn"), "train")
    with pytest.raises(ScriptRefused, match="`gone` is no runner here"):
        runner_of(Stage("gone", (), 1), builtin_runners())


def test_nothing_in_a_package_is_imported_by_its_trainer(tmp_path: Path) -> None:
    """A `numpy.py` beside the script must stay data, as must anything that Python looks for."""
    package = build_package(tmp_path / "package", epochs=1)
    for name in ("numpy", "fsm_worker", "zmq", "json", "sitecustomize", "usercustomize"):
        (package / f"{name}.py").write_text("open('ran', 'w')\n")
    (stage,) = parse_script(read_script(package / "train-script.sh"), RUNNERS)
    runner = runner_of(stage, RUNNERS)
    runner.check(stage, package)
    env = {key: value for key, value in runner.env(PORTS).items() if "FSM" not in key}
    vector = runner.argv(stage, PORTS)
    subprocess.run(vector, cwd=package, env=env, check=True, stdout=subprocess.DEVNULL)
    assert {path.name for path in (package / runner.outputs(stage)[0]).iterdir()} == {
        "model.npz",
        "metrics.json",
    }
    assert not (package / "ran").exists()
    (package / "digits.npz").unlink()
    with pytest.raises(ScriptRefused, match=r"line 2: the package has no file `digits.npz`"):
        runner.check(stage, package)
