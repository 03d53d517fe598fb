#!/bin/sh
# Make the secrets that compose.yaml reads, once: deploy/secrets/. What is there already stays.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets models
chmod 0755 models

random() {
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

[ -e secrets/trivox-token ] || random > secrets/trivox-token
[ -e secrets/orthanc-password ] || random > secrets/orthanc-password
if [ ! -e secrets/orthanc-users.json ]; then
  printf '{"trivox": "%s"}\n' "$(cat secrets/orthanc-password)" > secrets/orthanc-users.json
fi
# Docker Compose mounts files as they are: the users in the containers are others than yours
chmod 0644 secrets/*
chmod 0700 secrets
echo "secrets in deploy/secrets; the token of the server: $(pwd)/secrets/trivox-token"
