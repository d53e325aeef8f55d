"""Commands about names import no torch and are fast; errors are one line."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import refused
from fork_server import ForkServer
from vaezoo.cli.main import all_commands

BLOCKER = """
import sys

class Imported(BaseException):
    pass

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "numpy", "PIL"):
            raise Imported(name)

sys.meta_path.insert(0, Blocker())
"""

RUN = BLOCKER + "from vaezoo.cli.main import main\nsys.exit(main())\n"


SERVERS: list[ForkServer] = []
"""The one that starts the processes of this module: it has what `vaezoo list` needs, no torch."""


@pytest.fixture(scope="module", autouse=True)
def _server(names_server: ForkServer) -> Iterator[None]:
    SERVERS.append(names_server)
    yield
    SERVERS.clear()


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return SERVERS[0].run([sys.executable, "-c", code, *args])


def vaezoo(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return SERVERS[0].run([sys.executable, "-m", "vaezoo", *args], env={**os.environ, **env})


def test_the_import_blocker_works() -> None:
    result = python(BLOCKER + "import vaezoo.models.base")
    assert result.returncode == 1
    assert "Imported: torch" in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--help",
        "--version",
        *(f"{name} --help" for name in all_commands()),
        "train vanilla --help",
        "list",
        "list --json --kind all",
        "info vanilla",
        "info elbo --json",
        "info sprites",
        "plugins",
        "plugins --json --verbose",
    ],
)
def test_answers_without_torch(line: str) -> None:
    result = python(RUN, *line.split())
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.strip()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian", "there is no command 'trian'; did you mean 'train'?"),
        ("--hepl", "--help"),
        ("list --jsn", "--json"),
        ("list --kind modls", "'modls' is not one of 'models', 'networks'"),
        ("list models", "unexpected extra argument (models)"),
        ("info", "Missing argument 'NAME'"),
        (
            "info vanila",
            "nothing of the name 'vanila' is registered; did you mean 'vanilla'?",
        ),
        ("info vanilla --kind losses", "there is no loss 'vanilla'"),
        ("train vanila", "there is no model 'vanila'; did you mean 'vanilla'?"),
        ("train vanilla --loss elb", "there is no loss 'elb'; did you mean 'elbo'?"),
        ("train vanilla --data sprits", "there is no data set 'sprits'; did you mean 'sprites'?"),
        ("train vanilla --btea 4", "--beta"),
        ("train vanilla --beta -1", "--beta"),
        ("train vae", "there is no model 'vae'; did you mean 'vanilla'? "),
        ("train VAE", "there is no model 'VAE'; did you mean 'vanilla'? "),
        ("info beta-vae", "'beta-vae' is registered; did you mean 'vanilla'? "),
        ("train Beta_TC", "there is no model 'Beta_TC'; did you mean 'beta_tc'? "),
        ("train vqvae", "there is no model 'vqvae'; did you mean 'vq_vae'? "),
        ("train vanilla --learning-rate 1", "'--learning-rate'; did you mean '--lr'? "),
        ("train vanilla --epoch 1", "'--epoch'; did you mean '--epochs'? "),
        ("train vanilla --batch 1", "'--batch'; did you mean '--batch-size'? "),
        ("train vanilla --latent 1", "'--latent'; did you mean '--latent-dim'? "),
        ("train vanilla --kl-weight 1", "'--kl-weight'; did you mean '--beta'? "),
        ("train vanilla --squared-gradients 1", "did you mean '--adam-beta2'? "),  # its help
        ("train vanilla --gpu 0", "'--gpu'; did you mean '--device'? "),
        ("train vanilla --seeds 0", "'--seeds'; did you mean '--seed'? "),
        ("train vanilla --output-dir x", "did you mean '--out'? "),
        ("train vanilla --num-workers 4", "there is no option '--num-workers' ("),
        ("train --model vanilla", "there is no option '--model': give MODEL without it"),
        ("train vanilla --set train.learning_rate=1", "did you mean 'lr'?"),
        ("train vanilla sprites", "data set sprites is given as --data sprites"),
        ("train vanilla beta_tc", "loss beta_tc is given as --loss beta_tc"),
        ("train vanilla word", "unexpected extra argument (word)"),
        ("sample RUN -n many", "'many' is not a valid integer. ("),
        ("--plugin ./nope list", "./nope: it is neither FILE.py nor a module, as package.module"),
        ("sample RUN --num-samples 3", "there is no option '--num-samples'; did you mean '-n'? "),
        ("evaluate RUN --gpu 0", "there is no option '--gpu'; did you mean '--device'? "),
        (
            "train vanilla --data .",
            "there is no data set '.'; did you mean --data folder --root .",
        ),
        ("train vanilla --data 'a b.npz'", "; did you mean --data npz --root 'a b.npz'?"),
        ("train vanilla --data x.csv2", "none reads .csv2 files: give --data folder (Any tree of"),
    ],
)
def test_wrong_lines_cost_one_line_and_no_torch(line: str, said: str) -> None:
    result = python(RUN, *shlex.split(line))
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    message = result.stderr.removesuffix("(vaezoo --help shows all)\n")
    assert said in message
    assert message.startswith("vaezoo: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", list(all_commands()))
def test_every_command_is_summed_up_as_its_own_help_does(name: str) -> None:
    shown = python(
        f"{BLOCKER}\nfrom vaezoo.cli.main import group\n"
        f"print(group.get_command(None, {name!r}).get_short_help_str(limit=200))"
    )
    assert shown.stdout.strip().removesuffix(".") == all_commands()[name].removesuffix("."), (
        shown.stderr
    )
    assert all_commands()[name] in vaezoo("--help").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate"],
        ["sample"],
        ["report", "-o", "r.html"],
        ["train", "vanilla", "--config"],
        ["train", "vanilla", "--steps", "1", "--out"],
        ["train", "vanilla", "--data", "folder", "--root"],
        ["decode", "run"],
        ["import", "-o", "run"],
    ],
    ids=" ".join,
)
def test_a_name_that_no_file_can_have(
    words: list[str], in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(refused(capsys, *words, "x" * 300)) < 600


def test_list_needs_no_pydantic() -> None:
    """Its import costs a fifth of the time of `vaezoo list`: options have modules of their own."""
    code = (
        "import sys\nfrom vaezoo.cli.main import main\n"
        "main(['list', '--kind', 'all'])\nassert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_list_is_quick() -> None:
    """Under 0.3 s of CPU time, or on a slow machine, 4 times what its libraries need alone."""

    def seconds(*args: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL)
        after = os.times()  # what other processes do meanwhile does not count
        user = after.children_user - before.children_user
        return user + after.children_system - before.children_system

    libraries = "import click, pluggy, rich.console, rich.table"
    pairs = [(seconds("-m", "vaezoo", "list"), seconds("-c", libraries)) for _ in range(5)]
    listing, alone = (min(times) for times in zip(*pairs, strict=True))
    assert listing < max(0.3, 4 * alone), f"{listing:.2f} s, its libraries {alone:.2f} s"


def test_no_command_is_help() -> None:
    result = vaezoo()
    assert result.returncode == 0
    assert result.stdout == vaezoo("--help").stdout
    assert result.stdout.startswith("Usage: vaezoo ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_costs_one_line() -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "vaezoo", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 2
    assert result.stderr.startswith("vaezoo: the disk is full")
    assert result.stderr.count("\n") == 1


def test_a_closed_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "vaezoo", "list"], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert result.stderr == ""
    assert result.returncode == 141


INSIDE = """
import sys, click
from vaezoo.cli import main as cli_main

