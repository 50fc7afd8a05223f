#!/usr/bin/env bash
# Local field [ppm] to susceptibility [ppm]: the network that qsmjax ships.
set -euo pipefail
IN="${1:-/input}" OUT="${2:-/output}"
qsmjax infer "$IN/localfield.nii.gz" --mask "$IN/mask.nii.gz" --params "$IN/params.json" --method learned \
    --no-figure --quiet -o "$OUT/chimap.nii.gz"
