# shellcheck shell=bash
# Ray on a Slurm allocation: the job scripts source this and call `train` or `sweep`; node.sh uses it too.
#
# What is particular to a site comes from the environment or slurm/site.env (see site.env.example).

say() { printf '%s\n' "$*" >&2; }

fail() { # MESSAGE [CODE]: 2 is the user's mistake
  say "$1"
  exit "${2:-2}"
}

CODE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SITE=${IDC_SITE:-$CODE/slurm/site.env}
if [ -f "$SITE" ]; then
  # shellcheck source=/dev/null
  . "$SITE"
elif [ -n "${IDC_SITE:-}" ]; then
  fail "IDC_SITE $SITE: no such file"
else
  SITE=none
fi
read -ra CONTAINER <<<"${IDC_CONTAINER:-}"
PYTHON=("${CONTAINER[@]}" "${IDC_PYTHON:-$CODE/.venv/bin/python}")
GIVEN=("$@") # to a script that sources this
# shellcheck source=slurm/requeue.sh
. "$CODE/slurm/requeue.sh"
trap stop USR1
type -P "${PYTHON[0]}" >/dev/null || fail "${PYTHON[0]} cannot be run: make env in $CODE, or set IDC_PYTHON"
export PYTHONPATH=$CODE${PYTHONPATH:+:$PYTHONPATH}
RAY_LIMIT_S=${IDC_RAY_LIMIT_S:-180} # until every node has joined
STOP_LIMIT_S=8                      # sites give as little as 30 s between the signal and the kill

given() { # OPTION ARGUMENTS...: prints the value of --OPTION where the arguments have it, else returns 1
  local name=--$1 previous='' word value='' found=1
  shift
  for word; do
    case $word in "$name="*) value=${word#*=} found=0 ;; esac
    if [ "$previous" = "$name" ]; then value=$word found=0; fi
    previous=$word
  done
  printf '%s' "$value"
  return $found
}

read_allocation() { # NODES, and what every node has: CPUS, GPUS, MEMORY (MiB, 0: not limited)
  [ -n "${SLURM_JOB_ID:-}" ] || fail "not inside a Slurm job: sbatch ${0##*/}"
  NODES=${SLURM_JOB_NUM_NODES:-1}
  # "8(x2),4" are nodes of 8, 8 and 4 CPUs: workers are alike, so the smallest counts.
  CPUS=$(tr , '\n' <<<"${SLURM_JOB_CPUS_PER_NODE:-$SLURM_CPUS_ON_NODE}" | sed 's/(.*//' | sort -n | head -n 1)
  GPUS=${SLURM_GPUS_ON_NODE:-0}
  MEMORY=${SLURM_MEM_PER_NODE:-$((${SLURM_MEM_PER_CPU:-0} * CPUS))}
  FOLDER=${IDC_TMP:-/tmp}/r$UID.$SLURM_JOB_ID # short: socket paths end at 107 bytes
  HOME_FOLDER=$(given root "${GIVEN[@]}") || HOME_FOLDER=${IDC_HOME:-$CODE}
  RECORD=$HOME_FOLDER/runs/.slurm/$SLURM_JOB_ID # where the run was when this job was requeued
}

gpus_of_worker() { # ARGUMENTS...: prints 0, 0.5 or 1: what is given, or what `auto` comes to on this allocation
  local gpus
  gpus=$(given cluster.gpus_per_worker "$@") || gpus=auto
  [ "$gpus" != auto ] || gpus=$((GPUS > 0 ? 1 : 0))
  printf '%s' "$gpus"
}

derive() { # ARGUMENTS...: DERIVED, the options about workers that follow from the allocation and are not given
  local workers gpus per_node
  gpus=$(gpus_of_worker "$@")
  DERIVED=()
  given cluster.gpus_per_worker "$@" >/dev/null || DERIVED+=(--cluster.gpus_per_worker "$gpus")
  if ! workers=$(given cluster.workers "$@") || [ "$workers" = 0 ]; then
    # As many as the GPUs have room for; on CPUs one a node, with all its cores as threads.
    workers=$NODES
    if [ "$GPUS" != 0 ]; then
      case $gpus in 1) workers=$((NODES * GPUS)) ;; 0.5) workers=$((2 * NODES * GPUS)) ;; esac
    fi
    DERIVED+=(--cluster.workers "$workers")
  fi
  workers=${workers#*..} # of a range, the most
  [[ $workers =~ ^[1-9][0-9]*$ ]] || return 0 # the driver will refuse it
  per_node=$(((workers + NODES - 1) / NODES))
  local cpus=$((CPUS > per_node ? CPUS / per_node : 1))
  given cluster.cpus_per_worker "$@" >/dev/null || DERIVED+=(--cluster.cpus_per_worker "$cpus")
  given cluster.threads "$@" >/dev/null || [ "$gpus" != 0 ] || DERIVED+=(--cluster.threads "$cpus")
  given data.pack_workers "$@" >/dev/null || DERIVED+=(--data.pack_workers "$CPUS")
}

