"""`[runners.NAME]` and `[declare]` in worker.toml, and whose code a script can run."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fsm_worker.cli.config import KEYS, Config, load
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.main import main
from fsm_worker.services.declared import Declared
from fsm_worker.services.own_runners import TAKEN
from fsm_worker.services.package_code import SETTING, refuse_package_code
from fsm_worker.services.recipe import Ports, Runner, Stage
from fsm_worker.services.runners import builtin_runners, parse_script, runner_of
from fsm_worker.services.script import ScriptRefused, Word

PORTS = Ports("tcp://127.0.0.1:4001", "tcp://127.0.0.1:4002")
FULL = """
gpu = 1
[runners.mine]
argv = ["python", "-u", "train.py", "--mode=fast", "./presets/a b.yaml", "data.csv"]
args = true
outputs = ["models", "log.csv"]
env = { OMP_NUM_THREADS = "4", WANDB_API_KEY = "s3cret" }
[runners.other-1]
argv = ["env"]
[declare]
gpu_model = "NVIDIA GB10"
gpu_memory_mb = 122880
tags = ["lab-b"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The operator's, with what the tables name in it."""
    mine = tmp_path / "operator"
    (mine / "presets").mkdir(parents=True)
    for name in ("train.py", "presets/a b.yaml", "run.sh"):
        (mine / name).touch()
    return mine


def read(folder: Path, text: str, **flags: str) -> Config:
    (folder / "worker.toml").write_text(text)
    return load({"state": str(folder), **flags}, {}, folder / "worker.toml")


def stage(config: Config, script: str) -> tuple[Stage, Runner]:
    runners = {**builtin_runners(), **config.runners}
    (found,) = parse_script(script, runners)
    return found, runner_of(found, runners)


def test_a_line_of_a_script_becomes_the_operators_program_with_its_words(folder: Path) -> None:
    found, runner = stage(read(folder, FULL), "mine --epochs 3 'a b'")
    assert runner.argv(found, PORTS) == (
        *(sys.executable, "-u", str(folder / "train.py"), "--mode=fast"),
        *(str(folder / "presets/a b.yaml"), "data.csv", "--epochs", "3", "a b"),
    )
    assert runner.outputs(found) == ("models", "log.csv")
    env = runner.env(PORTS)
    assert env["OMP_NUM_THREADS"] == "4"
    assert env["FSM_WORKER_PUBLISH"] == PORTS.publish
    assert runner.env(PORTS)["FSM_WORKER_CONTROL"] == PORTS.control


def test_what_is_left_out_has_the_careful_value(folder: Path) -> None:
    config = read(folder, FULL)
    found, runner = stage(config, "other-1")
    assert Path(runner.argv(found, PORTS)[0]).name == "env"
    assert Path(runner.argv(found, PORTS)[0]).is_absolute()
    assert runner.outputs(found) == ("results",)
    with pytest.raises(ScriptRefused) as refused:
        stage(config, "# words\nother-1 \\\n  rm -r x")
    assert refused.value.line == 3
    assert "takes no words here" in refused.value.sentence
    assert "`args = true` in [runners.other-1]" in refused.value.sentence


def test_words_stay_inside_the_package(folder: Path) -> None:
    with pytest.raises(ScriptRefused, match="is outside the package"):
        stage(read(folder, FULL), "mine --data /etc/passwd")


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("python", sys.executable),
        ("python3", sys.executable),
        ("./tool", "operator/tool"),
        ("../bin/tool", "bin/tool"),
        ("sub/tool", "operator/sub/tool"),
    ],
)
def test_a_program_is_found_from_the_folder_of_the_file(
    folder: Path, program: str, found: str
) -> None:
    for name in ("operator/tool", "bin/tool", "operator/sub/tool"):
        path = folder.parent / name
        path.parent.mkdir(exist_ok=True)
        path.touch(0o755)
    config = read(folder, f'[runners.x]\nargv = ["{program}"]')
    assert config.runners["x",].program == (str(folder.parent / found),)


