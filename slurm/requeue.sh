# shellcheck shell=bash
# A job that Slurm starts once more, to go on: asked to stop before its time is over, or struck by a fault of its
# machines. lib.sh sources this.

STOPPED=85                     # the driver's exit code: asked to stop, a last checkpoint written, the same command goes on
GRACE_S=${IDC_GRACE_S:-90}     # from the signal to the end of the driver; --signal gives 120 s until that of the job
PROBE_LIMIT_S=30               # for a step of one command on every node
STOPPING='' AGAIN='' DRIVER='' # asked to stop; what has the job started once more; the driver's process
RUN='' SCRIPT=''               # what goes on then: a folder below runs/, or data; the script that makes it; none: nothing

stop() { # Slurm's signal: asks the driver for a last checkpoint, and sees that it ends in time
  STOPPING=yes
  [ -n "$DRIVER" ] || return 0
  say "asked to stop: up to $GRACE_S s to end"
  kill -USR1 "$DRIVER" 2>/dev/null || return 0
  if ! ended_within "$GRACE_S" "$DRIVER"; then
    say "not stopped after $GRACE_S s (IDC_GRACE_S): the job goes on from the checkpoint before"
    kill -KILL "$DRIVER"
  fi
}

judge() { # CODE of a driver that has ended: AGAIN where another start of the job is what it needs
  case $1 in
    0 | 2 | 3) ;; # done, the user's mistake, diverged: another start would come to the same
    "$STOPPED") AGAIN="it was asked to stop" ;;
    *)
      if [ -n "$STOPPING" ]; then
        AGAIN="it was asked to stop"
      elif ! timeout "$PROBE_LIMIT_S" srun --nodes="$NODES" --ntasks="$NODES" --ntasks-per-node=1 --overlap \
        --mpi=none true </dev/null >/dev/null 2>&1; then
        AGAIN="a node does not answer"
      fi
      ;;
  esac
}

name_run() { # HELP ARGUMENTS...: RUN, the folder below runs/ that `train` works in; a task of a job array is a seed
  local seeds=seed_${SLURM_ARRAY_TASK_ID:-}
  RUN=$(sed -n 's/^ *--name [^[]*\[\([^]]*\)\].*/\1/p' <<<"$1")
  shift
  if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    if given seed "$@" >/dev/null || given seeds "$@" >/dev/null; then
      fail "each task of --array is a seed, by its number: leave out --seed and --seeds"
    fi
    # As --seeds has it, so that --seeds can sum up what the tasks have made.
    RUN=$RUN-seeds/$seeds
    DERIVED+=(--name "$RUN" --seed "$SLURM_ARRAY_TASK_ID")
  elif given seeds "$@" >/dev/null; then
    RUN=$RUN-seeds
  fi
}

reached() { # where the run is: its newest checkpoint; of packing, how many shards there are
  local newest
  if [ "$SCRIPT" = pack ]; then
    newest="$(find "$HOME_FOLDER/data" -name '*.tar' 2>/dev/null | wc -l) shards" || true
  else
    newest=$(find "$HOME_FOLDER/runs/$RUN" -name COMMIT -printf '%T@ %P\n' 2>/dev/null | sort -n | tail -n 1) || true
    newest=${newest#* checkpoints/} newest=${newest#* } newest=${newest%/COMMIT}
  fi
  printf '%s' "${newest:-its start}"
}

requeue() { # has Slurm start this job once more, unless that brought it no further the last time
  local job=$SLURM_JOB_ID place refused
  # The last task of an array has the number of the whole array.
  [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  place=$(reached)
  if [ "$(cat "$RECORD" 2>/dev/null)" = "$place" ]; then
    rm -f "$RECORD"
    say "not requeued: $RUN is at $place, where it was when the job was requeued before; is the time limit too short?"
    say "to go on all the same: sbatch with the same options, $(command_line)"
    return
  fi
  mkdir -p "${RECORD%/*}" && printf '%s' "$place" >"$RECORD"
  # Without `incomplete`, a job that has been cancelled would be brought back to life.
  if refused=$(scontrol requeue incomplete "$job" 2>&1); then
    say "requeued, because $AGAIN: job $job goes on, $RUN is at $place"
  else
    rm -f "$RECORD"
    say "$AGAIN, and Slurm does not requeue the job (${refused:-no reason given})"
    say "$RUN is at $place; to go on: sbatch with the same options, $(command_line)"
  fi
}

command_line() { # what was submitted, to be typed again
  printf 'slurm/%s.sh' "$SCRIPT"
  [ ${#GIVEN[@]} = 0 ] || printf ' %q' "${GIVEN[@]}"
}
