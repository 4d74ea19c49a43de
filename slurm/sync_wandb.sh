#!/usr/bin/env bash
# Uploads offline runs of W&B from where there is a network: several at a time, each once, only those that have ended.
#
#   slurm/sync_wandb.sh [FOLDER] [JOBS]     FOLDER: paths.runs (default: $SKYLOOM_RUNS or outputs), JOBS: default 8
#   slurm/sync_wandb.sh --all [FOLDER]      also those that were killed and will not go on
#
# A run that was interrupted has a segment per attempt, of which the newest tells everything again: only that is sent.
# What was sent has a file .synced beside it; sync_wandb.log in FOLDER keeps what W&B said. WANDB_CLI: another command.
set -euo pipefail

all=no
if [ "${1:-}" = --all ]; then all=yes; shift; fi
folder=${1:-${SKYLOOM_RUNS:-outputs}}
jobs=${2:-8}
export log="$folder/sync_wandb.log" cli="${WANDB_CLI:-wandb}"
if [ ! -d "$folder/loggers" ]; then
  echo "error: no folder $folder/loggers; give the folder paths.runs of your runs" >&2
  exit 2
fi

send() {
  if said=$($cli sync "$1" 2>&1); then
    touch "$1/.synced"
    printf '%s sent %s\n%s\n' "$(date -u +%FT%TZ)" "$1" "$said" >> "$log"
    echo "sent $1"
  else
    printf '%s FAILED %s\n%s\n' "$(date -u +%FT%TZ)" "$1" "$said" >> "$log"
    echo "failed $1, see $log" >&2
    return 1
  fi
}
export -f send

waiting=() open=0 sent=0
for run in "$folder"/loggers/*/wandb; do
  newest=$(find "$run" -mindepth 1 -maxdepth 1 -type d -name 'offline-run-*' | sort | tail -n 1)
  if [ -z "$newest" ]; then continue; fi
  if [ -e "$newest/.synced" ]; then
    sent=$((sent + 1))
  elif [ "$all" = yes ] || [ -e "$newest/closed.json" ]; then
    waiting+=("$newest")
  else
    open=$((open + 1))
    echo "still open, left out: $newest" >&2
  fi
done
echo "${#waiting[@]} to send, $sent sent before, $open still open (--all sends them, too)"
if [ "${#waiting[@]}" -eq 0 ]; then exit 0; fi
printf '%s\0' "${waiting[@]}" | xargs -0 -P "$jobs" -I{} bash -c 'send "$1"' _ {} || {
  echo "error: some were not sent; give the same command again" >&2
  exit 1
}
