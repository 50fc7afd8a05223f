#!/usr/bin/env bash
# Phase [rad] and magnitude of the echoes to susceptibility [ppm]: field, background, inversion.
set -euo pipefail
IN="${1:-/input}" OUT="${2:-/output}"
MAGNITUDE=()
[ -f "$IN/magnitude.nii.gz" ] && MAGNITUDE=(--magnitude "$IN/magnitude.nii.gz")
qsmjax infer "$IN/phase.nii.gz" --input phase "${MAGNITUDE[@]}" --mask "$IN/mask.nii.gz" --params "$IN/params.json" \
    --phase-units rad --method "${QSMCI_SET_METHOD:-learned}" --set "background.method=${QSMCI_SET_BACKGROUND:-tfi}" \
    --no-figure --quiet -o "$OUT/chimap.nii.gz"
