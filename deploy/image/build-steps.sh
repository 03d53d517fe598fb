#!/bin/sh
# The steps that make an image. The Dockerfile and the Apptainer definition run nothing but these, and each can be
# run by hand; the tests run them in a fresh folder.
#
#   build-steps.sh system                     a Python with venv, where the base image has none (Debian, Ubuntu)
#   build-steps.sh user                       the user 10001 and the folders that it writes into
#   build-steps.sh wheel SOURCE OUT           the wheel of a checkout, into OUT
#   build-steps.sh torch VENV CONSTRAINTS     a virtual environment with torch alone
#   build-steps.sh trivox VENV CONSTRAINTS WHEELS EXTRAS
#                                             trivox with its extras (with commas between) into that environment,
#                                             and what is installed there as CycloneDX: VENV/sbom.cdx.json
#
# TORCH_INDEX: where torch comes from; unset: PyTorch's index of CPU builds, empty: the index that pip uses otherwise
# (on PyPI, torch for Linux is the CUDA build).
set -eu

here="$(cd "$(dirname "$0")" && pwd)"
uid=10001
folders="/data /out /models /scans"

fail() {
  echo "build-steps: $*" >&2
  exit 1
}

python_is_here() {
  python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null
}

system() {
  python_is_here && return
  command -v apt-get > /dev/null || fail "no Python of at least 3.11 with venv here, and no apt-get to bring it"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends python3 python3-venv
  rm -rf /var/lib/apt/lists/*
  python_is_here || fail "the Python of this base image is older than 3.11; choose a newer one"
}

user() {
  groupadd --gid "$uid" trivox
  useradd --uid "$uid" --gid "$uid" --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin trivox
  for folder in $folders; do
    install -d -m 0755 -o "$uid" -g "$uid" "$folder"
  done
}

wheel() {
  work="$(mktemp -d)"
  python3 -m venv "$work/venv"
  # a copy: a build leaves folders in its source, which may be read-only
  mkdir "$work/source"
  for name in pyproject.toml README.md LICENSE src; do
    cp -R "$1/$name" "$work/source/"
  done
  find "$work/source" -name '__pycache__' -prune -exec rm -rf {} +
  "$work/venv/bin/python" -m pip wheel --quiet --no-deps --no-cache-dir --wheel-dir "$2" "$work/source"
  rm -rf "$work"
}

torch() {
  index="${TORCH_INDEX-https://download.pytorch.org/whl/cpu}"
  python3 -m venv "$1"
  "$1/bin/python" -m pip install --quiet --no-cache-dir --upgrade pip
  if [ -n "$index" ]; then
    # the wheel alone from there; what it needs comes from the usual index
    "$1/bin/python" -m pip install --quiet --no-cache-dir --no-deps -c "$2" --index-url "$index" torch
  fi
  "$1/bin/python" -m pip install --quiet --no-cache-dir -c "$2" torch
}

trivox() {
  set -- "$1" "$2" "$3"/trivox-*.whl "$4"
  [ -f "$3" ] || fail "$3: not there; run the step 'wheel' first"
  "$1/bin/python" -m pip install --quiet --no-cache-dir -c "$2" "$3[$4]"
  "$1/bin/python" -m pip check
  "$1/bin/python" "$here/sbom.py" "$1/sbom.cdx.json"
  "$1/bin/trivox" --version
}

step="${1:-}"
[ "$#" -gt 0 ] && shift
case "$step" in
  system | user) "$step" ;;
  wheel | torch) [ "$#" -eq 2 ] || fail "$step takes two arguments"; "$step" "$@" ;;
  trivox) [ "$#" -eq 4 ] || fail "$step takes four arguments"; "$step" "$@" ;;
  *) fail "no step '$step'; see the beginning of $0" ;;
esac
