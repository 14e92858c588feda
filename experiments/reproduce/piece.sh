#!/bin/sh
# Runs a part of a reproduction on a machine that is lent for some minutes.
#
#   experiments/reproduce/piece.sh MINUTES STATE OUT [options of reproduce]
#
# STATE has what earlier pieces left in OUT, or is empty. OUT gets the runs folder, with the
# checkpoints of what is unfinished, as files runs.tar.gz.* of at most 15 MB. Copy them to
# STATE and run the next piece with the same options, on the same machine or another of its
# kind; a kind of device should do a whole comparison. Once all is done, OUT's runs folder
# serves `record`, which makes records and weights of it.
#
# PYTHON names the interpreter. Where WHEELS is set, packages that are missing are installed
# from that folder, without a network.
set -eu

if [ $# -lt 3 ]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
minutes=$1 state=$2 out=$3
shift 3
python=${PYTHON:-python}
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

if [ -n "${WHEELS:-}" ]; then
  "$python" -m pip install --quiet --no-index --find-links "$WHEELS" \
    tyro safetensors tensorflow-datasets array-record grain importlib-resources mlxtend
fi
if ls "$state"/runs.tar.gz.* > /dev/null 2>&1; then
  cat "$state"/runs.tar.gz.* | tar -xz -C "$runs"
fi

status=0
"$python" -m experiments reproduce --minutes "$minutes" --runs-dir "$runs" \
  --results-dir "$runs/results" "$@" || status=$?

mkdir -p "$out"
rm -f "$out"/runs.tar.gz.*
tar -cz -C "$runs" . | split -b 15000000 - "$out/runs.tar.gz."
exit "$status"
