#!/usr/bin/env bash
# WHAT     What a MERGE of an EnvoyFilter does with a value that is false or 0 (Istio's `pkg/proto/merge`, by which istiod
#          merges; module of 2026-08-27, needs Go).
# GUESS    A field of a wrapper type (`BoolValue`, `UInt32Value`) is set: the wrapper is there to tell false and 0 from
#          nothing said. A plain `bool` cannot tell them apart, so there `false` does nothing.
# SEEN     Wrappers are merged inside, and there the zero is nothing said: true stays true and 2 stays 2, though any other
#          number replaces it. Where the field was not set before, false is set. A duration is replaced, also by 0s.
# MATTERS  `num_retries: 0`, `generate_request_id: false` or `use_original_dst: false` over what istiod wrote changes nothing
#          and nothing says so, while `stream_idle_timeout: 0s` in the same patch is in force. By merging, the retries of
#          a route can be lowered to one and not to none. MERGE_AND_REPLACE_LIST is the same here.
set -euo pipefail
command -v go >/dev/null || { echo "Go is not installed" >&2; exit 1; }
work=$(mktemp -d) && trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work" && export GOPATH="$work/go" GOFLAGS=-mod=mod
cat > main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"time"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"istio.io/istio/pkg/proto/merge"
)

func main() {
	retries := func(merged func(dst, src proto.Message), patch uint32) any {
		policy := &route.RetryPolicy{NumRetries: wrapperspb.UInt32(2)}
		merged(policy, &route.RetryPolicy{NumRetries: wrapperspb.UInt32(patch)})
		return policy.NumRetries.Value
	}
	manager := &hcm.HttpConnectionManager{
		GenerateRequestId: wrapperspb.Bool(true), StreamIdleTimeout: durationpb.New(time.Minute),
	}
	merge.Merge(manager, &hcm.HttpConnectionManager{
		GenerateRequestId: wrapperspb.Bool(false), AddUserAgent: wrapperspb.Bool(false), StreamIdleTimeout: durationpb.New(0),
	})
	changed := false
	for _, row := range []struct {
		what     string
		seen, as any
	}{
		{"UInt32Value, 1 over 2", retries(merge.Merge, 1), uint32(1)},
		{"UInt32Value, 0 over 2", retries(merge.Merge, 0), uint32(2)},
		{"UInt32Value, 0 over 2, lists replaced", retries(merge.MergeWithReplaceList, 0), uint32(2)},
		{"BoolValue, false over true", manager.GenerateRequestId.GetValue(), true},
		{"BoolValue, false over nothing: is set", manager.AddUserAgent != nil, true},
		{"Duration, 0s over 60s", manager.StreamIdleTimeout.AsDuration(), time.Duration(0)},
	} {
		fmt.Printf("%s: %v\n", row.what, row.seen)
		changed = changed || row.seen != row.as
	}
	if changed {
		fmt.Println("this changed")
		os.Exit(1)
	}
}
GO
go mod init finding >/dev/null 2>&1
go mod edit -require=istio.io/istio@v0.0.0-20260827124520-eed52ebb66ad
echo "istio $(go list -m -f '{{.Version}}' istio.io/istio 2>/dev/null)"
go run . 2>downloads || { cat downloads >&2; exit 1; }
