#!/bin/sh
# Verifies this release with ssh-keygen and sha256sum: sh verify.sh KEY.pub [FOLDER]
# Take this script and KEY.pub from another place than the release itself.
set -eu
export LC_ALL=C
fail() { echo "REFUSED: $1" >&2; exit 3; }
[ $# -ge 1 ] || { echo "usage: sh verify.sh KEY.pub [FOLDER]" >&2; exit 2; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
echo "release $(cat "$1")" > "$work/signers"
cd "${2:-.}"
[ -z "$(find . -mindepth 1 ! -type f)" ] || fail "something here is no regular file"
ssh-keygen -Y verify -f "$work/signers" -I release -n consign-release -s MANIFEST.sig < MANIFEST || fail "the signature does not fit"
[ "$(head -n 1 MANIFEST)" = "consign release manifest v1" ] || fail "this is no release manifest"
sed -n 's/^file \([0-9a-f]*\) [0-9a-f]* [0-9]* \([^ ]*\)$/\1  \2/p' MANIFEST > "$work/sums"
sha256sum --check --strict --quiet "$work/sums" || fail "a file is missing or was changed"
sed 's/^[0-9a-f]*  //' "$work/sums" | sort > "$work/listed"
find . -type f | sed 's,^\./,,' | grep -Ev '^(MANIFEST(\.[0-9a-f]{8})?(\.(sig|minisig|ed25519|asc))?|provenance\.dsse\.json)$' | sort > "$work/found"
cmp -s "$work/listed" "$work/found" || fail "files that are not listed: $(comm -13 "$work/listed" "$work/found" | tr '\n' ' ')"
echo "verified: $(sed -n 's/^name //p' MANIFEST) $(sed -n 's/^version //p' MANIFEST)"
