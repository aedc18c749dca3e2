#!/usr/bin/env bash
# One user's journey through the gateway, by curl: register, log in, connect a MercadoLibre account, bring its items
# in, see the products, see analytics count them.
#
#   tests/journey.sh http://127.0.0.1:8080
set -euo pipefail
base=${1:?expected the base URL of the gateway}
email=journey-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')@example.com
password='correct horse battery staple'

call() { curl --silent --show-error --fail-with-body --max-time 20 "$@"; }
json() { call -H 'content-type: application/json' "$@"; }
step() { printf '%-12s %s\n' "$1" "$2"; }
fail() {
	echo "journey: $*" >&2
	exit 1
}

id=$(json "$base/api/auth/register" -d "{\"email\":\"$email\",\"password\":\"$password\"}" | jq -er .user.id)
step register "user $id"

login=$(json "$base/api/auth/login" -d "{\"email\":\"$email\",\"password\":\"$password\"}")
token=$(jq -er .access_token <<<"$login")
auth="authorization: Bearer $token"
step login "token for $(jq -er .expires_in <<<"$login") s"

# The user's browser goes to MercadoLibre, which sends it back to the callback with a code. The callback has to come from
# who began: a browser shows the cookie of /connect, a script its token.
consent=$(call -H "$auth" "$base/api/auth/ml/connect" | jq -er .authorize_url)
callback=$(curl --silent --show-error --max-time 20 --output /dev/null --write-out '%{redirect_url}' "$consent")
[[ $callback == "$base"/* ]] || fail "MercadoLibre sent the browser to '$callback', not back to $base"
connected=$(call -H "$auth" "$callback")
[[ $(jq -r .connected <<<"$connected") == true ]] || fail "not connected: $connected"
step connect "MercadoLibre user $(jq -er .ml_user_id <<<"$connected")"

synced=$(json -X POST -H "$auth" "$base/api/ml/items/sync" -d '{}' | jq -er .synced)
((synced > 0)) || fail "no item was synced"
step sync "$synced items"

products=$(call -H "$auth" "$base/api/products?limit=100")
count=$(jq -er '.products | length' <<<"$products")
((count == synced)) || fail "$synced items were synced, $count products are there"
step products "$count, such as: $(jq -er '.products[0] | "\(.title) for \(.price) \(.currency_id)"' <<<"$products")"

# Analytics reads the events by itself; it is there a moment later.
for ((try = 0; try < 100; try++)); do
	summary=$(call -H "$auth" "$base/api/analytics/summary")
	counted=$(jq -er .items.synced <<<"$summary")
	((counted == synced)) && break
	sleep 0.1
done
((counted == synced)) || fail "$synced items were synced, analytics counts $counted: $summary"
step analytics "$counted items synced, $(jq -er .events_total <<<"$summary") events"
