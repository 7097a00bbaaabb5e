#!/usr/bin/env bash
# Ray on one node of a job: lib.sh starts it as one task a node. It ends with Ray, or with its standard input.
set -euo pipefail
# shellcheck source=slurm/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

RAY='' TETHER=''
# shellcheck disable=SC2329 # the trap calls it
leave() {
  local code=$?
  trap - EXIT
  trap '' TERM INT
  if [ -n "$RAY" ] && kill -TERM "$RAY" 2>/dev/null; then
    ended_within "$STOP_LIMIT_S" "$RAY" || kill -KILL "$RAY"
  fi
  [ -z "$TETHER" ] || kill "$TETHER" 2>/dev/null || true
  # The first node's is the job's own; finish() removes it.
  [ "$SLURM_PROCID" = 0 ] || rm -rf "$FOLDER"
  exit "$code"
}
trap leave EXIT
trap 'exit 143' TERM INT

IFS= read -r token
if [ "$SLURM_PROCID" != 0 ]; then
  if [ -O "$FOLDER" ]; then rm -rf "$FOLDER"; fi
  mkdir -m 700 "$FOLDER"
  mkdir "$FOLDER/tmp"
  (umask 077 && printf '%s' "$token" >"$FOLDER/token")
fi
export TMPDIR=$FOLDER/tmp
cat <&0 >/dev/null &  # said aloud: a background command would read /dev/null
TETHER=$!

read_allocation
address=$(node_address)
# gloo would take the address that the host name stands for here, often 127.0.1.1.
if command -v ip >/dev/null; then
  GLOO_SOCKET_IFNAME=${IDC_INTERFACE:-$(ip -o -4 address | awk -v a="$address/" 'index($4, a) == 1 { print $2; exit }')}
  export GLOO_SOCKET_IFNAME
fi
[ -z "${IDC_INTERFACE:-}" ] || export NCCL_SOCKET_IFNAME=$IDC_INTERFACE

options=(
  --block --disable-usage-stats "--node-ip-address=$address" "--temp-dir=$FOLDER/ray" --object-store-memory=134217728
  "--num-cpus=${SLURM_CPUS_ON_NODE:-$CPUS}" "--num-gpus=$GPUS" --min-worker-port=0 --max-worker-port=0
  --include-log-monitor=false
)
[ "$MEMORY" = 0 ] || options+=("--memory=$((MEMORY * 2 ** 20))")
if [ "$SLURM_PROCID" = 0 ]; then
  first=${RAY_ADDRESS##*:}
  # No autoscaler, a process of its own: the nodes are what they are.
  options+=(--head "--port=$first" --include-dashboard=false --no-monitor)
else
  # A raylet that comes before the head gives up; probing costs less than its own attempts.
  until (exec 3<>"/dev/tcp/${RAY_ADDRESS%:*}/${RAY_ADDRESS##*:}") 2>/dev/null; do
    [ "$SECONDS" -lt "$RAY_LIMIT_S" ] || fail "no Ray head at $RAY_ADDRESS after $RAY_LIMIT_S s" 1
    sleep 0.2
  done
  first=$(free_ports)
  options+=("--address=$RAY_ADDRESS")
fi
names=(
  port dashboard-port ray-client-server-port node-manager-port object-manager-port metrics-export-port
  runtime-env-agent-port dashboard-agent-listen-port dashboard-agent-grpc-port
)
for i in "${!names[@]}"; do
  if [ "$SLURM_PROCID" = 0 ] || [ "$i" -gt 2 ]; then options+=("--${names[i]}=$((first + i))"); fi
done
export RAY_worker_niceness=0 # Ray's 15 lets anything else on the machine go first, and these CPUs are the job's
# No workers that wait to be used: ours have an environment of their own, and these never would be.
export RAY_prestart_worker_first_driver=0
# When it is told to stop, the work is over: no draining, which may take longer than the scheduler gives.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
# Nothing in Ray's environment may lead it to another Ray.
env -u RAY_ADDRESS "${PYTHON[@]}" -m cluster.distributed.own_ray "${options[@]}" &
RAY=$!
wait -n "$RAY" "$TETHER" || true
if kill -0 "$RAY" 2>/dev/null; then exit 0; fi # the tether was let go
wait "$RAY" || fail "Ray on ${SLURMD_NODENAME:-$(hostname)} ended with exit code $?" 1
fail "Ray on ${SLURMD_NODENAME:-$(hostname)} ended" 1
