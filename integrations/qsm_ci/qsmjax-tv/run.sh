#!/usr/bin/env bash
# Local field [ppm] to susceptibility [ppm]: total variation. --set weight=W arrives as QSMCI_SET_WEIGHT.
set -euo pipefail
IN="${1:-/input}" OUT="${2:-/output}"
qsmjax infer "$IN/localfield.nii.gz" --mask "$IN/mask.nii.gz" --params "$IN/params.json" --method tv \
    --set "weight=${QSMCI_SET_WEIGHT:-auto}" --no-figure --quiet -o "$OUT/chimap.nii.gz"
