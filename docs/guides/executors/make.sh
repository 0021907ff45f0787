#!/bin/bash
# make: a Makefile whose rules start before their inputs exist.
# usage: make.sh MOUNTPOINT
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
rm -rf "$1/guide"
mkdir "$1/guide"
make -s -j 4 -f "$here/Makefile" MOUNT="$1"
[[ "$(tail -n 1 "$1/guide/report")" == $'100\t10000' ]]
rm -r "$1/guide"
echo "all as it should be"