derive_trial() { # ARGUMENTS...: DERIVED of a sweep, whose trials, of one worker each, share the allocation
  local gpus per_gpu=1
  DERIVED=()
  case " $* " in *" --resume "*) return 0 ;; esac # the sweep has kept what it was begun with
  gpus=$(gpus_of_worker "$@")
  given cluster.gpus_per_worker "$@" >/dev/null || DERIVED+=(--cluster.gpus_per_worker "$gpus")
  [ "$gpus" != 0.5 ] || per_gpu=2
  if [ "$gpus" != 0 ] && [ "$GPUS" != 0 ] && ! given cluster.cpus_per_worker "$@" >/dev/null; then
    DERIVED+=(--cluster.cpus_per_worker "$((CPUS > per_gpu * GPUS ? CPUS / (per_gpu * GPUS) : 1))")
  fi
  given data.pack_workers "$@" >/dev/null || DERIVED+=(--data.pack_workers "$CPUS")
}

announce() { # whose output this is: starts of one job follow one another in it
  say "job      $SLURM_JOB_ID${SLURM_JOB_NAME:+ ($SLURM_JOB_NAME)}, start $((${SLURM_RESTART_COUNT:-0} + 1)), $(date "+%F %T")"
}

show_plan() { # COMMAND...: what is about to be run, and on what
  local memory="the nodes' own memory"
  [ "$MEMORY" = 0 ] || memory="$MEMORY MiB of memory"
  say "nodes    $NODES${SLURM_JOB_NODELIST:+ ($SLURM_JOB_NODELIST)}, each with $CPUS CPUs, $GPUS GPUs, $memory"
  say "code     $CODE"
  say "site     $SITE"
  say "home     $HOME_FOLDER"
  say "folder   $FOLDER on every node"
  say "command  $*"
}

check_options() { # SCRIPT ARGUMENTS...: the driver's own word on its options, before anything is started; its help
  "${PYTHON[@]}" "$CODE/$1" "${@:2}" --help
}

train() { # ARGUMENTS...: cluster/train.py with these arguments on all nodes
  local help
  read_allocation
  announce
  SCRIPT=$(given stage "$@")
  derive "$@"
  help=$(check_options cluster/train.py "$@" "${DERIVED[@]}") || fail "options that the job itself has added: ${DERIVED[*]}" $?
  name_run "$help" "$@"
  on_ray "${PYTHON[@]}" "$CODE/cluster/train.py" "$@" "${DERIVED[@]}"
}

sweep() { # ARGUMENTS...: tune/sweep.py with these arguments, its trials on all nodes
  local help
  SCRIPT=sweep
  [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || fail "a sweep is one job: leave out --array"
  read_allocation
  announce
  derive_trial "$@"
  help=$(check_options tune/sweep.py "$@" "${DERIVED[@]}") || fail "options that the job itself has added: ${DERIVED[*]}" $?
  RUN=sweeps/$(sed -n 's/^Varied in the recipe .*, sweep \(.*\):$/\1/p' <<<"$help")
  on_ray "${PYTHON[@]}" "$CODE/tune/sweep.py" "$@" "${DERIVED[@]}"
}

free_ports() { # the first of 16 free ports: the job's own block, below those the kernel hands out, or a later one
  "${PYTHON[@]}" - "$SLURM_JOB_ID" <<'PYTHON'
import socket, sys

BLOCKS, SIZE = 750, 16
job = int(sys.argv[1])
ephemeral = int(open("/proc/sys/net/ipv4/ip_local_port_range").read().split()[0])
if not 16384 <= ephemeral <= 50000:
    ephemeral = 32768
for block in range(job, job + BLOCKS):
    first = ephemeral - (block % BLOCKS + 1) * SIZE
    sockets = []
    try:
        for port in range(first, first + SIZE):
            sockets.append(socket.socket())
            sockets[-1].bind(("", port))
    except OSError:
        continue
    finally:
        for one in sockets:
            one.close()
    print(first)
    sys.exit()
sys.exit(f"no {SIZE} free ports in a row below {ephemeral} on {socket.gethostname()}")
PYTHON
}

node_address() { # this node's address, of IDC_INTERFACE where that is set
  local address='' name=${SLURMD_NODENAME:-$(hostname)}
  if [ -n "${IDC_INTERFACE:-}" ]; then
    address=$(ip -o -4 address show dev "$IDC_INTERFACE" | awk '{ sub("/.*", "", $4); print $4; exit }')
    [ -n "$address" ] || fail "IDC_INTERFACE $IDC_INTERFACE has no address on $name"
  else
    address=$(getent ahostsv4 "$name" | awk '{ print $1; exit }') || true
    # Many a machine calls itself 127.0.1.1, where the others cannot find it.
    case $address in '' | 127.*) address=$(hostname -I | awk '{ print $1 }') ;; esac
    [ -n "$address" ] || fail "no address for $name: name its network interface in IDC_INTERFACE"
  fi
  printf '%s' "$address"
}

