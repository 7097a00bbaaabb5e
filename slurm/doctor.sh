#!/usr/bin/env bash
# Looks at every node of an allocation: sbatch slurm/doctor.sh [options of python -m cluster.doctor]
#SBATCH --job-name=doctor
#SBATCH --nodes=1
#SBATCH --output=slurm-%x-%j.log
set -euo pipefail
lib=${IDC_CODE:-${SLURM_SUBMIT_DIR:-.}}/slurm/lib.sh
[ -f "$lib" ] || { echo "no $lib: run sbatch in the checkout, or set IDC_CODE to it" >&2 && exit 2; }
# shellcheck source=slurm/lib.sh
. "$lib"
read_allocation
on_ray "${PYTHON[@]}" -m cluster.doctor "$@"
