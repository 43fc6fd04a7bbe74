#!/usr/bin/env bash
# WHAT     With which spelling of their names the members of a JWK count for lestrrat-go/jwx v1.2.31, by which Istio judges
#          inline key sets (needs Go).
# GUESS    One rule for all of them: as written, or in any case, as Go's own JSON reads the fields of a struct.
# SEEN     Both. What kind of key it is (`kty`, and whether there is a `d`) is looked for in any case; the members of that
#          key as written. So `KTY` is taken, `N` and `E` are not, and a public key beside a member `D` is refused, which
#          is read as the beginning of a private one; any other member that is not known does not matter.
# MATTERS  A set that the webhook took because of `KTY` holds no key for Envoy and for libraries that compare names as they
#          are; and a member of the issuer's own called `D` makes a good set a refused one. Whoever checks sets beforehand
#          must ask the two questions in two ways.
set -euo pipefail
command -v go >/dev/null || { echo "Go is not installed" >&2; exit 1; }
work=$(mktemp -d) && trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work" && export GOPATH="$work/go" GOFLAGS=-mod=mod
cat > main.go <<'GO'
package main

import (
	"crypto/rsa"
	"fmt"
	"os"

	"github.com/lestrrat-go/jwx/jwk"
)

const n = "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw"

func exponent(text string) string {
	set, err := jwk.ParseString(`{"keys":[` + text + `]}`)
	if err != nil {
		return "refused"
	}
	key, _ := set.Get(0)
	var raw rsa.PublicKey
	if err := key.Raw(&raw); err != nil {
		return "no RSA key"
	}
	return fmt.Sprint("e=", raw.E)
}

func main() {
	seen := []string{
		exponent(`{"kty":"RSA","n":"` + n + `","e":"AQAB"}`),
		exponent(`{"KTY":"RSA","n":"` + n + `","e":"AQAB"}`),
		exponent(`{"kty":"RSA","N":"` + n + `","E":"AQAB"}`),
		exponent(`{"kty":"RSA","n":"` + n + `","e":"AQAB","D":"AQAB"}`),
		exponent(`{"kty":"RSA","n":"` + n + `","e":"AQAB","x":"AQAB"}`),
	}
	fmt.Println("as written, KTY, N and E, a D beside, an x beside:", seen)
	if fmt.Sprint(seen) != "[e=65537 e=65537 refused refused e=65537]" {
		fmt.Println("this changed")
		os.Exit(1)
	}
}
GO
go mod init finding >/dev/null 2>&1
go get github.com/lestrrat-go/jwx@v1.2.31 >/dev/null 2>&1
echo "jwx $(go list -m -f '{{.Version}}' github.com/lestrrat-go/jwx)"
go run .
