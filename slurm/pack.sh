#!/usr/bin/env bash
# The data of a recipe, packed, its features cached: sbatch slurm/pack.sh [RECIPE] [--dotted.option value]...
#SBATCH --job-name=pack
#SBATCH --nodes=1
#SBATCH --output=slurm-%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@60
set -euo pipefail
lib=${IDC_CODE:-${SLURM_SUBMIT_DIR:-.}}/slurm/lib.sh
[ -f "$lib" ] || { echo "no $lib: run sbatch in the checkout, or set IDC_CODE to it" >&2 && exit 2; }
# shellcheck source=slurm/lib.sh
. "$lib"
read_allocation
announce
SCRIPT=pack RUN=data # what goes on in the next start: all shards that are finished are kept
workers=()
given data.pack_workers "$@" >/dev/null || workers=(--data.pack_workers "$CPUS")
alone "${PYTHON[@]}" -m cluster.prepare "$@" "${workers[@]}"
