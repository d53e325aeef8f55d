#!/usr/bin/env bash
# The GPU tests and all tables of one machine, unattended, in less than ten minutes:
#
#   bash benchmarks/run_all.sh [--images DIR] [--device cpu] [--tiny] [--wheels DIR]
#
# It works from a clean checkout with the torch of the `python` on the path. Without a network,
# --wheels DIR has what that python lacks; by default DIR is `wheels` in the checkout, if there is
# one; all of its wheels are installed. It is filled on another machine, for instance for Python 3.12:
#
#   pip download -d wheels --no-deps --only-binary=:all: --python-version 3.12 \
#     hatchling editables packaging pathspec pluggy trove-classifiers tomlkit click pyyaml \
#     pydantic pydantic-core annotated-types typing-inspection rich markdown-it-py mdurl \
#     safetensors pytest iniconfig pytest-timeout pytest-xdist execnet hypothesis \
#     sortedcontainers zuko
#
# Results go to benchmarks/results, those of --tiny to a new temporary folder. A part that fails is
# named at the end, and the others run all the same.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=wheels
rest=()
while [ $# -gt 0 ]; do
  case "$1" in
    --wheels) wheels=${2:?--wheels needs a folder}; shift 2 ;;
    *) rest+=("$1"); shift ;;
  esac
done
if (cd benchmarks && python -c 'import vaezoo, pytest, hypothesis') 2>/dev/null; then
  exec python benchmarks/run_all.py "${rest[@]}"
fi
# A new environment that sees the packages of this python, and gets vaezoo and what is missing.
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
python -m venv "$environment"
packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python -c 'import sys; print(*[p for p in sys.path if p.endswith("-packages")], sep="\n")' \
  > "$packages/outer.pth"
if [ -d "$wheels" ]; then
  # --no-deps: torch is there, whatever pip thinks of its requirements.
  install=("$environment/bin/pip" install --quiet --no-index --no-deps --no-build-isolation)
  "${install[@]}" "$wheels"/*.whl
  "${install[@]}" -e .
else
  "$environment/bin/pip" install --quiet -e '.[test]'
fi
"$environment/bin/python" benchmarks/run_all.py "${rest[@]}"