def test_a_program_without_a_folder_is_found_on_the_path_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tool").touch(0o755)
    monkeypatch.setenv("PATH", str(folder.parent))
    with pytest.raises(CommandFailed, match=r"no program 'tool' on the PATH: .*\./tool if it is"):
        read(folder, '[runners.x]\nargv = ["tool"]')
    monkeypatch.setenv("PATH", str(folder))
    assert read(folder, '[runners.x]\nargv = ["tool"]').runners["x",].program == (
        str(folder / "tool"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runners = 1", "runners is a table: write [runners.NAME]"),
        ("declare = [1]", "declare is a table: write [declare]"),
        ("[runner.mine]\nargv = ['env']", "no setting 'runner'; did you mean 'runners'?"),
        ("[runners]\nmine = 'env'", "runners.mine: write [runners.mine], and below it argv = "),
        ("[runners.'a b']\nargv = ['env']", "runners.a b: name it by at most 64 letters"),
        ("[runners.digits]\nargv = ['env']", "runners.digits: digits is built in: choose another"),
        ("[runners.python]\nargv = ['env']", "runners.python: python is built in"),
        ("[runners.x]\nargs = true", "runners.x: argv is missing: write argv = [\"python\", "),
        ("[runners.x]\nargv = []", "runners.x.argv: is empty: write argv = "),
        ("[runners.x]\nargv = 'env'", "runners.x.argv: write a list of texts, as "),
        ("[runners.x]\nargv = ['env', 3]", "runners.x.argv: write a list of texts"),
        ("[runners.x]\nargv = ['env', '']", "runners.x.argv: '' is empty"),
        ('[runners.x]\nargv = ["env", "a\\u0000"]', "runners.x.argv: 'a\\x00' is empty, far too"),
        (f"[runners.x]\nargv = {['env'] * 65}", "runners.x.argv: has 65 entries: write at most 64"),
        ("[runners.x]\nargv = ['no-such-program']", "no program 'no-such-program' on the PATH"),
        ("[runners.x]\nargv = ['./run.sh']", "operator/run.sh may not be run: write the program"),
        ("[runners.x]\nargv = ['./no']", "runners.x.argv: there is no file "),
        ("[runners.x]\nargv = ['python', 'tarin.py']", "operator/tarin.py: write the path from "),
        ("[runners.x]\nargv = ['python', '/no/train.py']", "there is no file /no/train.py"),
        ("[runners.x]\nargv = ['sh', 'go.SH']", "there is no file "),
        ("[runners.x]\nargv = ['env', './no.yaml']", "there is no file "),
        (f"[runners.x]\nargv = ['sh', '{'x' * 300}.sh']", "' is no path (["),
        ("[runners.x]\nargv = ['sh', '~no-such-user/x.sh']", "x.sh' is no path ("),
        ("[runners.x]\nargv = ['env']\narsg = true", "there is no 'arsg': argv, args, outputs, "),
        ("[runners.x]\nargv = ['env']\nargs = 'yes'", "runners.x.args: write true or false"),
        ("[runners.x]\nargv = ['env']\noutputs = []", 'runners.x.outputs: is empty: write ["mod'),
        ("[runners.x]\nargv = ['env']\noutputs = ['../x']", "'../x' is not in the package's"),
        ("[runners.x]\nargv = ['env']\noutputs = ['/x']", "'/x' is not in the package's folder"),
        ("[runners.x]\nargv = ['env']\noutputs = ['~']", "'~' is not in the package's folder"),
        ("[runners.x]\nargv = ['env']\nenv = ['A=1']", "runners.x.env: write at most 64 varia"),
        ("[runners.x]\nargv = ['env']\nenv = {A = 1}", 'runners.x.env.A: write a text, as "1"'),
        ("[runners.x]\nargv = ['env']\nenv = {'A-B' = '1'}", "'A-B' is no name of a variable"),
        ("[runners.x]\nargv = ['env']\nenv = {FSM_WORKER_CONTROL = 'x'}", "the worker sets it"),
        ("[runners.x]\nargv = ['env']\nenv = {CUDA_VISIBLE_DEVICES = '0'}", "GPU with `gpu`"),
        ("[runners.x]\nargv = ['env']\nenv = {A = \"\\u0000\"}", "runners.x.env.A: is far too"),
        ("[declare]\ngpus = 2", "declare: there is no 'gpus': gpu_model, gpu_memory_mb, "),
        ("[declare]\ntags = ['a,b']", "declare.tags: 'a,b' is no tag"),
        ("allow_package_code = 2", "allow_package_code: '2' is neither on nor off"),
        ("allow_package_code = []", "allow_package_code must be a text or a number"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_file_its_key_and_what_to_write(
    folder: Path, text: str, said: str
) -> None:
    with pytest.raises(CommandFailed) as failed:
        read(folder, text)
    assert failed.value.exit_code is ExitCode.USAGE
    assert failed.value.sentence.startswith(str(folder / "worker.toml"))
    assert said in failed.value.sentence


def test_every_word_that_means_something_already_is_taken(tmp_path: Path) -> None:
    everything = builtin_runners(Path(sys.executable))
    assert {words[0] for words in everything} | {
        runner.name.partition(" ")[0] for runner in everything.values()
    } <= TAKEN


# --- what is shown -----------------------------------------------------------------------------


def test_what_is_shown_of_the_tables_can_be_put_into_a_file(folder: Path, tmp_path: Path) -> None:
    first = read(folder, FULL.replace("WANDB_API_KEY", "WANDB_MODE"))
    lines = first.lines()
    again = tmp_path / "again.toml"
    again.write_text("\n".join(lines), encoding="utf-8")
    second = load({}, {}, again)
    assert second.runners == first.runners
    assert second.declared == first.declared == Declared(
        gpu_model="NVIDIA GB10", gpu_memory_mb=122880, tags=("lab-b",)
    )  # fmt: skip
    assert any(
        line.startswith("[runners.mine]") and line.endswith(f"# {folder / 'worker.toml'}")
        for line in lines
    )


def test_any_text_in_a_table_comes_back_from_what_is_shown(folder: Path) -> None:
    odd = 'a "b" \\ c\td\x7f é \U0001f600'
    config = read(folder, f"[runners.x]\nargv = ['env', {json.dumps(odd, ensure_ascii=False)}]\n"
                          .replace("\x7f", "\\u007f"))  # fmt: skip
    assert config.runners["x",].program[1] == odd
    assert tomllib.loads("\n".join(config.lines()))["runners"]["x"]["argv"][1] == odd


def test_a_secret_in_an_environment_is_not_shown(folder: Path) -> None:
    config = read(folder, FULL)
    assert dict(config.runners["mine",].variables)["WANDB_API_KEY"] == "s3cret"
    shown = "\n".join(config.lines()) + repr(config.objects())
    assert "s3cret" not in shown
    assert 'WANDB_API_KEY = "(hidden)"' in shown


def test_the_command_shows_the_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(folder, FULL)
    asked = ["worker", "--config", str(folder / "worker.toml"), "--show-config"]
    assert main(asked) == ExitCode.DONE
    assert f'argv = ["{sys.executable}", "-u", "{folder}/train.py"' in capsys.readouterr().out
    assert main([*asked, "--json"]) == ExitCode.DONE
    settings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    shown = {setting["name"]: setting for setting in settings}
    assert shown["runners.mine"]["value"]["outputs"] == ["models", "log.csv"]
    assert shown["declare"]["value"]["tags"] == ["lab-b"]
    assert shown["declare"]["origin"] == str(folder / "worker.toml")


# --- whose code runs -----------------------------------------------------------------------------


def printed_by(config: Config, script: str, package: Path) -> str:
    found, runner = stage(config, script)
    runner.check(found, package)
    done = subprocess.run(
        runner.argv(found, PORTS),
        env={**os.environ, **runner.env(PORTS)},
        cwd=package, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """What a client brings: modules with the names that the operator's have."""
    brought = tmp_path / "package"
    brought.mkdir()
    for name in ("train", "model", "json", "tool"):
        (brought / f"{name}.py").write_text("print('of the package')\n")
    return brought


@pytest.mark.parametrize(
    "argv",
    [
        '["python", "train.py"]',
        '["python", "-u", "-B", "train.py"]',
        '["./train.py"]',
        '["python", "-m", "tool"]',
        '["python", "-um", "tool"]',
        '["python", "-c", "import tool"]',
        '["python", "-W", "ignore", "train.py"]',
    ],
)
def test_a_package_brings_no_code_by_a_name(folder: Path, package: Path, argv: str) -> None:
    (folder / "train.py").write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "if not sys.flags.safe_path:\n    import model\n"
        "print('of the operator')\n"
    )
    (folder / "train.py").chmod(0o755)
    (folder / "model.py").write_text("print('model of the operator')\n")
    config = read(folder, f'[runners.mine]\nargv = {argv}\nenv = {{ PYTHONPATH = "{folder}" }}')
    (folder / "tool.py").write_text("print('of the operator')\n")
    printed = printed_by(config, "mine", package)
    assert printed.splitlines()[-1] == "of the operator"
    assert "of the package" not in printed


def test_the_operators_script_imports_what_lies_beside_it(folder: Path, package: Path) -> None:
    (folder / "train.py").write_text("import model\n")
    (folder / "model.py").write_text("print('of the operator')\n")
    config = read(folder, '[runners.mine]\nargv = ["python", "train.py"]')
    assert printed_by(config, "mine", package) == "of the operator\n"


# --- code of the package -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "flags", "allowed"),
    [
        ("", {}, False),
        ("allow_package_code = false", {}, False),
        ('allow_package_code = "off"', {}, False),
        ("allow_package_code = true", {"allow_package_code": "off"}, False),
        ("allow_package_code = true", {}, True),
        ("", {"allow_package_code": "on"}, True),
    ],
)
def test_code_of_the_package_runs_only_where_the_operator_says_so(
    folder: Path, written: str, flags: dict[str, str], allowed: bool
) -> None:
    runners = read(folder, written, **flags).runners
    assert (("python",) in runners) is allowed


def test_allowed_code_of_the_package_runs_there_with_its_own_modules(
    folder: Path, package: Path
) -> None:
    (package / "go.py").write_text("import sys, model\nprint(sys.argv[1:])\n")
    config = read(folder, "allow_package_code = true")
    for python in ("python", "python3"):
        printed = printed_by(config, f"{python} go.py --epochs 3", package)
        assert printed == "of the package\n['--epochs', '3']\n"
    assert not list(package.rglob("__pycache__"))  # all that is new in the package is a result
    found, runner = stage(config, "python go.py")
    assert runner.outputs(found) == (".",)


@pytest.mark.parametrize("python", ["python", "python3"])
def test_the_refusal_of_a_packages_code_names_the_line_and_the_setting(python: str) -> None:
    with pytest.raises(ScriptRefused) as refused:
        refuse_package_code(Word(7, python))
    assert refused.value.line == 7
    assert f"`{python}` would run code of the package" in refused.value.sentence
    assert "the operator may allow it with allow_package_code" in refused.value.sentence
    assert SETTING in {key.name for key in KEYS}
    refuse_package_code(Word(1, "perl"))  # is for others to refuse


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("python", "name a file of the package first, as `python train.py`"),
        ("python -c 'import os'", "`-c`: name a file of the package first"),
        ("python -m train", "`-m`: name a file of the package first"),
        ("python train", "`train`: name a file of the package first"),
        ("python ../train.py", "is outside the package"),
        ("python /tmp/train.py", "is outside the package"),
        ("python ~/train.py", "is outside the package"),
        ("python train.py --out /etc", "is outside the package"),
    ],
)
def test_only_a_file_of_the_package_is_its_code(folder: Path, script: str, said: str) -> None:
    config = read(folder, "allow_package_code = true")
    with pytest.raises(ScriptRefused, match=said):
        stage(config, f"{script}\n")


def test_a_file_that_is_not_there_or_leads_out_is_refused(folder: Path, package: Path) -> None:
    (package / "out.py").symlink_to(folder / "train.py")
    (package / "loop.py").symlink_to("loop.py")
    for name in ("none.py", "out.py", "loop.py", f"{'x' * 300}.py"):
        found, runner = stage(read(folder, "allow_package_code = true"), f"\npython {name}")
        with pytest.raises(ScriptRefused, match=f"the package has no file `{name[:57]}") as refused:
            runner.check(found, package)
        assert refused.value.line == 2
