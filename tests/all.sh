#!/bin/bash
# Runs every tier of tests in order and says what each took and how it ended.
#
#   tests/all.sh            everything (a real Kafka and five languages' clients included)
#   tests/all.sh --quick    without what needs a real Kafka
#   tests/all.sh --list     the tiers and their caps in minutes
#   tests/all.sh --only T   one tier
#
# A tier ends passed, failed (a cap that is reached is a failure) or skipped: what it needs is not
# here. Skips are loud and counted; with KORDON_REQUIRE_ALL=1 they are failures, unless nobody can
# help it (the advisory database cannot be reached). A failed tier does not stop the next one,
# except where nothing compiles. Everything downloaded lands in ${KORDON_CACHE:-~/.cache/kordon}.
set -u
self=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")
cd "$(dirname "$self")/.." || exit 2
export KORDON_CACHE=${KORDON_CACHE:-$HOME/.cache/kordon}
logs=${CARGO_TARGET_DIR:-target}/tiers
skip=77 # what automake calls a skipped test
deny_version=0.20.2
helm_version=v3.22.0

# All tiers together end within an hour; a tier gets what is left of this, at most its own cap.
minutes_max=58

# name, cap in minutes, whether `--quick` runs it.
tiers='
  setup       6 full
  fmt         1 quick
  tidy        2 quick
  build      16 quick
  clippy      8 quick
  rustdoc     4 quick
  deny       10 quick
  advisories  1 quick
  unit        4 quick
  layouts     4 quick
  policy      1 quick
  authorizer  4 full
  it          4 quick
  embedded    3 quick
  demo        1 quick
  policies    1 quick
  readme      3 quick
  real       16 full
  identity   11 full
  faults      8 full
  surface     7 full
  threats     6 full
  conformance 8 full
  fuzz       12 full
  bench      16 full
  helm        8 full
'

need() { # need TOOL…: skips the tier where one is missing
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || skipped "\`$tool\` is not installed"
  done
}
skipped() { # skipped REASON
  echo "SKIPPED: $1"
  exit "$skip"
}

# The program as the build tier left it.
kordon() { "${CARGO_TARGET_DIR:-target}/debug/kordon" "$@"; }

tier_setup() { tests/lab/setup.sh; }
tier_fmt() {
  cargo fmt --version >/dev/null 2>&1 || skipped 'rustfmt is not installed'
  cargo fmt --check
}
# Without cargo, which would compile the program first: tidy has no dependencies.
tier_tidy() {
  local binary
  binary=$(mktemp) || return 1
  CARGO_MANIFEST_DIR=$PWD rustc --edition 2024 --test -o "$binary" tests/tidy.rs && "$binary" -q
  local code=$?
  rm -f "$binary"
  return $code
}
tier_build() { cargo build --locked --bins && cargo test --locked --no-run; }
tier_clippy() {
  cargo clippy --version >/dev/null 2>&1 || skipped 'clippy is not installed'
  cargo clippy --locked --all-targets -- -D warnings \
    && cargo clippy --locked --all-targets --no-default-features -- -D warnings
}
tier_rustdoc() {
  RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
}
tier_deny() {
  if ! deny --version 2>/dev/null | grep -qF " $deny_version"; then
    # Unoptimised: it runs for a second, and compiles in half the time.
    CARGO_TARGET_DIR=$KORDON_CACHE/tools/target cargo install cargo-deny --locked --debug \
      --version "$deny_version" --root "$KORDON_CACHE/tools" --quiet || return 1
    rm -rf "$KORDON_CACHE/tools/target"
  fi
  deny --all-features --locked check --hide-inclusion-graph licenses bans sources
}
tier_advisories() {
  deny --version >/dev/null 2>&1 || skipped 'cargo-deny could not be installed'
  # Prompts would wait for nobody; a host that does not answer is given up soon.
  export GIT_TERMINAL_PROMPT=0
  timeout 20 git ls-remote --quiet https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1 \
    || skipped 'the RustSec advisory database cannot be reached'
  deny --all-features --locked check advisories
}
deny() { "$KORDON_CACHE/tools/bin/cargo-deny" "$@"; }
tier_unit() { cargo test --locked --lib --bins && cargo test --locked --doc; }
tier_layouts() { cargo test --locked --test layouts; }
tier_policy() { cargo test --locked --test policy_oracle --test policy_compare; }
tier_authorizer() { cargo test --locked --test authorizer -- --seed "${KORDON_SEED:-7}"; }
tier_embedded() { cargo test --locked --test embedded; }
tier_it() { cargo test --locked --test it; }
tier_demo() { kordon demo --once; }
tier_policies() { kordon check --strict policies/ && kordon test policies/; }
tier_readme() { readme; }
tier_helm() {
  local helm=$KORDON_CACHE/tools/bin/helm
  if [ "$("$helm" version --template '{{.Version}}' 2>/dev/null)" != "$helm_version" ]; then
    need go
    GOBIN=$KORDON_CACHE/tools/bin timeout 440 go install -ldflags \
      "-s -w -X helm.sh/helm/v3/internal/version.version=$helm_version" \
      "helm.sh/helm/v3/cmd/helm@$helm_version" || skipped 'helm could not be built'
  fi
  chart
}
tier_real() { cargo test --locked --test real -- matrix old audit leaders term; }
tier_identity() { cargo test --locked --test real -- identity reauth; }
# Five clients under load on a machine that others may use: what fails is said, and tried once more.
tier_faults() {
  cargo test --locked --test real -- faults && return
  echo 'faults failed; once more, to tell a defect from a busy machine'
  cargo test --locked --test real -- faults
}
tier_surface() { cargo test --locked --test surface -- --seed "${KORDON_SEED:-7}"; }
tier_threats() { cargo test --locked --test threats; }
# One seed here, so that a change is judged by what it changes; others by hand.
tier_conformance() { cargo test --locked --test conformance -- --seed "${KORDON_SEED:-7}"; }
# libFuzzer is C++.
tier_fuzz() {
  need c++
  tests/fuzz/run 60
}
tier_bench() { cargo bench --locked --bench end_to_end -- --quick; }

