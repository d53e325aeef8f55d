"""A mutation test of the mathematics: do the tests notice when one operator or number changes?

python .ci/mutation_test.py [--sample 300] [--seed 0] [--jobs 2]

cosmic-ray changes one operator, number, condition, loop or decorator at a time. The sample is drawn
by place: each place in the code has one mutant at most. Places are ordered by a checksum of the
seed and of the text around them, so an edit elsewhere does not change the sample. For each mutant
the tests of its file run first, then those of its package. A mutant falls if a test fails or does
not end. Results are kept in --results, so a run that was stopped goes on; --again runs the
survivors once more. Mutants that change no behaviour stand in mutation_equivalent.yaml.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("mutation_equivalent.yaml")
SOURCES = (
    "plugins/*/*.py",
    "vaezoo/losses/*.py",
    "vaezoo/models/*.py",
    "vaezoo/evaluation/*.py",
    "vaezoo/data/*.py",
    "vaezoo/bench/*.py",
)
LEFT_OUT = re.compile(
    r"/(__init__|plugin|options|spec)\.py|vaezoo_(tensorboard|report|scaffold|maps)/"
    r"|vaezoo_files/(cache|celeba|folder|image_files|locator|placements|torchvision_sets)|vaezoo/evaluation/plots|vaezoo/models/memory"
)
"""Registration, options, reading of files, charts: no mathematics."""

PRELOADED = [
    "torch",
    "torchvision",
    "pytest",
    "hypothesis",
    "pydantic",
    "safetensors.torch",
    "rich",
]
"""Imported once; the process of each mutant is forked with them."""

Tests = tuple[str, ...]
"""Arguments of one pytest process."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file. before, after: the changed lines, without extra blanks."""

    id: str
    file: str
    line: int
    operator: str
    before: str
    after: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.before, self.after


def checksum(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:16]


def digest(tests: Sequence[str], root: Path = ROOT) -> str:
    """A checksum of the test file: once it has changed, it must pass again without a mutant."""
    path = root / tests[0]
    return checksum(path.read_text()) if path.exists() else ""


def source_files() -> list[str]:
    return [path for path in paths(list(SOURCES)) if not LEFT_OUT.search(path)]


def places(file: str) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Each place of a file by its key, with its (operator, occurrence) pairs."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    source = (ROOT / file).read_text()
    lines = source.splitlines()
    scopes = [
        n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.ClassDef)
    ]
    nodes = [
        node
        for node in ast_nodes(get_ast(source))
        if hasattr(node, "children") or node.type in ("operator", "number", "keyword")
    ]
    found: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for name in operator_names():
        if "Variable" in name:  # they need names of variables
            continue
        operator, occurrence = get_operator(name)(), itertools.count()
        for node in nodes:
            for start, _ in operator.mutation_positions(node):
                found.setdefault(start, []).append((name, next(occurrence)))
    seen: dict[str, int] = {}
    for (line, column), mutations in sorted(found.items()):
        scope = ".".join(n.name for n in scopes if n.lineno <= line <= (n.end_lineno or 0))
        key = f"{file}|{scope}|{lines[line - 1].strip()}|{column}"
        seen[key] = seen.get(key, 0) + 1
        yield f"{key}|{seen[key]}", mutations


def behaviour(source: str) -> str:
    """The syntax tree without annotations and without the kinds of parameters."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
            node.posonlyargs, node.kwonlyargs = [], []
            node.defaults += filter(None, node.kw_defaults)
            node.kw_defaults = []
        for name in ("annotation", "returns"):
            if hasattr(node, name):
                setattr(node, name, None)
    return ast.dump(tree)


def make_mutant(file: str, key: str, name: str, occurrence: int) -> tuple[Mutant, str] | None:
    """A mutant with its source; None if it is not Python or changes annotations only."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = (ROOT / file).read_text()
    mutated = mutate_code(source, get_operator(name)(), occurrence)
    try:
        if mutated is None or behaviour(mutated) == behaviour(source):
            return None
    except (SyntaxError, ValueError):
        return None
    old, new = source.splitlines(), mutated.splitlines()
    start = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    end = next(i for i, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b)
    before, after = (
        " ".join(" ".join(lines[start : len(lines) - end]).split()) for lines in (old, new)
    )
    operator = name.removeprefix("core/")
    identity = checksum(key, name, after)
    return Mutant(identity, file, start + 1, operator, before, after), mutated


def sample(count: int, seed: int) -> list[tuple[Mutant, str]]:
    """Mutants with their sources, one a place, in the order of a checksum."""
    everywhere = [(file, *place) for file in source_files() for place in places(file)]
    everywhere.sort(key=lambda place: checksum(seed, place[1]))
    print(f"{len(everywhere)} places in {len(source_files())} files", flush=True)
    chosen: list[tuple[Mutant, str]] = []
    for file, key, mutations in everywhere:
        if len(chosen) == count:
            break
        order = [checksum(seed, key, number) for number in range(len(mutations))]
        for _, mutation in sorted(zip(order, mutations, strict=True)):
            mutant = make_mutant(file, key, *mutation)
            if mutant is not None:
                chosen.append(mutant)
                break
    return chosen