def act(**options):
    raise {error}

cli_main.group.callback = act
cli_main.group.invoke_without_command = True
sys.exit(cli_main.main([]))
"""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("KeyboardInterrupt", 130, "vaezoo: interrupted\n"),
        ("click.Abort", 130, "vaezoo: interrupted\n"),
        ("cli_main.VaezooError('one\\ntwo')", 2, "vaezoo: one two\n"),
        ("click.exceptions.Exit(3)", 3, ""),
    ],
)
def test_exit_codes(error: str, code: int, said: str) -> None:
    result = python(INSIDE.format(error=error))
    assert (result.returncode, result.stderr) == (code, said)


@pytest.mark.parametrize("error", ["ZeroDivisionError", "EOFError", "PermissionError(13, 'no')"])
def test_our_own_faults_keep_their_traceback(error: str) -> None:
    result = python(INSIDE.format(error=error))
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")


def test_completion_offers_names() -> None:
    asked = {
        "_VAEZOO_COMPLETE": "bash_complete",
        "COMP_WORDS": "vaezoo info van",
        "COMP_CWORD": "2",
    }
    result = vaezoo(**asked)
    assert result.stdout == "plain,vanilla\n"
    assert result.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_is_no_reason_to_fail(encoding: str) -> None:
    plain = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "vaezoo", "info", "vanilla"]
    shown = subprocess.run(command, capture_output=True, env=plain)
    assert shown.returncode == 0, shown.stderr
    assert b"images from 8" in shown.stdout
    printed = subprocess.run([*command, "--json"], capture_output=True, env=plain)
    value = json.loads(printed.stdout.decode(encoding))
    assert "8×8" in value["input_spec"]["description"]


def test_ctrl_c_while_modules_are_imported_is_one_line() -> None:
    script = (
        "import os, signal, sys\n"
        "class Sender:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Sender())\n"
        "from vaezoo.__main__ import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "vaezoo: interrupted\n")


@pytest.mark.parametrize(
    ("crowded", "command", "given", "found"),
    [
        (True, "train", {}, "passive"),
        (False, "train", {}, "None"),
        (True, "list", {}, "None"),
        (True, "train", {"OMP_WAIT_POLICY": "active"}, "active"),
        (True, "train", {"GOMP_SPINCOUNT": "7"}, "None"),
    ],
)
def test_threads_sleep_on_a_crowded_machine_unless_the_user_says_how_they_wait(
    crowded: bool, command: str, given: dict[str, str], found: str
) -> None:
    """OpenMP reads it when torch is imported: later it has no effect."""
    script = (
        "import os, sys, vaezoo.__main__, vaezoo.runtime\n"
        "import vaezoo.cli.main as cli\n"
        "cli.main = lambda: print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)\n"
        f"vaezoo.runtime.is_crowded = lambda: {crowded}\n"
        "vaezoo.__main__.main()\n"
    )
    own = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    env = {name: value for name, value in os.environ.items() if name not in own} | given
    call = [sys.executable, "-c", script, command]
    done = subprocess.run(call, capture_output=True, text=True, env=env)
    assert done.stdout == f"{found} False\n", done.stderr
