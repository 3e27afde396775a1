#!/usr/bin/env bash
# Makes the virtual environment: scripts/make_venv.sh [FOLDER]   (default .venv)
# Needs Python 3.12 and about 6 GB of disk (PyTorch with CUDA). Versions: constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${1:-.venv}

is_python312() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null
}

PYTHON=${PYTHON:-}
for candidate in ${PYTHON:-python3.12 python3 python}; do
    if is_python312 "$candidate"; then PYTHON=$candidate; break; fi
    [ -z "$PYTHON" ] || { echo "make_venv.sh: PYTHON=$PYTHON is not Python 3.12" >&2; exit 1; }
done
if [ -z "$PYTHON" ]; then
    echo "make_venv.sh: no Python 3.12 found; install it, or name it: make PYTHON=/path/to/python3.12" >&2
    exit 1
fi

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --upgrade pip
echo "installing into $VENV (PyTorch is large: a few minutes on a slow line)"
"$VENV/bin/python" -m pip install --quiet -c constraints.txt -e ".[data,wandb,hf,eval,serve,analysis,dev]"