def tests_of(file: str) -> list[list[Tests]]:
    """The tests of a file, those of its package, those of what uses it: one process a test file."""
    package, stem = Path(file).parts[-2], Path(file).stem
    wide: list[Tests] = []
    if file.startswith("plugins/"):
        family, dotted = package.removeprefix("vaezoo_"), f"{package}.{stem}"
        own = [f"tests/plugins/test_{family}_{stem}*.py"]
        near = [f"tests/plugins/test_{family}*.py"]
        near += ["tests/evaluation/test_*.py"] if family == "metrics" else []
        wide = [("tests/plugins/test_contract.py", "-k", " or ".join(names_of(package)))]
        wide = wide if names_of(package) else []
    else:
        own, dotted = [f"tests/{package}/test_{stem}*.py"], f"vaezoo.{package}.{stem}"
        near = [f"tests/{package}/test_*.py"]
        if package in ("losses", "models"):
            near = ["tests/losses/test_*.py", "tests/models/test_*.py"]
        if package != "bench":
            wide = [("tests/plugins/test_contract.py", "-k", "vanilla or vq_vae or npz")]
    using = [
        path.relative_to(ROOT).as_posix()
        for path in sorted(ROOT.glob("tests/*/test_*.py"))
        if path.parent.name not in ("fuzz", "fault_injection", "distributed")
        and f"{dotted} " in path.read_text()
    ]
    stages: list[list[Tests]] = []
    known = {"tests/plugins/test_contract.py"}
    for names in (paths(own), paths(near), using):
        stages.append([(name,) for name in names if name not in known])
        known |= {*names}
    return [*stages, wide]


def paths(globs: list[str]) -> list[str]:
    return sorted({p.relative_to(ROOT).as_posix() for glob in globs for p in ROOT.glob(glob)})


@functools.cache
def names_of(package: str) -> list[str]:
    """The names of the models, losses and data sets that a plugin package registers."""
    from vaezoo.plugins.registry import registry

    known = registry()
    specs = [spec for kind in ("model", "loss", "dataset") for spec in known.specs(kind)]
    return sorted({s.name for s in specs if known.plugin(s).module.startswith(f"{package}.")})


