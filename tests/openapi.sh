#!/usr/bin/env bash
# Asks schemathesis whether each running service keeps to its OpenAPI document: no 5xx, no status and no form of answer
# that is not described. The whole system runs here with embedded stores on free ports; a user is signed in and connected
# to MercadoLibre (the simulator), so that the answers are those of people who use it.
#
#   tests/openapi.sh [SERVICE...]       OPENAPI_EXAMPLES=20   cases of each operation in the random phase
#   SERVICES_BIN=FOLDER                 the built programs    OPENAPI_SEED=1
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
root=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
services=(integration-service catalog-service analytics-service gateway user-service)
packages=(user-service integration-service catalog-service analytics-service gateway ml-api-sim)
if [[ -z ${SERVICES_BIN:-} ]]; then
	SERVICES_BIN=$target/debug
	# shellcheck disable=SC2046 # one option and its value a package
	${CARGO:-cargo} build --quiet $(printf -- '-p %s ' "${packages[@]}")
fi

tool=$target/schemathesis
if [[ ! -x $tool/bin/schemathesis ]]; then
	python3 -m venv "$tool"
	"$tool/bin/pip" install --quiet --disable-pip-version-check 'schemathesis>=4,<5'
fi

folder=$(mktemp -d)
pids=()
finish() {
	local status=$?
	((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
	wait
	if ((status != 0)); then
		echo "openapi: failed; warnings and errors of the services:" >&2
		grep -hE '"level":"(ERROR|WARN)"' "$folder"/*.log | tail -20 >&2 || true
	fi
	rm -rf "$folder"
	exit $status
}
trap finish EXIT

# Twelve free ports, taken all at once so that no two are the same.
read -r -a ports < <(python3 - <<-'PY'
	import socket
	held = [socket.create_server(("127.0.0.1", 0)) for _ in range(12)]
	print(*[one.getsockname()[1] for one in held])
PY
)
declare -A port metrics
for at in "${!packages[@]}"; do
	port[${packages[at]}]=${ports[at]}
	metrics[${packages[at]}]=${ports[at + 6]}
done
url() { echo "http://127.0.0.1:${port[$1]}"; }

python3 - "$folder/app.db" <<-'PY'
	import pathlib, sqlite3, sys
	database = sqlite3.connect(sys.argv[1])
	for service in ("user-service", "integration-service", "analytics-service"):
	    for script in sorted(pathlib.Path("services", service, "migrations/sqlite").glob("*.up.sql")):
	        database.executescript(script.read_text())
PY
openssl genpkey -algorithm ed25519 -out "$folder/keys.pem" 2>/dev/null
callback=http://127.0.0.1:8080/api/auth/ml/callback
upstreams=()
for service in user-service integration-service catalog-service analytics-service; do
	upstreams+=("{\"name\":\"$service\",\"upstream\":\"127.0.0.1:${port[$service]}\",\"health_path\":\"/health\"}")
done
printf '{"version":1,"maintenance":null,"routes":[],"services":[%s]}' "$(IFS=,; echo "${upstreams[*]}")" \
	>"$folder/routes.json"

export DATABASE_URL=sqlite:$folder/app.db EMBEDDED_DIR=$folder ROUTES_FILE=$folder/routes.json
export JWT_KEYS_FILE=$folder/keys.pem INTERNAL_TOKEN=internal-token OPERATOR_TOKEN=operator-token
export WEBHOOK_SECRET=webhook-secret-of-tests TOKEN_ENCRYPTION_KEY=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=
export ML_CLIENT_ID=app ML_CLIENT_SECRET=secret ML_REDIRECT_URI=$callback
export SIM_CLIENT_ID=app SIM_CLIENT_SECRET=secret SIM_REDIRECT_URI=$callback
ML_AUTH_URL=$(url ml-api-sim) ML_API_URL=$(url ml-api-sim)
USER_SERVICE_URL=$(url user-service) INTEGRATION_SERVICE_URL=$(url integration-service)
CATALOG_SERVICE_URL=$(url catalog-service)
export ML_AUTH_URL ML_API_URL USER_SERVICE_URL INTEGRATION_SERVICE_URL CATALOG_SERVICE_URL
# Far from the limits of calls to MercadoLibre: a run makes more of them than a user may in an hour.
export GLOBAL_RATE_LIMIT_PER_HOUR=900000 USER_RATE_LIMIT_PER_HOUR=900000 ML_API_RATE_LIMIT_PER_HOUR=900000
export DRAIN_SECONDS=0 LOG_LEVEL=info
for package in "${packages[@]}"; do
	PORT=${port[$package]} METRICS_PORT=${metrics[$package]} "$SERVICES_BIN/$package" >"$folder/$package.log" 2>&1 &
	pids+=($!)
done
for package in "${packages[@]}"; do
	for _ in {1..200}; do
		curl -fs "$(url "$package")/readyz" >/dev/null && continue 2
		sleep 0.1
	done
	echo "openapi: $package does not get ready" >&2
	cat "$folder/$package.log" >&2
	exit 1
done

# Signs a person in and connects them; prints their access token.
person() {
	local token started cookie location
	token=$(curl -fsS -H 'content-type: application/json' "$(url user-service)/auth/register" \
		-d "{\"email\":\"$1@example.com\",\"password\":\"correct horse battery\"}" | jq -r .access_token)
	started=$(curl -fsS -D "$folder/head" -H "authorization: Bearer $token" "$(url user-service)/auth/ml/connect")
	cookie=$(sed -nE 's/^set-cookie: ([^;]*).*/\1/ip' "$folder/head")
	location=$(curl -fsS -o /dev/null -w '%{redirect_url}' "$(jq -r .authorize_url <<<"$started")")
	curl -fsS -o /dev/null -H "cookie: $cookie" "$(url user-service)/auth/ml/callback?${location#*\?}"
	echo "$token"
}

# Runs schemathesis on one service with the token of a person; what it cannot guess stands in `known`.
check() {
	local service=$1 token=$2
	shift 2
	# It leaves files of its own where it runs.
	(cd "$folder" && "$tool/bin/schemathesis" --config-file known.toml run "$root/services/$service/openapi.json" \
		--url "$(url "$service")" --no-color \
		--checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
		--phases examples,coverage,fuzzing,stateful --max-examples "${OPENAPI_EXAMPLES:-20}" --seed "${OPENAPI_SEED:-1}" \
		--generation-database none --request-timeout 20 \
		-H "authorization: Bearer $token" -H 'x-internal-token: internal-token' "$@")
}

touch "$folder/known.toml"
# Both at once: later, so many failures from this address are noted that nobody may register.
token=$(person first) second=$(person second)
(($#)) || set -- "${services[@]}"
for service in "$@"; do
	echo "== $service"
	case $service in
	# Its metrics are for the operator.
	gateway) check gateway operator-token ;;
	user-service)
		# Whoever is gone or disconnected answers nothing more: those come last, each with a person of its own.
		check user-service "$token" --exclude-operation-id delete_users_me
		check user-service "$second" --include-operation-id delete_users_me
		;;
	integration-service)
		# A breaker that is held open and an account that is gone spoil what follows, so these two come last.
		last=(delete_internal_ml_accounts_user_id post_internal_ml_breakers_group)
		item=$(curl -sS --fail-with-body -H "authorization: Bearer $token" "$(url integration-service)/ml/items" | jq -r '.results[0]')
		check integration-service "$token" "${last[@]/#/--exclude-operation-id=}"
		# Once more with what exists: an item of the person's, the secret of the address for notifications.
		printf '[parameters]\n"path.id" = "%s"\n"path.secret" = "%s"\n' "$item" "$WEBHOOK_SECRET" >"$folder/known.toml"
		check integration-service "$token" --include-path-regex '/(notifications|items)/'
		: >"$folder/known.toml"
		check integration-service "$token" "${last[@]/#/--include-operation-id=}"
		;;
	*) check "$service" "$token" ;;
	esac
done
