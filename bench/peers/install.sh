#!/usr/bin/env bash
# Makes SAELens' own environment, beside which the benches measure:
#   bench/peers/install.sh [FOLDER]
# Without FOLDER it goes where the benches look: $BRAINSCAN_SAELENS, else .venv/peers/saelens.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="${1:-${BRAINSCAN_SAELENS:-.venv/peers/saelens}}"
python="${PYTHON:-python3}"
"$python" -m venv "$folder"
PIP_CONSTRAINT= "$folder/bin/python" -m pip --disable-pip-version-check install -q \
    'torch>=2.5,<2.14' 'sae-lens==6.54.*'
"$folder/bin/python" -c 'import sae_lens; print("SAELens", sae_lens.__version__)'
