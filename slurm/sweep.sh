#!/usr/bin/env bash
# A sweep, its trials on all nodes of the job: sbatch slurm/sweep.sh [RECIPE] [--trials N] [--option value or range]...
#SBATCH --job-name=sweep
#SBATCH --nodes=1
#SBATCH --output=slurm-%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
set -euo pipefail
lib=${IDC_CODE:-${SLURM_SUBMIT_DIR:-.}}/slurm/lib.sh
[ -f "$lib" ] || { echo "no $lib: run sbatch in the checkout, or set IDC_CODE to it" >&2 && exit 2; }
# shellcheck source=slurm/lib.sh
. "$lib"
sweep "$@"
