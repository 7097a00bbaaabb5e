#!/usr/bin/env bash
# What a job would do, without queueing it: write slurm/dryrun.sh where sbatch stands.
#   slurm/dryrun.sh [sbatch options] slurm/pretrain.sh [RECIPE] [--dotted.option value]...
# Slurm itself says what it makes of the options and when the job could start; the plan below it is the job's own.
set -euo pipefail
lib=$(dirname "$0")/lib.sh
# shellcheck source=slurm/lib.sh
. "$lib"

options=()
while [ $# -gt 0 ] && ! [[ $1 == *.sh && -f $1 ]]; do
  options+=("$1")
  shift
done
[ $# -gt 0 ] || fail "usage: slurm/dryrun.sh [sbatch options] slurm/SCRIPT.sh [RECIPE] [--dotted.option value]..."
export IDC_DRYRUN=1 IDC_CODE=$CODE
case $1 in *pipeline.sh) exec bash "$@" ;; esac
command -v sbatch >/dev/null || fail "no sbatch on this machine: run this where jobs are submitted"
answer=$(sbatch --verbose --test-only "${options[@]}" "$@" 2>&1) || fail "$(tail -n 1 <<<"$answer")"

option() { sed -n "s/^sbatch: $1 *: *//p" <<<"$answer"; }

nodes=$(option nodes)
gpus=$(option gpus-per-node)$(option gres)
memory=$(option mem)
tasks=$(option array)
verdict=$(grep 'to start at' <<<"$answer")
[[ $verdict =~ using\ ([0-9]+)\ processors ]] || fail "sbatch --test-only said: $verdict" 1
processors=${BASH_REMATCH[1]}
SLURM_JOB_NUM_NODES=${nodes%%-*}
export SLURM_JOB_NUM_NODES SLURM_JOB_ID=JOB SLURM_CPUS_ON_NODE=$((processors / SLURM_JOB_NUM_NODES))
[ -z "$tasks" ] || export SLURM_ARRAY_TASK_ID=${tasks%%[!0-9]*} # the plan of the first
[[ $gpus =~ ([0-9]+)$ ]] && export SLURM_GPUS_ON_NODE=${BASH_REMATCH[1]}
case $memory in
  *G) export SLURM_MEM_PER_NODE=$((${memory%G} * 1024)) ;;
  *M) export SLURM_MEM_PER_NODE=${memory%M} ;;
esac
say "slurm    ${verdict#sbatch: Job * to }"
exec bash "$@"
