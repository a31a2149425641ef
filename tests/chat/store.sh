#!/bin/sh
# docker and mc of a machine whose store is started by the first, and gets its bucket from the second.
set -eu
echo "${0##*/} $*" >>called
case "${0##*/} $*" in
"docker compose -f compose.dev.yaml --profile storage up -d minio") : >store.started ;;
"mc mb --ignore-existing store/"*)
    # It takes a moment until it answers.
    [ -e store.started ] || { echo "connection refused" >&2; exit 1; }
    [ -e store.up ] || { : >store.up; echo "server not initialized" >&2; exit 1; }
    keys=${MC_HOST_store#*://}
    code=$(curl --silent --output /dev/null --write-out '%{http_code}' --noproxy '*' --aws-sigv4 aws:amz:us-east-1:s3 \
        --user "${keys%@*}" --request PUT "${MC_HOST_store%%://*}://${keys#*@}/${3#store/}")
    [ "$code" = 200 ] || [ "$code" = 409 ]
    ;;
*)
    echo "${0##*/}: not like that: $*" >&2
    exit 2
    ;;
esac
