# shellcheck shell=bash
# Sourced by deploy/quickstart and tests/run: Debian packages, and a Rust recent enough.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Tools of the administrator are not on every user's path.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# install_packages PACKAGE...: installs what is named, and starts none of the services that come with it.
install_packages() {
  [ "$#" -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "missing: $*. This is not a Debian system; install what they hold and run this again."
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "missing Debian packages: $*. Install them as root and run this again."
    as_root=(sudo)
  fi
  say "Installing Debian packages: $*"
  "${as_root[@]}" apt-get update -q
  # Maintainer scripts start services unless this file says no; one that is there already is the administrator's.
  local policy=/usr/sbin/policy-rc.d ours=
  case " $* " in
    *nginx* | *varnish*)
      if [ ! -e "$policy" ]; then
        # shellcheck disable=SC2064 # expanded now: the locals are gone when an interrupt runs it
        trap "${as_root[*]} rm -f $policy" EXIT
        ours=yes
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 0755 "$policy"
      fi
      ;;
  esac
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" ||
    fail "apt-get could not install: $*"
  if [ -n "$ours" ]; then
    "${as_root[@]}" rm -f "$policy"
    trap - EXIT
  fi
}

# What the build needs beside Rust, as package names, where it is missing.
missing_build_packages() {
  command -v cmake >/dev/null || echo cmake
  { command -v cc && command -v c++ && command -v make; } >/dev/null || echo build-essential
  command -v curl >/dev/null || echo curl
  [ -s /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
}

# require_rust ROOT: a Rust that can build the package in ROOT, or how to get one.
require_rust() {
  local wanted found
  if ! command -v cargo >/dev/null && [ -x "${HOME:-/root}/.cargo/bin/cargo" ]; then
    PATH="${HOME:-/root}/.cargo/bin:$PATH"
  fi
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$1/Cargo.toml")
  local remedy="get it from https://rustup.rs, or run \`rustup update stable\`"
  command -v cargo >/dev/null || fail "Rust $wanted or later is needed and there is no cargo; $remedy"
  # From within the package, so that a toolchain chosen for it counts.
  found=$(cd "$1" && rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n1)" = "$wanted" ] ||
    fail "Rust $wanted or later is needed and this is $found; $remedy"
}
