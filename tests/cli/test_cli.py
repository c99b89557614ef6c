from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import vit_deploy
from vit_deploy import cli
from vit_deploy.cli.app import COMMANDS, app, command_names
from vit_deploy.cli.options import OutputOptions
from vit_deploy.cli.output import Output
from vit_deploy.core.options import parsing

USAGE_ERRORS = {
    "no such option: --nope": ["--nope"],
    "no such option: --formt": ["export", "--formt", "onnx"],
    "no such command 'exprt'": ["exprt", "tiny"],
    "missing argument 'artifact": ["verify"],
    "missing option '--output'": ["build", "tiny"],
    "missing argument 'scale'": ["build", "-o", "m.keras"],
    "missing argument 'checkpoint'": ["convert", "-o", "m.keras"],
    "unknown scale 'tinny'": ["build", "tinny", "-o", "m.keras"],
    "there is no file tinny": ["export", "tinny"],
    "unknown format 'onxx'": ["export", "pico", "--format", "onxx"],
    "unknown precision 'fp31'": ["export", "pico", "--precision", "fp31"],
    "--image-size is '0'": ["export", "pico", "--image-size", "0"],
    "--image-size is '224x'": ["export", "pico", "--image-size", "224x"],
    "--image-size is '2x2x2'": ["build", "pico", "--image-size", "2x2x2", "-o", "m.keras"],
    "--image-size is '-16'": ["export", "pico", "--image-size", "-16"],
    "--image-size is '16.5'": ["export", "pico", "--image-size", "16.5"],
    "--patch-size is 'big'": ["build", "pico", "--patch-size", "big", "-o", "m.keras"],
    "image height/width must be divisible by patch size: width 40 is not a multiple of 16": [
        *("export", "pico", "--image-size", "32x40"),
    ],
    "num_classes is 0": ["export", "pico", "--num-classes", "0"],
    "invalid value for '--num-classes'": ["export", "pico", "--num-classes", "many"],
    "invalid value for '--seed'": ["export", "pico", "--seed", "-1"],
    "--batch is 'some'": ["export", "pico", "--batch", "some"],
    "--batch is '²'": ["export", "pico", "--batch", "²"],
    "batch is 0": ["export", "pico", "--batch", "0"],
    "opset is 12": ["export", "pico", "--opset", "12"],
    "invalid value for '--opset'": ["export", "pico", "--opset", "new"],
    "layout is 'chwn'": ["export", "pico", "--layout", "chwn"],
    "--layout, --opset and --for shape onnx files": ["export", "pico", "--layout", "nchw", "--format", "tflite"],
    "tflite files are made for a fixed batch": ["export", "pico", "--batch", "dynamic", "--format", "tflite"],
    "word 2 of the command is empty, as where a variable is not set": ["export", ""],
    "word 4 of the command is empty": ["inspect", "m.keras", "--config", ""],
    "--data= is followed by nothing": ["evaluate", "nowhere", "--data="],
    "--max-regression: there is no --baseline": ["bench", "nowhere", "--max-regression", "5%"],
    "--max-regression and --any-host: there": ["bench", "nowhere", "--max-regression", "5%", "--any-host"],
    "nowhere does not exist": ["verify", "nowhere"],
    "elsewhere does not exist": ["bench", "elsewhere"],
    "unknown runtime 'tensorflow'": ["bench", "nowhere", "--runtime", "tensorflow"],
    "--batch is '0'": ["bench", "nowhere", "--batch", "0"],
    "invalid value for '--runs'": ["bench", "nowhere", "--runs", "0"],
    "seconds is -1.0": ["bench", "nowhere", "--seconds", "-1"],
    "embed_dim 10 is not a multiple of num_heads 3": ["build", "tiny", "--embed-dim", "10", "-o", "m.keras"],
    "ffn_type is 'mpl'": ["build", "tiny", "--ffn-type", "mpl", "-o", "m.keras"],
    "a checkpoint cannot be written as m.h5": ["build", "tiny", "-o", "m.h5"],
    "there is no file absent.keras": ["convert", "absent.keras", "-o", "m.safetensors"],
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("said", USAGE_ERRORS)
def test_a_wrong_command_is_one_clear_message_and_exit_2(run, tmp_path, said):
    result = run(*USAGE_ERRORS[said])
    assert result.code == 2
    assert result.out == "" and "Traceback" not in result.err
    assert result.err.startswith("vit-deploy: ") and said in result.err.lower()
    assert result.err.count("vit-deploy: ") == 1
    assert "\n  fix: " in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", USAGE_ERRORS)
def test_with_json_the_same_comes_as_one_document(run, said):
    result = run(*USAGE_ERRORS[said], "--json")
    assert result.code == 2
    document = result.document
    assert set(document) == {"schema", "command", "ok", "results", "skipped", "error"}
    assert document["schema"] == 1 and document["ok"] is False and document["results"] == []
    assert set(document["error"]) == {"type", "message", "fix"} and all(document["error"].values())
    if not USAGE_ERRORS[said][0].startswith("--nope"):  # the top has no --json of its own
        assert said in document["error"]["message"].lower()
    if USAGE_ERRORS[said][0] in command_names():
        assert document["command"] == USAGE_ERRORS[said][0]


def test_the_fix_of_a_usage_error_is_a_command_that_works(run):
    fix = run("export", "--nope").err.splitlines()[1]
    assert fix == "  fix: see vit-deploy export --help"
    assert run("export", "--help").code == 0
    assert run("--nope").err.splitlines()[1] == "  fix: see vit-deploy --help"


def test_without_a_command_there_is_help_and_exit_2(run):
    result = run()
    assert result.code == 2
    assert "Usage" in result.out + result.err and "Traceback" not in result.err


def test_it_says_its_version(run):
    result = run("--version")
    assert (result.code, result.out) == (0, f"vit-deploy {vit_deploy.__version__}\n")


@pytest.mark.parametrize("arguments", [["-V"], ["version"], ["version", "-q"]])
def test_the_version_is_said_by_an_option_and_by_a_command(run, arguments):
    assert run(*arguments).out == f"vit-deploy {vit_deploy.__version__}\n"
    assert run("version", "--json").document["results"] == [{"version": vit_deploy.__version__}]


def test_the_command_help_is_the_option_help(run):
    assert run("help").out == run("--help").out
    assert run("help", "export").out == run("export", "--help").out
    assert [result["command"] for result in run("help", "--json").document["results"]] == command_names()
    said = run("help", "exprot")
    assert said.code == 2 and "there is no command 'exprot'" in said.err and said.out == ""


@pytest.mark.parametrize("about", COMMANDS, ids=lambda each: each.name)
def test_the_example_of_every_command_is_one_that_it_takes(about, run):
    program, name, *arguments = shlex.split(about.example)
    assert (program, name) == ("vit-deploy", about.name)
    taken = typer.main.get_command(app).commands[name].make_context(name, arguments)
    assert taken.params
    assert f"Example: {about.example}" in " ".join(run(name, "--help").out.split())


@pytest.mark.parametrize("name", command_names())
def test_every_command_has_help_and_the_common_options(run, name):
    result = run(name, "--help")
    assert result.code == 0 and result.err == ""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.out)
    for option in ("--json", "--verbose", "-v", "--quiet", "-q"):
        assert option in plain
    assert run(name, "-h").code == 0


