# Shared by the scripts beside it: messages, the repository's root, and running a slow command with its progress shown.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '== %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# help_if_asked "$@": where a script's first argument is --help or -h, the comment at its head, and nothing else is done.
help_if_asked() {
  [[ ${1-} == --help || ${1-} == -h ]] || return 0
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"
  exit 0
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

default_model=smollm2-135m

# choose_model [NAME]: sets model_name and what scripts/models says of it: model_file, model_bytes, model_sha256, and model_packages
# with the model_members of theirs that, one behind the other, are the file; model_document is the licence that scripts/run asks
# about, model_lesson what its answers show.
choose_model() {
  model_name=${1:-$default_model}
  local known=$root/scripts/models
  [[ $model_name != */* && -f $known/$model_name.sh ]] ||
    die "unknown model $model_name; there are: $(basename -s .sh -a "$known"/*.sh | paste -sd' ' | sed 's/ /, /g')"
  source "$known/$model_name.sh"
}

address_of() {  # LINE: the address in a log line that says the server is ready; nothing for any other line
  local line=$1
  [[ $line =~ \ ready\ address=([^ ]+) || $line =~ \"message\":\"ready\",\"address\":\"([^\"]+)\" ]] || return 0
  local address=${BASH_REMATCH[1]}
  address=${address/#0.0.0.0:/127.0.0.1:}
  printf '%s' "${address/#\[::\]:/127.0.0.1:}"
}

# address_when_ready LOG PID: waits for a server that writes this log, and prints its address.
address_when_ready() {
  local address
  for _ in $(seq 600); do
    address=$(address_of "$(grep -s -m 1 ' ready ' "$1" || :)")
    [[ ! $address ]] || { printf '%s' "$address"; return; }
    kill -0 "$2" 2>/dev/null || { cat "$1" >&2; die "the server did not start (its log is above)"; }
    sleep 0.1
  done
  die "the server was not ready within a minute"
}

# endurance PROGRAM [ARG...]: of tests/endurance, with what it needs built and found.
endurance() {
  local build=$root/build/release
  [[ -x $build/bin/pyramidkv-server && -d $build/tests/integration/python/stubs ]] || "$root/scripts/build" release pkv_python_stubs
  PKV_MODEL=$("$root/scripts/fetch_model")
  export PKV_MODEL PKV_BIN=$build/bin PKV_SOURCE_DIR=$root PKV_GOLDEN_DIR=$root/tests/golden PYTHONDONTWRITEBYTECODE=1
  PYTHONPATH=$build/tests/integration/python/stubs:$root/tests/integration/python \
    /usr/bin/python3 "$root/tests/endurance/$1" "${@:2}"  # the one that has python3-grpcio
}
