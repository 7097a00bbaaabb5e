#!/usr/bin/env bash
# Data, pre-training, fine-tuning and evaluation as four jobs, each of which waits for the one before:
#   slurm/pipeline.sh [RECIPE] [--dotted.option value]...
# IDC_SBATCH has the sbatch options of the training jobs (such as "--nodes=2 --gpus-per-node=8"), IDC_SBATCH_PACK those
# of the first. Prints the numbers of the jobs; where one fails, those behind it are cancelled. sbatch runs it as well.
#SBATCH --job-name=pipeline
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --no-requeue
#SBATCH --output=slurm-%x-%j.log
set -euo pipefail
lib=${IDC_CODE:-${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/lib.sh
[ -f "$lib" ] || { echo "no $lib: run this in the checkout, or set IDC_CODE to it" >&2 && exit 2; }
# shellcheck source=slurm/lib.sh
. "$lib"
for name in "${!SLURM_@}"; do # this job's own, where it is one
  [ "$name" = SLURM_CONF ] || unset "$name"
done
export IDC_CODE=$CODE
read -ra training <<<"${IDC_SBATCH:-}"
read -ra packing <<<"${IDC_SBATCH_PACK:-}"
# Nobody wants to hear of a misspelt option from the last job of four.
check_options cluster/train.py "$@" >/dev/null

after=()
for job in pack pretrain finetune evaluate; do
  options=("${training[@]}")
  if [ "$job" = pack ]; then options=("${packing[@]}"); fi
  if [ -n "${IDC_DRYRUN:-}" ]; then
    "$CODE/slurm/dryrun.sh" "${options[@]}" "$CODE/slurm/$job.sh" "$@"
    continue
  fi
  number=$(sbatch --parsable "${after[@]}" "${options[@]}" "$CODE/slurm/$job.sh" "$@")
  number=${number%%;*} # the cluster's name follows where there are several
  after=("--dependency=afterok:$number" --kill-on-invalid-dep=yes)
  echo "$job $number"
done
