#!/usr/bin/env bash
# Two machines, made of network namespaces: a job over both; one that loses a process, and then a
# machine, and is started again; one whose second machine vanishes for good.
#
#     bash tests/fault_injection/hosts.sh [FOLDER]
#
# Needs root; without it one line says so. Ends with 1 if anything is not as it must be.
set -euo pipefail

if ! { [ "$(id -u)" = 0 ] && ip netns add vaezoo-probe 2>/dev/null && ip netns del vaezoo-probe; }; then
    echo "hosts.sh: skipped: making network namespaces needs root and ip"
    exit 0
fi
repository=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d "${1:-/tmp}/vaezoo-hosts.XXXX")
export PYTHONPATH="$repository:$repository/plugins" OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=veth0
export VAEZOO_CACHE="$folder/cache"

cleanup() {
    for host in vaezoo-a vaezoo-b; do
        ip netns pids "$host" 2>/dev/null | xargs -r kill -9 || true
        ip netns del "$host" 2>/dev/null || true
    done
}
trap cleanup EXIT
cleanup
ip netns add vaezoo-a
ip netns add vaezoo-b
ip link add veth0 netns vaezoo-a type veth peer name veth0 netns vaezoo-b
address() { [ "$1" = a ] && echo 10.77.0.1 || echo 10.77.0.2; }
for host in a b; do
    mkdir "$folder/$host"
    ip -n "vaezoo-$host" addr add "$(address $host)/24" dev veth0
    ip -n "vaezoo-$host" link set veth0 up
    ip -n "vaezoo-$host" link set lo up
done

# The same line on both, each in a folder of its own: only the first has the run afterwards.
on() {
    local host=$1 run=$2 steps=$3 restarts=${4:-0}
    cd "$folder/$host"
    exec ip netns exec "vaezoo-$host" torchrun --nnodes 2 --nproc-per-node 1 --max-restarts "$restarts" \
        --rdzv-backend c10d --rdzv-endpoint 10.77.0.1:29477 --rdzv-id "$run" \
        --rdzv-conf "is_host=$([ "$host" = a ] && echo 1 || echo 0)" \
        --local-addr "$(address "$host")" -m vaezoo train vanilla --data sprites --examples 300 \
        --test 40 --image-size 16 --network mlp --hidden 32 --latent-dim 4 --batch-size 16 \
        --log-every 5 --checkpoint-every 10 --steps "$steps" --device cpu --out "$run" \
        >> "$folder/$host-$run.log" 2>&1
}
saved() {
    for _ in $(seq 600); do
        compgen -G "$folder/a/$1/checkpoint/step-*" > /dev/null && return
        sleep 0.5
    done
    fail "no checkpoint in five minutes"
}
process_of() {
    for pid in $(ip netns pids "vaezoo-$1"); do
        tr '\0' '\n' < "/proc/$pid/environ" 2>/dev/null | grep -q '^RANK=' && echo "$pid"
    done
}
fail() {
    echo "hosts.sh: LOST: $1 (logs in $folder)"
    exit 1
}

(on a whole 60) & first=$!
(on b whole 60) & second=$!
wait $first || fail "the first machine's part of a whole job ended badly"
wait $second || fail "the second machine's part of a whole job ended badly"
[ -f "$folder/a/whole/summary.json" ] || fail "the first machine has no finished run"
[ ! -e "$folder/b/whole" ] || fail "the second machine wrote a run folder"
echo "hosts.sh: a job over two machines finished, and its run is on the first"

for lost in process machine; do
    # For torchrun's own agents, which else look for the machine where it was before.
    [ "$lost" = machine ] && export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    (on a "$lost" 4000 2) & first=$!
    (on b "$lost" 4000 2) & second=$!
    saved "$lost"
    if [ "$lost" = process ]; then
        process_of b | xargs kill -9
    else
        ip netns pids vaezoo-b | xargs kill -9
        wait $second || true
        (on b "$lost" 4000 2) & second=$!
    fi
    wait $first && wait $second || fail "a job that lost a $lost and was started again ended badly"
    steps=$(grep '"train"' "$folder/a/$lost/metrics.jsonl" | grep -o '"step": [0-9]*' | grep -o '[0-9]*')
    [ "$(tail -n 1 <<< "$steps")" = 4000 ] || fail "it did not come to its last step"
    sort -nuc <<< "$steps" || fail "a line of it is there twice, or not in order"
    echo "hosts.sh: a job over both lost a $lost, was started again, and finished"
done
unset TORCH_DISABLE_SHARE_RDZV_TCP_STORE

(on a cut 1000000) & first=$!
(on b cut 1000000) & second=$!
saved cut
begun=$(date +%s)
ip -n vaezoo-b link set veth0 down
wait $first && fail "the first machine's part ended well without the second"
took=$(($(date +%s) - begun))
[ $took -le 75 ] || fail "the first machine needed $took s to notice that the second is gone"
said="vaezoo: another process of the job is gone"
grep -q "$said" "$folder/a-cut.log" || fail "the first machine said nothing"
# There torchrun itself goes on looking for the first machine; the process that trained is gone.
for _ in $(seq 60); do grep -q "$said" "$folder/b-cut.log" && break; sleep 0.5; done
grep -q "$said" "$folder/b-cut.log" || fail "the second machine said nothing"
ip netns pids vaezoo-b | xargs -r kill -9
wait $second || true
echo "hosts.sh: a machine that vanished ended the job in $took s"

steps=$(($(grep -c '"train"' "$folder/a/cut/metrics.jsonl") * 5 + 20))
(cd "$folder/a" && python -m vaezoo train --resume cut --steps "$steps" > ../resumed.log 2>&1) ||
    fail "the run did not go on with one process"
echo "hosts.sh: its run went on with one process"
rm -rf "$folder"