# The README opens with exactly two commands, of which this script is the second; every path of
# the repository it names exists; and every other command it shows is run, in order, in a
# directory that holds the files it shows, against the embedded broker.
readme() {
  local bad=0 commands path
  commands=$(blocks sh README.md | awk '/^# block/ { n++; next } n == 1 && NF')
  echo "$commands"
  if [ "$(wc -l <<<"$commands")" != 2 ]; then
    echo 'README.md: the first block does not hold exactly two commands'
    bad=1
  fi
  sed -n 1p <<<"$commands" | grep -Eq 'cargo run .*demo' \
    || { echo 'README.md: the first command does not run the demo'; bad=1; }
  sed -n 2p <<<"$commands" | grep -Eq '^(\$ )?(\./)?tests/all\.sh( |$)' \
    || { echo 'README.md: the second command is not tests/all.sh'; bad=1; }
  while read -r path; do
    [ -e "$path" ] || { echo "README.md: \`$path\` does not exist"; bad=1; }
  done < <(grep -oE '\]\([^)#]+' README.md | sed 's/^](//' | grep -v '://' | sort -u)
  readme_commands || bad=1
  return $bad
}
# The fenced blocks of a language, each after a line `# block`.
blocks() { # blocks LANGUAGE FILE
  awk -v fence="\`\`\`$1" '
    /^```/ { inside = !inside && $0 == fence; if (inside) print "# block"; open = !open; next }
    inside' "$2"
}
# A line that ends in `# refused` must fail, every other one must not.
readme_commands() {
  need kcat curl
  local dir binary port seconds=100 code libs=$KORDON_CACHE/lab/kafka-4.3.0/libs tool class
  dir=$(mktemp -d) && mkdir "$dir/bin" "$dir/work" || return 1
  binary=$(cargo test --locked --test embedded --no-run 2>&1 \
    | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
  port=$(free_ports) || { echo 'no free range of ports'; return 1; }
  KORDON_EMBEDDED=$((port + 2)):$seconds "$binary" --exact serve >"$dir/broker" 2>&1 &
  local broker=$!
  # Its ports are its own: somebody may be using the ones that people know.
  sed -E -e "s/19092-19191/$((port + 10))-$((port + 59))/" \
    -e "s/19192-19291/$((port + 60))-$((port + 99))/" \
    -e "s/\b9092\b/$port/; s/\b9094\b/$((port + 3))/; s/\b9095\b/$((port + 4))/" \
    -e "s/\b9096\b/$((port + 1))/" README.md >"$dir/README.md"
  blocks yaml "$dir/README.md" | (cd "$dir/work" && mkdir policies && awk '
    /^# block/ { out = ""; next }
    out == "" { if ($0 !~ /^# [a-z\/.]+\.yaml$/) { print "a block that names no file: " $0; exit 1 }
      out = $2 }
    { print >out }') || { kill "$broker"; return 1; }
  ln -s "$(realpath "${CARGO_TARGET_DIR:-target}/debug/kordon")" "$dir/bin/kordon"
  for tool in producer:ConsoleProducer consumer:consumer.ConsoleConsumer; do
    class=${tool#*:}
    printf '#!/bin/bash\nexec java -Xmx256m -XX:TieredStopAtLevel=1 -cp "%s/*" %s "$@"\n' "$libs" \
      "org.apache.kafka.tools.$class" >"$dir/bin/kafka-console-${tool%%:*}.sh"
    chmod +x "$dir/bin/kafka-console-${tool%%:*}.sh"
  done
  local java=yes
  command -v java >/dev/null && [ -d "$libs" ] || {
    java=no
    echo 'SKIPPED: the commands of Kafka itself: no Java, or tests/lab/setup.sh has not run'
  }
  blocks sh "$dir/README.md" | awk -v java="$java" '
    /^# block/ { n++; next }
    n == 1 || !NF { next }
    /\\$/ { sub(/ *\\$/, ""); held = held $0; next }
    held { sub(/^ +/, " "); $0 = held $0; held = "" }
    java == "no" && /kafka-[a-z-]+\.sh/ { next }
    { gsub(/\\/, "\\\\"); shown = $0; gsub(/\047/, "\047\\\047\047", shown)
      print "printf \"+ %s\\n\" \047" shown "\047" }
    / & kordon=/ { print; print "trap \047kill $kordon 2>/dev/null\047 EXIT"; next }
    /# refused$/ {
      print "if { " substr($0, 1, index($0, "# refused") - 1) "; }"
      print "then echo \"not refused\"; exit 1; fi"
      next
    }
    { sub(/ +# .*/, ""); print "{ " $0 "; } || { echo \"failed: $?\"; exit 1; }" }
    ' >"$dir/commands"
  (cd "$dir/work" && PATH=$dir/bin:$PATH KAFKA=127.0.0.1:$((port + 2)) bash "$dir/commands" \
    2>"$dir/stderr")
  code=$?
  [ "$code" = 0 ] || tail -n 20 "$dir/stderr" "$dir/broker"
  kill "$broker" 2>/dev/null
  wait "$broker" 2>/dev/null
  rm -rf "$dir"
  return $code
}
# The chart renders, its kordon.yaml and policies are sound, and what its schema forbids it refuses.
chart() {
  local dir render version code=0 helm=$KORDON_CACHE/tools/bin/helm
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
  dir=$(mktemp -d) || return 1
  "$helm" lint --strict helm/kordon || code=1
  "$helm" lint --strict helm/kordon -f helm/kordon/ci/full.yaml || code=1
  # A helm that `go install` built takes the cluster to be of a long gone version.
  template() { "$helm" template --kube-version 1.30.0 try helm/kordon "$@"; }
  template >"$dir/plain.yaml" || code=1
  template -f helm/kordon/ci/full.yaml >"$dir/full.yaml" || code=1
  template --set audit=nowhere 2>&1 | grep -q 'audit.*must be one of' \
    || { echo 'values.schema.json lets `audit: nowhere` pass'; code=1; }
  # What the process takes over by itself does not restart it.
  checksum() { template -f helm/kordon/ci/full.yaml "$@" | sed -n 's|.*kordon/checksum: ||p'; }
  [ "$(checksum)" = "$(checksum --set policies.events\\.yaml[0].metadata.name=other)" ] \
    && [ "$(checksum)" != "$(checksum --set config.limits.connections=2)" ] \
    || { echo 'the checksum is not that of kordon.yaml'; code=1; }
  grep -qF "image: \"kordon:$version\"" "$dir/full.yaml" \
    || { echo "the chart's image is not version $version"; code=1; }
  # As a part of an app's own chart, as helm/kordon/README.md has it.
  mkdir -p "$dir/app/charts" "$dir/app/templates" && cp -r helm/kordon "$dir/app/charts/" || code=1
  printf '%s\n' 'apiVersion: v2' 'name: app' 'version: 1.0.0' 'dependencies:' \
    '  - {name: kordon, version: 0.1.0, repository: "file://charts/kordon"}' >"$dir/app/Chart.yaml"
  echo 'kordon: {secrets: [{name: upstream, secretName: kafka-ca}]}' >"$dir/app/values.yaml"
  printf '%s\n' 'apiVersion: v1' 'kind: Pod' 'metadata:' '  name: app' '  annotations:' \
    '    kordon/checksum: {{ include "kordon.checksum" . }}' 'spec:' '  initContainers:' \
    '    {{- include "kordon.container" . | nindent 4 }}' '  volumes:' \
    '    {{- include "kordon.volumes" . | nindent 4 }}' >"$dir/app/templates/pod.yaml"
  "$helm" lint --strict "$dir/app" >"$dir/app.log" || { cat "$dir/app.log"; code=1; }
  "$helm" template --kube-version 1.30.0 try "$dir/app" >"$dir/app.yaml" || code=1
  grep -q 'mountPath: /etc/kordon/upstream' "$dir/app.yaml" && grep -q 'secretName: "kafka-ca"' \
    "$dir/app.yaml" || { echo 'the templates do nothing in the chart of an app'; code=1; }
  # The files of the ConfigMaps, where the container sees them.
  for render in plain full; do
    rm -rf "$dir/etc"
    mkdir -p "$dir/etc/config" "$dir/etc/policies" "$dir/etc/shadow" "$dir/etc/schemas"
    awk -v dir="$dir/etc" '
      /^---/ { out = map = "" }
      /^  name: .*-(config|policies|shadow|schemas)$/ { map = $2; sub(/.*-/, "", map) }
      map && /^  [^ ]+: \|$/ { out = dir "/" map "/" substr($1, 1, length($1) - 1); next }
      out && /^    / { print substr($0, 5) >out; next }
      out && NF { out = "" }' "$dir/$render.yaml"
    sed -i "s|/etc/kordon|$dir/etc|; s|/var/lib/kordon|$dir|" "$dir/etc/config/kordon.yaml" || code=1
    echo "$render:" && cat "$dir/etc/config/kordon.yaml"
    kordon check --strict "$dir/etc/config/kordon.yaml" || code=1
  done
  rm -rf "$dir"
  return $code
}
# The first of a hundred ports that nobody listens on, below the range of outgoing connections.
free_ports() {
  local from port try
  for try in 1 2 3 4 5 6 7 8 9 10; do
    from=$((20000 + RANDOM % 120 * 100))
    for ((port = from; port < from + 100; port++)); do
      if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
    done
    echo "$from"
    return
  done
  return 1
}

mode=full only=
case ${1-} in
  '') ;;
  --quick) mode=quick ;;
  --list) echo "$tiers" | sed '/^$/d'; exit ;;
  --only) only=${2-}; grep -q "^  $only " <<<"$tiers" || { echo "no tier \`$only\`"; exit 2; } ;;
  --tier) "tier_$2"; exit ;; # used below, so that `timeout` can end a tier
  *) sed -n '2,8s/^# \{0,1\}//p' "$self"; exit 2 ;;
