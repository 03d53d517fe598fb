#!/bin/sh
# What the image 'serve' runs: trivox serve with the models below /models, jobs in /data and the token of a file.
#
# TRIVOX_MODELS       paths or names of models with blanks between; unset: every folder in /models
# TRIVOX_TOKEN_FILE   file of the tokens; unset: /run/secrets/trivox-token
# TRIVOX_JOB_MEMORY_GB  what one job may take; unset: a share of the machine's memory, which no limit of a container lowers
# TRIVOX_HOST, TRIVOX_PORT, TRIVOX_WORKERS, TRIVOX_DEVICE
# TRIVOX_ALLOW_HOSTS  names under which the server is called, with blanks between
# TRIVOX_SCANS        folder whose files jobs may name
#
# Arguments are passed on to trivox serve.
set -eu

token="${TRIVOX_TOKEN_FILE:-/run/secrets/trivox-token}"
if [ ! -r "$token" ]; then
  echo "error: $token: no token there that can be read; mount one, or name it with TRIVOX_TOKEN_FILE" >&2
  exit 2
fi

for name in ${TRIVOX_ALLOW_HOSTS:-}; do
  set -- --allow-host "$name" "$@"
done
if [ -n "${TRIVOX_SCANS:-}" ]; then
  set -- --data "$TRIVOX_SCANS" "$@"
fi
if [ -n "${TRIVOX_JOB_MEMORY_GB:-}" ]; then
  set -- --job-memory-gb "$TRIVOX_JOB_MEMORY_GB" "$@"
fi
models=0
if [ -n "${TRIVOX_MODELS:-}" ]; then
  for model in $TRIVOX_MODELS; do
    set -- "$model" "$@"
    models=$((models + 1))
  done
else
  for model in "${TRIVOX_MODEL_FOLDER:-/models}"/*/; do
    [ -d "$model" ] || continue
    set -- "${model%/}" "$@"
    models=$((models + 1))
  done
fi
if [ "$models" -eq 0 ]; then
  echo "error: no model; mount a folder of models at /models, or name some with TRIVOX_MODELS" >&2
  exit 2
fi

exec trivox serve "$@" --host "${TRIVOX_HOST:-0.0.0.0}" --port "${TRIVOX_PORT:-8470}" --token-file "$token" \
  --state "${TRIVOX_STATE:-/data}" --workers "${TRIVOX_WORKERS:-1}" --device "${TRIVOX_DEVICE:-auto}"
