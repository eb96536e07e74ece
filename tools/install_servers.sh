#!/usr/bin/env bash
# Installs the model servers that slow tests start, into a folder of their own: their pins would disturb .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${AUDITOR_SERVERS:-.venv-servers}"
# Each family has a folder of its own, because their pins disturb one another too.
if [ ! -x "$venv/bin/mlserver" ] || [ ! -x "$venv/bin/mlflow" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet "mlflow>=3.1" "mlserver>=1.7" scikit-learn skops
fi
if [ ! -x "$venv-kserve/bin/litserve" ]; then
  "${PYTHON:-python3}" -m venv "$venv-kserve"
  "$venv-kserve/bin/python" -m pip install --quiet "kserve>=0.15" "litserve>=0.2.10" pillow
fi
# TorchServe's front end is a Java program that its package brings along; the Java runtime comes from the system.
if [ ! -x "$venv-torchserve/bin/torchserve" ]; then
  "${PYTHON:-python3}" -m venv "$venv-torchserve"
  "$venv-torchserve/bin/python" -m pip install --quiet \
    "torchserve>=0.12" torch-model-archiver torch numpy pyyaml psutil requests packaging "setuptools<81" pillow
fi
command -v java >/dev/null || printf 'install: TorchServe also needs a Java runtime, such as default-jre-headless\n' >&2
printf 'install: model servers are in %s, %s-kserve and %s-torchserve\n' "$venv" "$venv" "$venv" >&2