esac

mkdir -p "$logs"
passed=0 failed=0 skips=0 broken=
report=
while read -r name cap when; do
  [ -n "$name" ] || continue
  [ -z "$only" ] || [ "$name" = "$only" ] || continue
  [ -n "$only" ] || [ "$mode" = full ] || [ "$when" = quick ] || continue
  log=$logs/$name.log
  start=$SECONDS
  left=$((minutes_max * 60 - SECONDS))
  [ "$left" -lt $((cap * 60)) ] || left=$((cap * 60))
  echo "── $name (at most $cap min)"
  case $broken:$name in
    yes:unit | yes:layouts | yes:policy | yes:authorizer | yes:embedded | yes:it | yes:surface | yes:conformance | yes:demo | yes:policies | yes:readme \
      | yes:helm | yes:real | yes:identity | yes:fuzz | yes:bench | yes:clippy | yes:rustdoc)
      echo 'SKIPPED: nothing compiles' >"$log"
      code=$skip
      ;;
    *)
      [ "$left" -gt 0 ] || left=1
      # To a file, not a pipe: a process that a tier left behind cannot keep this one waiting.
      timeout --kill-after=15 "${left}s" "$self" --tier "$name" >"$log" 2>&1 </dev/null
      code=$?
      ;;
  esac
  took=$((SECONDS - start))
  cat "$log"
  parts=$(grep -c SKIPPED "$log")
  note=
  case $code in
    0)
      outcome=passed
      [ "$parts" = 0 ] || note="$parts skipped inside, see above"
      ;;
    "$skip")
      outcome=SKIPPED
      note=$(grep SKIPPED "$log" | tail -1 | sed 's/.*SKIPPED: //')
      if [ "${KORDON_REQUIRE_ALL:-0}" = 1 ] && [ "$name" != advisories ]; then
        outcome=FAILED
        note="required, but skipped: $note"
      fi
      ;;
    124 | 137) outcome=FAILED note="not done after $left s" ;;
    *) outcome=FAILED note="exit code $code" ;;
  esac
  case $outcome in
    passed) passed=$((passed + 1)) ;;
    SKIPPED) skips=$((skips + 1)) ;;
    FAILED) failed=$((failed + 1)) ;;
  esac
  [ "$name:$outcome" != build:FAILED ] || broken=yes
  line=$(printf '%-11s %-8s %4d s of %2d min  %s' "$name" "$outcome" "$took" "$cap" "$note")
  echo "── $line"
  report+="$line"$'\n'
done <<<"$tiers"

printf '\n%s' "$report"
echo "$passed passed, $failed failed, $skips skipped"
[ "$failed" = 0 ]
