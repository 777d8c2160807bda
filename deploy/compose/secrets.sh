#!/bin/sh
# Makes the secrets of compose.yaml, once: what is there stays.
set -eu
cd "$(dirname "$0")"
umask 022 # the container's user has to read them; the folder is the owner's alone
mkdir -p -m 700 secrets
random() { od -An -tx1 -N32 /dev/urandom | tr -d ' \n'; }
test -e secrets/postgres_password || random > secrets/postgres_password
test -e secrets/admin_token || echo "fr_admin_$(random)" > secrets/admin_token
test -e secrets/database_url ||
    echo "postgresql://flagd:$(cat secrets/postgres_password)@postgres:5432/flagd" > secrets/database_url
echo "made in $PWD/secrets; the admin token is in admin_token"
