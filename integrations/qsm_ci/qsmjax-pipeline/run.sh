#!/usr/bin/env bash
# Phase [rad] and magnitude of the echoes to susceptibility [ppm]: field, background, inversion.
set -euo pipefail
IN="${1:-/input}" OUT="${2:-/output}"
MAGNITUDE=() BACKGROUND=()
[ -f "$IN/magnitude.nii.gz" ] && MAGNITUDE=(--magnitude "$IN/magnitude.nii.gz")
# a method that takes the total field has no background stage
[ -n "${QSMCI_SET_BACKGROUND:-}" ] && BACKGROUND=(--set "background.method=$QSMCI_SET_BACKGROUND")
qsmjax infer "$IN/phase.nii.gz" --input phase "${MAGNITUDE[@]}" --mask "$IN/mask.nii.gz" --params "$IN/params.json" \
    --phase-units rad --method "${QSMCI_SET_METHOD:-learned}" "${BACKGROUND[@]}" \
    --no-figure --quiet -o "$OUT/chimap.nii.gz"
