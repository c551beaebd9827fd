#!/bin/bash
# Sets up what the real-Kafka tests use: the brokers' jars, the clients of five languages and an
# OAuth server.
#
# Everything lands under ${KORDON_CACHE:-~/.cache/kordon}/lab, never in the tree. A second run with
# nothing changed takes a fraction of a second. A part that cannot be had is written to
# `parts/NAME` as `skipped: REASON`, otherwise as `ok`; the tests read those lines, print each skip
# and count it. KORDON_REQUIRE_ALL=1 makes any skip a failure (exit 1).
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
clients=$(dirname "$here")/clients
lab=${KORDON_CACHE:-$HOME/.cache/kordon}/lab
versions=${KORDON_KAFKA_VERSIONS:-4.3.0 3.9.1}
mkdir -p "$lab/parts"
exec 9>"$lab/.lock"
flock 9

log=$lab/setup.log
: > "$log"
skips=0

# part NAME STAMP FUNCTION: runs FUNCTION unless NAME was set up from the same STAMP before.
part() {
  local name=$1 stamp=$2 build=$3 reason
  if [ "$(cat "$lab/parts/$name" 2>/dev/null)" = ok ] \
    && [ "$(cat "$lab/parts/$name.stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  local from=$SECONDS
  if reason=$($build 2>>"$log"); then
    echo "$stamp" > "$lab/parts/$name.stamp"
    echo ok > "$lab/parts/$name"
    echo "lab: $name set up in $((SECONDS - from)) s"
  else
    rm -f "$lab/parts/$name.stamp"
    echo "skipped: ${reason:-see $log}" > "$lab/parts/$name"
    echo "lab: $name SKIPPED: ${reason:-see $log}"
    skips=$((skips + 1))
  fi
}

need() { # the reason goes to stdout, which `part` records
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || { echo "\`$tool\` is not installed"; return 1; }
  done
}

sum() { cat "$@" 2>/dev/null | sha256sum | cut -c1-16; }

jars() {
  need java mvn || return 1
  rm -rf "$lab/kafka-$version"
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -Dkafka.version="$version" \
    -DoutputDirectory="$lab/kafka-$version/libs" >&2 || { echo "Maven could not fetch Kafka $version"; return 1; }
}

java_client() {
  need java javac || return 1
  rm -rf "$lab/java"; mkdir -p "$lab/java"
  javac -nowarn -cp "$lab/kafka-4.3.0/libs/*" -d "$lab/java" "$clients"/java/*.java >&2 \
    || { echo "the Java client does not compile"; return 1; }
}

venv() { # NAME: a virtual environment from the client's pinned requirements
  need python3 || return 1
  rm -rf "${lab:?}/$1"
  python3 -m venv "$lab/$1" >&2 || { echo "python3 cannot make a virtual environment"; return 1; }
  "$lab/$1/bin/python" -m pip install -q --disable-pip-version-check \
    -r "$clients/$1/requirements.txt" >&2 || { echo "pip could not install $1"; return 1; }
}
librdkafka() { venv librdkafka; }
aiokafka() { venv aiokafka; }

franz() {
  need go || return 1
  mkdir -p "$lab/franz"
  (cd "$clients/franz" && GOFLAGS=-mod=readonly go build -o "$lab/franz/matrix" .) >&2 \
    || { echo "the franz-go client does not build"; return 1; }
}

kafkajs() {
  need node npm || return 1
  rm -rf "$lab/kafkajs"; mkdir -p "$lab/kafkajs"
  cp "$clients/kafkajs/package.json" "$lab/kafkajs/"
  (cd "$lab/kafkajs" && npm install --no-audit --no-fund --no-package-lock --ignore-scripts) >&2 \
    || { echo "npm could not install kafkajs"; return 1; }
}

issuer() {
  need node npm || return 1
  rm -rf "$lab/issuer"; mkdir -p "$lab/issuer"
  cp "$here/issuer/package.json" "$here/issuer/package-lock.json" "$lab/issuer/"
  (cd "$lab/issuer" && npm ci --no-audit --no-fund --ignore-scripts) >&2 \
    || { echo "npm could not install the OAuth server"; return 1; }
}

for version in $versions; do
  part "kafka-$version" "$(sum "$here/pom.xml")" jars
done
part java "$(sum "$clients"/java/*.java)" java_client
part librdkafka "$(sum "$clients/librdkafka/requirements.txt")" librdkafka
part aiokafka "$(sum "$clients/aiokafka/requirements.txt")" aiokafka
part franz "$(sum "$clients"/franz/*)" franz
part kafkajs "$(sum "$clients/kafkajs/package.json")" kafkajs
part issuer "$(sum "$here/issuer/package.json" "$here/issuer/package-lock.json")" issuer

if [ "$skips" -gt 0 ]; then
  echo "lab: $skips part(s) skipped; details in $log"
  [ "${KORDON_REQUIRE_ALL:-0}" = 1 ] && exit 1
fi
exit 0
