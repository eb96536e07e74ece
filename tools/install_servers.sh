#!/usr/bin/env bash
# Installs the model servers that slow tests start, into a folder of their own: their pins would disturb .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${AUDITOR_SERVERS:-.venv-servers}"
if [ -x "$venv/bin/mlserver" ] && [ -x "$venv/bin/mlflow" ]; then
  exit 0
fi
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet "mlflow>=3.1" "mlserver>=1.7" scikit-learn skops
printf 'install: model servers are in %s\n' "$venv" >&2