def test_the_command_table_has_no_two_of_a_name():
    assert len(set(command_names())) == len(command_names()) == len(app.registered_commands)


@pytest.mark.parametrize(
    ("text", "size"), [("224", (224, 224)), ("384x512", (384, 512)), ("8X16", (8, 16)), ("1x2", (1, 2))]
)
def test_a_size_is_height_by_width(text, size):
    assert parsing.size(text) == size


def environment(**changes):
    return {**os.environ, **changes}


def test_the_module_runs_like_the_command():
    done = subprocess.run([sys.executable, "-m", "vit_deploy", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"vit-deploy {vit_deploy.__version__}\n")
    done = subprocess.run([sys.executable, "-m", "vit_deploy", "verify", "nowhere"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("vit-deploy: nowhere does not exist")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete_it(shell):
    program = [sys.executable, "-m", "vit_deploy"]
    done = subprocess.run(
        program, capture_output=True, text=True, env=environment(_VIT_DEPLOY_COMPLETE=f"source_{shell}")
    )
    assert done.returncode == 0 and "vit-deploy" in done.stdout and "_VIT_DEPLOY_COMPLETE" in done.stdout
    asked = {
        "bash": {"COMP_WORDS": "vit-deploy exp", "COMP_CWORD": "1"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "vit-deploy exp"},
        "fish": {"_TYPER_COMPLETE_ARGS": "vit-deploy exp", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        env=environment(_VIT_DEPLOY_COMPLETE=f"complete_{shell}", **asked[shell]),
    )
    assert "export" in done.stdout and "verify" not in done.stdout


def test_completion_is_shown_on_request():
    pytest.importorskip("shellingham")
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m vit_deploy --show-completion; exit $?"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout


@pytest.mark.parametrize("arguments", [["--version"], ["verify", "nowhere", "--json"]])
def test_a_reader_that_has_gone_is_no_traceback(arguments):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "vit_deploy", *arguments], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert b"Traceback" not in done.stderr and b"Broken pipe" not in done.stderr, done.stderr
    assert done.returncode == 130


def test_what_engines_print_goes_to_stderr_when_json_is_asked_for(run, monkeypatch, bundles):
    from vit_deploy.runtimes.ort.sessions import OnnxSession

    infer = OnnxSession.infer

    def noisy(self, images):
        print("from Python")
        os.write(1, b"from C\n")
        return infer(self, images)

    monkeypatch.setattr(OnnxSession, "infer", noisy)
    result = run("verify", bundles["onnx"], "--json")
    assert result.code == 0 and result.document["ok"]
    assert "from Python" in result.err and "from C" in result.err
    assert run("verify", bundles["onnx"], "--json").document["ok"], "stdout is itself again"


def test_an_interrupt_is_one_line_and_exit_130(run, monkeypatch, bundles):
    from vit_deploy.runtimes.ort.sessions import OnnxSession

    def interrupted(self, images):
        raise KeyboardInterrupt

    monkeypatch.setattr(OnnxSession, "infer", interrupted)
    result = run("verify", bundles["onnx"])
    assert (result.code, result.out) == (130, "")
    assert result.err == "interrupted; nothing half-written was left behind\n"


def test_a_bug_keeps_its_traceback(run, monkeypatch, bundles):
    from vit_deploy.runtimes.ort.sessions import OnnxSession

    def broken(self, images):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(OnnxSession, "infer", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run("verify", bundles["onnx"])


def test_quiet_leaves_only_results_and_errors(run, bundles):
    assert run("verify", bundles["onnx"], "-q").err == ""
    assert run("verify", "nowhere", "-q").err.startswith("vit-deploy: nowhere does not exist")


def test_long_steps_are_told_in_logs_and_short_ones_are_not(run, bundles, monkeypatch):
    from vit_deploy.cli import output

    assert run("verify", bundles["onnx"]).err == ""
    monkeypatch.setattr(output, "PATIENCE_S", 0.0)
    assert f"running {bundles['onnx'] / 'model.onnx'} …" in run("verify", bundles["onnx"]).err


def test_a_long_task_says_again_and_again_in_logs_how_far_it_is(monkeypatch, capsys):
    from vit_deploy.cli import output

    timers = []

    class Timer:
        def __init__(self, seconds, call):
            self.call, self.daemon, self.running = call, False, False
            timers.append(self)

        def start(self):
            self.running = True

        def cancel(self):
            self.running = False

    monkeypatch.setattr(output.threading, "Timer", Timer)
    lines = output.PatientLines()
    for text in ("reading", "counting: 10%", "counting: 20%"):
        lines.now(text)
    assert [timer.running for timer in timers] == [False, True]
    timers[1].call()
    lines.now("counting: 70%")
    timers[2].call()
    lines.now("counting: 100%")
    assert not timers[3].running, "what is done is not said to go on"
    lines.now("writing")
    timers[4].call()
    lines.stop()
    assert capsys.readouterr().err.splitlines() == ["counting: 20% …", "counting: 70% …", "writing …"]
    assert len(timers) == 5 and not timers[4].running


def test_a_table_shows_paths_as_they_are(capsys):
    out = Output("verify", OutputOptions())
    odd = f"{'deep/' * 25}[red]odd[/blue] :smile:/model.onnx"
    out.table("", ("model", "ms"), [(odd, "1.5"), ("short", 2)])
    said = capsys.readouterr().out
    assert odd in said and "\x1b" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("no_color", [False, True])
def test_colours_and_spinners_are_for_terminals_that_want_them(bundles, no_color):
    import pty

    leader, follower = pty.openpty()
    env = environment(TERM="xterm-256color", COLUMNS="300", **({"NO_COLOR": "1"} if no_color else {}))
    process = subprocess.Popen(
        [sys.executable, "-m", "vit_deploy", "verify", bundles["onnx"]], stdout=follower, stderr=follower, env=env
    )
    os.close(follower)
    said = b""
    try:
        while chunk := os.read(leader, 4096):
            said += chunk
    except OSError:  # the other end has gone
        pass
    os.close(leader)
    assert process.wait(20) == 0
    text = said.decode()
    assert "same" in text and "\u280b" in text  # the first picture of the spinner
    assert not (no_color and re.search(r"\x1b\[[0-9;]*3[0-7]m", text))


def test_asking_for_help_is_light():
    program = """
import sys
from vit_deploy.cli import run
code = run(["export", "--help"])
heavy = {"numpy", "tensorflow", "keras", "onnx", "onnxruntime", "ai_edge_litert", "h5py", "PIL"} & set(sys.modules)
print(sorted(heavy), file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.strip() == "[]"


def test_the_console_script_is_the_main_function():
    import tomllib

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert tomllib.loads(text)["project"]["scripts"] == {"vit-deploy": "vit_deploy.cli:main"}
    with pytest.raises(SystemExit) as caught:
        cli.main(["verify", json.dumps("nowhere")])
    assert caught.value.code == 2


def said_in_help(command):
    """All words that a command's help is made of."""
    yield command.help
    for param in command.params:
        yield getattr(param, "help", None)


def test_help_on_a_usual_terminal_loses_nothing_of_what_it_is_made_of(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    group = typer.main.get_group(app)
    for name, command in group.commands.items():
        text = run(name, "--help").out
        shown = "".join(re.findall(r"[\w.\[\]]+", text))
        sources = {
            callback.__name__: callback.__doc__ for callback in (one.callback for one in app.registered_commands)
        }
        for said in (sources[name], *said_in_help(command)):
            for word in re.findall(r"\[\w[^\]\s]*\]", said or ""):
                assert "".join(re.findall(r"[\w.\[\]]+", word)) in shown, f"{name}: {word}"
        # Names that are cut cannot be copied.
        options = [param for param in command.params if param.opts[0].startswith("-")]
        names = {option for param in options for option in (*param.opts, *param.secondary_opts)}
        assert names <= set(re.split(r"[\s│,]+", text)), name
        words = " ".join(f"{param.metavar or ''} {param.help or ''}" for param in options).split()
        assert [word for word in words if word not in text] == [], name
    assert "[tool.vit-deploy.verify]" in run("verify", "--help").out


def test_a_working_directory_that_is_gone_is_an_error(run, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = run("verify", "model.onnx", "--tolerance", "max_abs=often")
    assert said.code == 2 and "the working directory is gone" in said.err and "fix:" in said.err