def pytest_process(tree: str, tests: Tests, log: str) -> None:
    """Run pytest in a copy of the repository; the exit code is pytest's."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(tree)
    sys.dont_write_bytecode = True
    sys.path[:0] = [tree, f"{tree}/plugins"]
    os.environ |= {
        "PYTHONPATH": f"{tree}:{tree}/plugins",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    import pytest

    code = int(pytest.main([*tests, "-x", "-q", "--tb=line", "-p", "no:cacheprovider"]))
    sys.stdout.flush()
    os._exit(code)


class Trees:
    """Copies of the repository in which mutants are tested, one for each job."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.free: queue.Queue[Path] = queue.Queue()
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        for number in range(jobs):
            tree = folder / str(number)
            for name in filter(None, files.split("\0")):
                if (ROOT / name).is_file():
                    (tree / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, tree / name)
            # A checksum of the source, since a mutant may have the size and time of the original.
            mode = ["--invalidation-mode", "checked-hash", "vaezoo", "plugins", "tests/helpers"]
            subprocess.run([sys.executable, "-m", "compileall", "-q", *mode], cwd=tree, check=True)
            self.free.put(tree)

    def run(self, tree: Path, tests: Tests, timeout: float) -> tuple[int | None, str]:
        """The exit code and the last lines of a pytest process; None if it did not end."""
        log = tree.with_suffix(".log")
        process = self.context.Process(target=pytest_process, args=(str(tree), tests, str(log)))
        process.start()
        process.join(timeout)
        code = process.exitcode
        assert process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        text = log.read_text(errors="replace") if log.exists() else ""
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, flags=re.M)
        return code, failed[0] if failed else text.strip()[-300:]

    def check(self, tests: Tests) -> dict[str, Any]:
        """Seconds of the tests without a mutant. Those that fail then are left out, and named."""
        tree, begun = self.free.get(), time.monotonic()
        try:
            code, why = self.run(tree, tests, 1800)
        finally:
            self.free.put(tree)
        if code not in (0, 5):  # 5: no tests, where -k selects none
            return {"tests": tests, "failed": why}
        took = round(time.monotonic() - begun, 1)
        return {"tests": tests, "digest": digest(tests, tree), "seconds": took}

    def test(
        self, mutant: Mutant, mutated: str, plan: list[list[Tests]], seconds: dict[Tests, float]
    ) -> dict[str, Any]:
        """The result of a mutant: killed, and by which test, or survived."""
        tree, begun = self.free.get(), time.monotonic()
        path = tree / mutant.file
        original = path.read_text()
        status, by = "survived", ""
        try:
            path.write_text(mutated)
            for stage in plan:
                for tests in sorted(stage, key=lambda tests: seconds[tests]):
                    if status == "survived":
                        code, why = self.run(tree, tests, 10 * seconds[tests] + 120)
                        if code not in (0, 5):
                            status, by = "killed", "timeout" if code is None else why
        finally:
            path.write_text(original)
            self.free.put(tree)
        took = round(time.monotonic() - begun, 1)
        return {**asdict(mutant), "status": status, "by": by, "seconds": took}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=300, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="mutants at the same time")
    parser.add_argument("--at-least", type=float, default=95.0, help="percent that must fall")
    parser.add_argument("--results", type=Path, default=ROOT / ".mutation_results.jsonl")
    parser.add_argument("--again", action="store_true", help="run the survivors once more")
    parser.add_argument(
        "--quick", action="store_true", help="without the tests of what uses a file"
    )
    parser.add_argument("--list", action="store_true", help="list the sample and its results only")
    args = parser.parse_args()

    import yaml

    mutants = sample(args.sample, args.seed)
    entries = yaml.safe_load(EQUIVALENT.read_text()) if EQUIVALENT.exists() else None
    equivalent = {(e["file"], e["before"], e["after"]): e["reason"] for e in entries or []}
    results: dict[str, dict[str, Any]] = {}
    seconds: dict[Tests, float] = {}
    for line in args.results.read_text().splitlines() if args.results.exists() else []:
        entry = json.loads(line)
        if "tests" in entry and entry.get("digest") == digest(entry["tests"]):
            seconds[tuple(entry["tests"])] = entry["seconds"]
        elif "tests" in entry:
            seconds.pop(tuple(entry["tests"]), None)
        else:
            results[entry["id"]] = entry
    waiting = [
        (mutant, source)
        for mutant, source in mutants
        if mutant.key not in equivalent
        and (
            mutant.id not in results or (args.again and results[mutant.id]["status"] == "survived")
        )
    ]
    if waiting and not args.list:

        def keep(entry: dict[str, Any]) -> dict[str, Any]:
            with args.results.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            return entry

        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
            trees = Trees(Path(folder), args.jobs)
            stages = 2 if args.quick else None
            plans = {mutant.file: tests_of(mutant.file)[:stages] for mutant, _ in waiting}
            needed = {tests for plan in plans.values() for stage in plan for tests in stage}
            fresh = sorted(needed - {*seconds})
            for entry in pool.map(lambda tests: keep(trees.check(tests)), fresh):
                if "failed" in entry:
                    print(f"left out, fails without a mutant: {entry['failed']}", flush=True)
                    for stage in itertools.chain.from_iterable(plans.values()):
                        stage[:] = [tests for tests in stage if tests != entry["tests"]]
                    continue
                seconds[tuple(entry["tests"])] = entry["seconds"]
                print(f"{entry['seconds']} s without a mutant: {entry['tests']}", flush=True)
            jobs = pool.map(
                lambda m: keep(trees.test(m[0], m[1], plans[m[0].file], seconds)), waiting
            )
            for number, result in enumerate(jobs, 1):
                results[result["id"]] = result
                print(f"{number}/{len(waiting)} {result['status']} {result['file']}", flush=True)
    return summarize([mutant for mutant, _ in mutants], results, equivalent, args.at_least)


def summarize(
    mutants: list[Mutant],
    results: dict[str, dict[str, Any]],
    equivalent: dict[tuple[str, str, str], str],
    at_least: float,
) -> int:
    """Print the survivors and the score. The exit code is 1 if the score is too low."""
    same = [m for m in mutants if m.key in equivalent]
    ran = [m for m in mutants if m.id in results and m.key not in equivalent]
    survivors = [m for m in ran if results[m.id]["status"] == "survived"]
    for mutant in sorted(survivors, key=lambda m: (m.file, m.line)):
        print(f"\n{mutant.file}:{mutant.line} {mutant.operator} survived")
        print(f"  - {mutant.before}\n  + {mutant.after}")
    score = 100 * (1 - len(survivors) / max(1, len(ran)))
    print(
        f"\n{len(mutants)} mutants: {len(same)} equivalent, {len(ran)} tested, "
        f"{len(ran) - len(survivors)} killed, {len(survivors)} survived: {score:.1f} %"
    )
    return int(score < at_least or len(same) + len(ran) < len(mutants))


if __name__ == "__main__":
    sys.exit(main())
