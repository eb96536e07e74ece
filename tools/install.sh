#!/usr/bin/env bash
# Installs the auditor and what its tests need into .venv. Safe to run again: finished steps are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${VENV:-.venv}"
python="$venv/bin/python"
torch_pin="$(grep '^torch==' constraints.txt)"

say() { printf 'install: %s\n' "$*" >&2; }

find_python() {
  for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null 2>&1 && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      printf '%s' "$name"
      return
    fi
  done
  say "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"
  exit 1
}

# --- system packages: only what is missing, only where we may -----------------------------------------------------
missing_debian() {
  command -v pdfinfo >/dev/null || printf 'poppler-utils '
  command -v openssl >/dev/null || printf 'openssl '
  command -v age >/dev/null || printf 'age '
  ldconfig -p | grep -q 'libpango-1.0.so.0' || printf 'libpango-1.0-0 '
  ldconfig -p | grep -q 'libpangoft2-1.0.so.0' || printf 'libpangoft2-1.0-0 '
  ldconfig -p | grep -q 'libharfbuzz-subset.so.0' || printf 'libharfbuzz-subset0 '
  [ -n "${AUDITOR_DATA:-}" ] || [ -d /usr/share/datasets/fashion-mnist ] || printf 'dataset-fashion-mnist '
}

install_debian() {
  local wanted
  wanted="$(missing_debian)"
  [ -n "$wanted" ] || return 0
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      say "these system packages are missing and I may not install them: sudo apt-get install $wanted"
      say "without libpango the PDF report is not made; without poppler-utils, openssl and age some tests are skipped"
      return 0
    fi
  fi
  say "installing system packages: $wanted"
  # shellcheck disable=SC2086  # a list of package names
  if ! { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq --no-install-recommends $wanted; } >&2; then
    say "could not install: $wanted (the rest still works)"
  fi
}

install_macos() {
  local wanted=""
  command -v pdfinfo >/dev/null || wanted="$wanted poppler"
  [ -e /opt/homebrew/lib/libpango-1.0.dylib ] || [ -e /usr/local/lib/libpango-1.0.dylib ] || wanted="$wanted pango"
  [ -n "$wanted" ] || return 0
  if command -v brew >/dev/null; then
    # shellcheck disable=SC2086
    brew install -q $wanted >&2 || say "could not install:$wanted (the rest still works)"
  else
    say "please install:$wanted (the PDF report needs pango, some tests need poppler)"
  fi
}

# --- torch: the CPU build where there is no GPU --------------------------------------------------------------------
pip_would_take_cuda() {
  "$python" -m pip install --quiet --dry-run --no-deps --ignore-installed --report - "$torch_pin" 2>/dev/null |
    "$python" -c '
import json, sys
wanted = json.load(sys.stdin)["install"][0]["metadata"].get("requires_dist", [])
sys.exit(not any(name.startswith(("nvidia", "cuda")) for name in wanted))'
}

install_torch() {
  if "$python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '${torch_pin#torch==}')" 2>/dev/null; then
    return 0
  fi
  if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && pip_would_take_cuda; then
    say "no GPU here: asking uv for the CPU build of torch"
    # uv knows where PyTorch publishes its CPU builds; pip would take a CUDA build of several gigabytes.
    if "$python" -m pip install --quiet -c constraints.txt uv &&
      "$venv/bin/uv" pip install --quiet --python "$python" --torch-backend cpu "$torch_pin"; then
      return 0
    fi
    say "the CPU build could not be had; taking the default build"
  fi
  "$python" -m pip install --quiet "$torch_pin"
}

stamp="$venv/.installed-$(cat pyproject.toml constraints.txt tools/install.sh | cksum | cut -d' ' -f1)"
case "$(uname -s)" in
  Linux) if command -v apt-get >/dev/null; then install_debian; else
    say "please install pango, poppler and openssl with your package manager if they are missing"; fi ;;
  Darwin) install_macos ;;
esac
[ -e "$stamp" ] && exit 0
[ -x "$python" ] || "$(find_python)" -m venv "$venv"
say "installing Python packages into $venv (a few minutes the first time)"
install_torch
"$python" -m pip install --quiet -c constraints.txt -e '.[all,test]'
rm -f "$venv"/.installed-*
touch "$stamp"
say "done"
