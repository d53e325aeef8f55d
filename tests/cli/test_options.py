"""Shell completion: a script for each shell, and names, without torch and without a word more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "numpy", "PIL"):
            raise SystemExit(f"imports {name}")
sys.meta_path.insert(0, Blocker())
from vaezoo.cli.main import main
sys.exit(main())
"""
SHELLS = ("bash", "zsh", "fish")


def ask(instruction: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "_VAEZOO_COMPLETE": instruction, **environment},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def offered(shell: str, line: str, **environment: str) -> list[str]:
    """The words that a shell is offered for a line whose last word is half typed."""
    words = line.split(" ")
    if shell == "fish":
        asked = {"COMP_WORDS": " ".join(words[:-1]), "COMP_CWORD": words[-1]}
    else:
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    printed = ask(f"{shell}_complete", **asked, **environment)
    if shell == "zsh":  # a line each for type, word and help
        return printed.split("\n")[1::3]
    return [row.partition(",")[2].partition("\t")[0] for row in printed.splitlines()]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script(shell: str) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version")
    script = ask(f"{shell}_source")
    assert f"_VAEZOO_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n", "/dev/stdin"], input=script, text=True, check=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_is_offered_names(shell: str) -> None:
    assert offered(shell, "vaezoo info vanil") == ["vanilla"]
    assert offered(shell, "vaezoo trai") == ["train"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("vaezoo train vanil", "vanilla"),
        ("vaezoo bench vanil", "vanilla"),
        ("vaezoo bench vanilla --loss elb", "elbo"),
        ("vaezoo check sprit", "sprites"),
        ("vaezoo check elb", "elbo"),
        ("vaezoo info sprit", "sprites"),
        ("vaezoo train vanilla --loss elb", "elbo"),
        ("vaezoo train vanilla --data sprit", "sprites"),
        ("vaezoo train vanilla --latent-d", "--latent-dim"),
        ("vaezoo train vanilla --bet", "--beta"),
        ("vaezoo train vanilla --data npz --test-f", "--test-fraction"),
        ("vaezoo train vanilla --loss nonsense --batch-s", "--batch-size"),
    ],
)
def test_names_of_every_kind(line: str, word: str) -> None:
    assert offered("bash", line) == [word]


def test_only_models_are_trained() -> None:
    assert "sprites" not in offered("bash", "vaezoo train ")
    assert "vanilla" in offered("bash", "vaezoo train ")


def test_runs(in_tmp: Path) -> None:
    for name in ("vanilla-sprites-001", "vanilla-sprites-002", "no-run"):
        (in_tmp / "runs" / name).mkdir(parents=True)
    for number in (1, 2):
        (in_tmp / "runs" / f"vanilla-sprites-00{number}" / "config.yaml").write_text("")
    found = [f"runs/vanilla-sprites-00{number}" for number in (1, 2)]
    for line in ("evaluate ", "sample runs/van", "reconstruct ru", "train --resume runs/vanilla-"):
        assert offered("bash", f"vaezoo {line}") == found
    # None begins so: the shell completes folders itself.
    printed = ask("bash_complete", COMP_WORDS="vaezoo evaluate else", COMP_CWORD="2")
    assert printed == "dir,else\n"


def test_files_where_a_path_was_begun() -> None:
    printed = ask("bash_complete", COMP_WORDS="vaezoo train ./my", COMP_CWORD="2")
    assert printed == "file,./my\n"


def test_a_broken_plugin_does_not_disturb_the_line(in_tmp: Path) -> None:
    (in_tmp / "broken.py").write_text("1 / 0")
    assert offered("bash", "vaezoo train vanil", VAEZOO_PLUGINS="broken.py") == ["vanilla"]
    assert offered("bash", "vaezoo train vanil", VAEZOO_STRICT_PLUGINS="x") == []


def test_a_file_is_not_run_to_complete_its_options(in_tmp: Path) -> None:
    (in_tmp / "mine.py").write_text("open('was_run', 'w')")
    assert offered("bash", "vaezoo train mine.py:Mine --batch-s") == ["--batch-size"]
    assert not (in_tmp / "was_run").exists()
