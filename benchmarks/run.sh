#!/usr/bin/env bash
# Run all measurements in benchmarks/.venv (made by setup.sh); arguments go to each script, --quick for instance.
set -euo pipefail
cd "$(dirname "$0")"
for script in start resampling restoring augmentation metrics loss features case; do
  .venv/bin/python "$script.py" "$@"
done
