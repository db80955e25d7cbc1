# Shared by the scripts beside it: messages, the repository's root, and running a slow command with its progress shown.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '== %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# quietly LABEL COMMAND...: output goes to a log that is shown only on failure; a line every ten seconds says it still runs, with
# the [done/all] that a build prints.
quietly() {
  local label=$1 log start=$SECONDS pid next=10
  shift
  log=$(mktemp)
  say "$label"
  "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - start >= next)); then
      say "$label: $((SECONDS - start)) s so far $(grep -o '^\[[0-9]*/[0-9]*\]' "$log" | tail -n 1)"
      next=$((next + 10))
    fi
  done
  if ! wait "$pid"; then
    tail -n 40 "$log" >&2
    rm -f "$log"
    die "$label failed (the end of its output is above)"
  fi
  rm -f "$log"
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "installing packages needs root: run this as root or install sudo"
  fi
}
