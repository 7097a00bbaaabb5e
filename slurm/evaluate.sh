#!/usr/bin/env bash
# Captions, scores and report of a trained run: sbatch slurm/evaluate.sh [RECIPE] [--dotted.option value]...
#SBATCH --job-name=evaluate
#SBATCH --nodes=1
#SBATCH --output=slurm-%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
set -euo pipefail
lib=${IDC_CODE:-${SLURM_SUBMIT_DIR:-.}}/slurm/lib.sh
[ -f "$lib" ] || { echo "no $lib: run sbatch in the checkout, or set IDC_CODE to it" >&2 && exit 2; }
# shellcheck source=slurm/lib.sh
. "$lib"
train --stage evaluate "$@"
