#!/usr/bin/env bash
# The whole set, unattended, in under ten minutes on one GPU: bash benchmarks/run_all.sh SOURCE
# SOURCE is any folder of JPEGs; the photographs are made out of it.
set -euo pipefail
cd "$(dirname "$0")"
photographs=$(mktemp -d)/photographs
python photographs.py "$1" "$photographs" --count 4000
python tutorial.py --images "$photographs" --rounds 3 --workers 4
python first_step.py --images "$photographs" --rounds 3
if python -c 'import pythae' 2>/dev/null; then python pythae_trainer.py; else echo "no pythae here: pythae_trainer.py is left out"; fi
python scaling.py --largest-batch 4096 --largest-image 256 --most-images 700000
python speedrun.py --images "$1"
python -m vaezoo bench --json "results/bench-$(date +%F).json" --markdown results/bench.md --plot results/bench.png
