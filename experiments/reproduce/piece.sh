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
# PYTHON names the interpreter, and MODULE another module than "experiments reproduce", such as
# benchmarks.accelerator. Where WHEELS is set, packages that are missing are installed
# from that folder, without a network.
# Exits as `reproduce` does: 0 if all is done, 75 if the minutes are over.
set -eu

if [ $# -lt 3 ]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
minutes=$1 state=$2 out=$3
shift 3
python=${PYTHON:-python}
work=$(mktemp -d)
runs=$work/runs
mkdir -p "$runs" "$out"

if [ -n "${WHEELS:-}" ]; then
  "$python" -m pip install --quiet --no-index --find-links "$WHEELS" \
    tyro safetensors tensorflow-datasets array-record grain importlib-resources mlxtend
fi
if ls "$state"/runs.tar.gz.* > /dev/null 2>&1; then
  cat "$state"/runs.tar.gz.* | tar -xz -C "$runs"
fi

status=0
# shellcheck disable=SC2086 # a module and its command
"$python" -m ${MODULE:-experiments reproduce} --minutes "$minutes" --runs-dir "$runs" \
  --results-dir "$runs/results" "$@" || status=$?

# What there was is replaced once the whole archive is there; on an error it stays in $work.
tar -cz -f "$work/archive" -C "$runs" .
mkdir "$work/parts"
split -b 15000000 "$work/archive" "$work/parts/runs.tar.gz."
rm -rf "$out/new" # of a piece that was killed here
mkdir "$out/new"
mv "$work"/parts/* "$out/new"
rm -f "$out"/runs.tar.gz.*
mv "$out"/new/* "$out"
rm -r "$out/new" "$work"
exit "$status"
