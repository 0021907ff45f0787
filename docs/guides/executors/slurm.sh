#!/bin/bash
# A pair of batch jobs without a dependency between them. They must run on the machine that has the mount.
# usage: slurm.sh MOUNTPOINT
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export WORK="$1/guide"
rm -rf "$WORK"
mkdir "$WORK"

submit() { # where there is no Slurm a job is a process in the background
	if command -v sbatch >/dev/null; then
		sbatch --nodelist="$(hostname -s)" --export=ALL "$1"
	else
		bash "$1" &
	fi
}

: >"$1/.promisefs/future/guide/numbers"
: >"$1/.promisefs/future/guide/sum"
setfattr -n user.promisefs.deadline -v 10m "$WORK/numbers" "$WORK/sum" # if a job never starts
submit "$here/consume.sbatch"
submit "$here/produce.sbatch"

[[ "$(cat "$WORK/sum")" == 500500 ]] # waits for both
wait
rm -r "$WORK"
echo "all as it should be"