open_folder() { # FOLDER, this job's own on this node, until `finish`
  STEP='' EARLY=''
  [ -n "${SLURM_RESTART_COUNT:-}" ] || rm -f "$RECORD" # of another job that had the number
  trap finish EXIT
  trap 'exit 143' TERM
  trap 'exit 130' INT
  if [ -O "$FOLDER" ]; then rm -rf "$FOLDER"; fi # of the same job, before it was killed and requeued
  mkdir -m 700 "$FOLDER" || fail "cannot make $FOLDER: set IDC_TMP to a short folder that every node has of its own" 1
  mkdir "$FOLDER/tmp"
  # Java puts a file into /tmp whatever TMPDIR says.
  export FOLDER JAVA_TOOL_OPTIONS="${JAVA_TOOL_OPTIONS:+$JAVA_TOOL_OPTIONS }-XX:-UsePerfData"
}

alone() { # COMMAND...: runs it on this node, without Ray
  show_plan "$@"
  [ -z "${IDC_DRYRUN:-}" ] || return 0
  open_folder
  local code=0
  TMPDIR=$FOLDER/tmp "$@" &
  DRIVER=$!
  [ -z "$STOPPING" ] || stop # the signal came between these lines
  wait "$DRIVER" || code=$?
  [ -z "$STOPPING" ] || [ "$code" = 0 ] || judge "$code"
  exit "$code"
}

on_ray() { # COMMAND...: runs it beside a Ray of all nodes, which ends with it; its exit code is the job's
  show_plan "$@"
  [ -z "${IDC_DRYRUN:-}" ] || return 0
  open_folder
  [ -z "$STOPPING" ] || { judge "$STOPPED" && exit "$STOPPED"; }
  (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$FOLDER/token")
  local address ports
  address=$(node_address)
  ports=$(free_ports)
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$FOLDER/token RAY_ADDRESS=$address:$ports
  export IDC_OWN_RAY=$RAY_ADDRESS
  unset RAY_AUTH_TOKEN
  say "ray      head $RAY_ADDRESS, ports $ports to $((ports + 15))"
  # One step, one task a node, all of what the job has there. The pipe to it carries the token, and closing it ends Ray.
  mkfifo "$FOLDER/tether"
  srun --nodes="$NODES" --ntasks="$NODES" --ntasks-per-node=1 --whole --overlap --cpu-bind=none --mpi=none \
    --export=ALL --kill-on-bad-exit=1 --label bash "$CODE/slurm/node.sh" \
    <"$FOLDER/tether" >"$FOLDER/ray.log" 2>&1 &
  STEP=$!
  exec {TETHER}>"$FOLDER/tether"
  (trap '' PIPE && echo "$(<"$FOLDER/token")" >&"$TETHER") || true # where srun has gone already, the next line says so
  beside_ray "${PYTHON[@]}" -m cluster.distributed.nodes "$NODES" --limit "$RAY_LIMIT_S"
  beside_ray "$@"
}

beside_ray() { # COMMAND...: its exit code, or the end of the job where Ray ends first
  local code=1
  TMPDIR=$FOLDER/tmp "$@" {TETHER}>&- &
  DRIVER=$!
  [ -z "$STOPPING" ] || stop # the signal came between these lines
  wait -n "$DRIVER" "$STEP" || true
  if kill -0 "$STEP" 2>/dev/null; then
    wait "$DRIVER" && return
    code=$?
    # Where Ray has failed the driver may be the first to say so: Ray looks after its processes once a second.
    if [ "$code" = "$STOPPED" ] || ! ended_within 3 "$STEP"; then
      judge "$code"
      exit "$code"
    fi
  fi
  EARLY=yes AGAIN="Ray ended before its time"
  say "Ray ended before its time, and so does the job"
  exit "$code"
}

ended_within() { # SECONDS PID: false where the process is still there then
  local until=$((SECONDS + $1))
  while kill -0 "$2" 2>/dev/null; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 0.1
  done
}

finish() { # the end of every job: no process, no folder
  local code=$?
  trap - EXIT
  trap '' TERM INT
  if [ -n "$DRIVER" ] && kill -TERM "$DRIVER" 2>/dev/null; then
    ended_within "$STOP_LIMIT_S" "$DRIVER" || kill -KILL "$DRIVER"
  fi
  if [ -n "$STEP" ]; then
    [ -z "${TETHER:-}" ] || exec {TETHER}>&-
    ended_within $((STOP_LIMIT_S + 4)) "$STEP" || kill -KILL "$STEP"
    if [ -n "$EARLY" ]; then
      say "the last lines of Ray's step:"
      tail -n 60 "$FOLDER/ray.log" >&2
      # Its tasks may have been killed before they could tidy up.
      timeout 20 srun --nodes="$NODES" --ntasks="$NODES" --ntasks-per-node=1 --overlap --mpi=none \
        rm -rf "$FOLDER" </dev/null || say "$FOLDER may be left on other nodes"
    fi
  fi
  if [ -O "$FOLDER" ]; then rm -rf "$FOLDER"; fi
  if [ -n "$AGAIN" ] && [ -n "$RUN" ]; then
    requeue
  else
    rm -f "$RECORD"
    if [ "$code" = 143 ] && [ -n "$RUN" ]; then
      say "ended from outside, $RUN is at $(reached); to go on: sbatch with the same options, $(command_line)"
    fi
  fi
  exit "$code"
}
