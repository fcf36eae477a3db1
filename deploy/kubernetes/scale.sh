#!/bin/sh
# Keeps the number of workers in step with the queue. Every SCALE_EVERY seconds it asks the scheduler for its counts and sets the scale of
# SCALE_DEPLOYMENT to one replica for each SCALE_ITEMS items that are queued or running, between SCALE_MIN and SCALE_MAX. It scales up at
# once. It scales down, in one step to SCALE_MIN, after SCALE_IDLE rounds in a row without an item queued or running: a worker that goes
# takes results with it, which are computed again when they are asked for.
set -eu

api=${SCALE_API:-https://kubernetes.default.svc}
account=${SCALE_ACCOUNT:-/var/run/secrets/kubernetes.io/serviceaccount}
deployment=${SCALE_DEPLOYMENT:-quicsand-worker}
min=${SCALE_MIN:-1}
max=${SCALE_MAX:-20}
items=${SCALE_ITEMS:-4}
every=${SCALE_EVERY:-15}
patience=${SCALE_IDLE:-20}
# For tests: how many rounds; 0 for ever.
rounds=${SCALE_ROUNDS:-0}

scale="$api/apis/apps/v1/namespaces/$(cat "$account/namespace")/deployments/$deployment/scale"

# The scale subresource; arguments are curl's.
ask() {
    curl --silent --show-error --fail --max-time 10 --cacert "$account/ca.crt" \
        --header "Authorization: Bearer $(cat "$account/token")" "$@" "$scale"
}

look() {
    status=$(quicsand status --json) || return 1
    work=$(printf '%s' "$status" | jq '.calls.queued + .calls.processing') || return 1
    now=$(ask | jq .spec.replicas) || return 1
    if [ "$work" -gt 0 ]; then
        idle=0
        wanted=$(((work + items - 1) / items))
        # Never down while there is work: who would have to go may be busy.
        [ "$wanted" -ge "$now" ] || wanted=$now
    else
        idle=$((idle + 1))
        wanted=$now
        [ "$idle" -lt "$patience" ] || wanted=$min
    fi
    [ "$wanted" -ge "$min" ] || wanted=$min
    [ "$wanted" -le "$max" ] || wanted=$max
    if [ "$wanted" -ne "$now" ]; then
        echo "items=$work replicas=$now wanted=$wanted"
        ask --request PATCH --header 'Content-Type: application/merge-patch+json' \
            --data "{\"spec\":{\"replicas\":$wanted}}" >/dev/null
    fi
}

idle=0
round=0
while :; do
    look || echo "this round came to nothing; the number of workers stays" >&2
    round=$((round + 1))
    [ "$round" -ne "$rounds" ] || exit 0
    sleep "$every"
done
