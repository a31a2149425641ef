#!/bin/sh
# The recipes of the application, in the place of its `just`: they write the reports that its scripts write.
set -eu
# What kubectl takes as the current context: the first file of the list that names one says so.
first=${KUBECONFIG:-/dev/null}
first=${first%%:*}
context=$(sed -n 's/^current-context: //p' "$first")
printf '%s %s %s %s %s current-context=%s\n' "$*" "${APP_ENV:-}" "${S3_ENDPOINT:-}" "${S3_BUCKET:-}" "${EXPIRE_DAYS:-}" "$context" >>called
how=$(cat how 2>/dev/null || echo right)
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
mkdir -p docs/research

# NAME STATUS [MODE]
report() {
    {
        printf '# Report\n\nDate: %s\n' "$now"
        [ -z "${3:-}" ] || printf 'Mode: `%s`\n' "$3"
        printf 'Status: `%s`\n' "$2"
    } >"docs/research/$1-latest.md"
}

table() {
    printf '# Report\n\n| Check | Result |\n|---|---|\n| one | PASS |\n| two | %s |\n' "$2" >"docs/research/$1-latest.md"
}

# The policy and its check, as the scripts leave them of a bucket with these rules. The real one would add what it does not find.
lifecycle() {
    removed=0 needed=true prefix=$CHAT_ATTACHMENT_S3_PREFIX/$APP_ENV/ bucket=$S3_BUCKET
    curl --silent --fail --proxy "${HTTP_PROXY:-}" --aws-sigv4 "aws:amz:$S3_REGION:s3" --user "$S3_ACCESS_KEY:$S3_SECRET_KEY" \
        "$S3_ENDPOINT/$S3_BUCKET?lifecycle=" | grep -q "<Prefix>$prefix</Prefix>" && needed=false
    [ "$how" = removed ] && removed=1
    [ "$how" = another-bucket ] && bucket=gotong-royong-evidence-dev
    {
        printf '# Chat Attachment Lifecycle Policy Report\n\nDate: %s\nMode: `apply`\nStatus: `PASS`\n\n## Target\n\n' "$now"
        printf -- '- Endpoint: `%s`\n- Bucket: `%s`\n- Region: `%s`\n- Prefix: `%s`\n- Expire days: `%s`\n\n' "$S3_ENDPOINT" "$bucket" "$S3_REGION" "$prefix" "$EXPIRE_DAYS"
        printf '| Metric | Value |\n|---|---:|\n| Rules before | 1 |\n| Rules removed | %s |\n| Rule add needed | %s |\n| Rules after | 1 |\n' "$removed" "$needed"
    } >docs/research/chat-attachment-lifecycle-policy-latest.md
    {
        printf '# Chat Attachment Lifecycle Verification Report\n\nDate: %s\nStatus: `%s`\nBucket: `%s`\nEndpoint: `%s`\n' "$now" "$([ "$how" = unverified ] && echo FAIL || echo PASS)" "$S3_BUCKET" "$S3_ENDPOINT"
        printf 'Expected expire days: `%s`\n\n| Prefix | Rule ID | Expire Days | Status | Notes |\n|---|---|---:|---|---|\n| `%s` | `x` | %s | PASS | ok |\n' "$EXPECT_EXPIRE_DAYS" "$prefix" "$EXPIRE_DAYS"
    } >docs/research/chat-attachment-lifecycle-verify-latest.md
}

case $1 in
chat-attachment-alerts-verify) echo "Chat attachment monitoring assets verification: OK" ;;
dev-db-up) : >databases.up ;;
alerts-dry-run) report chat-attachment-alerts-apply "${2:-DRY_RUN}" dry-run ;;
release-gates-surreal)
    [ -e databases.up ] || { echo "SurrealDB is not up" >&2; exit 1; }
    # As the real one: it verifies the rule and does not set it.
    if ! curl --silent --fail --noproxy '*' --aws-sigv4 "aws:amz:$S3_REGION:s3" --user "$S3_ACCESS_KEY:$S3_SECRET_KEY" \
        "$S3_ENDPOINT/$S3_BUCKET?lifecycle=" | grep -q "<Prefix>$CHAT_ATTACHMENT_REQUIRED_PREFIXES</Prefix>"; then
        report chat-attachment-lifecycle-verify FAIL
        echo "no enabled expiration-days rule for $CHAT_ATTACHMENT_REQUIRED_PREFIXES" >&2
        exit 1
    fi
    word=PASS
    [ "$how" = hold ] && word=FAIL
    table release-gates-surreal "$word"
    table chat-attachment-s3-smoke PASS
    report chat-attachment-lifecycle-verify PASS
    ;;
hot-path-rollout)
    # As the real one: when the cluster can not be reached, it ends before it writes anything.
    [ "$how" = stale ] && exit 0
    mode=live word=PASS
    [ "$how" = dry-run ] && mode=dry-run
    [ "$how" = hold ] && word=FAIL
    # As its kubectl would see it, when there is one.
    if command -v kubectl >/dev/null; then
        printf 'kubectl: %s of %s\n' "$(kubectl config current-context)" "$(kubectl config get-contexts --output=name | tr '\n' ' ')" >>called
    fi
    printf 'first: %s\n' "$first" >>called
    # Its own changes of alerts and lifecycle.
    [ "$6$7" = truetrue ]
    about=$2
    [ "$how" = elsewhere ] && about=monitoring-elsewhere
    alerts=apply
    [ "$how" = alerts-dry-run ] && alerts=dry-run
    printf '# Chat Attachment Alerts Apply Report\n\nDate: %s\nNamespace: `%s`\nMode: `%s`\nStatus: `PASS`\n' "$now" "$about" "$alerts" \
        >docs/research/chat-attachment-alerts-apply-latest.md
    lifecycle
    {
        printf '# Hot-Path Rollout Report\n\nDate: %s\nNamespace: `%s`\nPack C Prometheus URL: `%s`\nGo/no-go mode: `%s`\nOverall result: `%s`\n\n' "$now" "$2" "$3" "$mode" "$word"
        printf '| Check | Status | Duration |\n|---|---|---|\n| stage A go/no-go | %s | 3s |\n| Chat attachment alerts apply | PASS | 1s |\n' "$word"
        printf '| Chat attachment lifecycle policy apply | PASS | 1s |\n| Chat attachment lifecycle verify | PASS | 1s |\n'
    } >docs/research/hot-path-rollout-latest.md
    [ "$word" = PASS ]
    ;;
chat-attachment-branch-protection-check)
    [ -n "$GH_TOKEN" ]
    check='CI / surreal-release-gates'
    [ "$how" = another-check ] && check='CI / lint'
    {
        printf '# Surreal Release Gate Branch Protection Check\n\nDate: %s\nRepository: `%s`\nBranch: `%s`\nRequired check: `%s`\n' "$now" "$2" "$3" "$check"
        printf 'Mode: `live`\nStatus: `%s`\n\n- Required check present: `true`\n' "$([ "$how" = branch-fail ] && echo FAIL || echo PASS)"
    } >docs/research/branch-protection-surreal-release-gates-latest.md
    [ "$how" != branch-fail ]
    ;;
*)
    echo "no recipe $1" >&2
    exit 2
    ;;
esac
