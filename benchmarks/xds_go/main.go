// The same fleet served by go-control-plane: a snapshot cache behind aggregated discovery over mutual TLS.
//
//	xds_go PORT COUNT DIRECTORY SIZES
//
// SIZES is JSON: bytes of one resource by Envoy's short name of its type. Prints "serving", then for every line on
// standard input a new filter is put into the snapshot of every proxy, and the time is printed.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// filler is a message of about so many bytes.
func filler(size int, mark string) *structpb.Struct {
	return must(structpb.NewStruct(map[string]any{"mark": mark, "fill": strings.Repeat("x", max(1, size-100))}))
}

func metadata(size int) *core.Metadata {
	return &core.Metadata{FilterMetadata: map[string]*structpb.Struct{"fill": filler(size, "")}}
}

func filterOf(size int, mark string) types.Resource {
	packed := must(anypb.New(filler(size, mark)))
	return &core.TypedExtensionConfig{Name: "authz-rules", TypedConfig: packed}
}

func secret(size int) types.Resource {
	text := &core.DataSource{Specifier: &core.DataSource_InlineString{InlineString: strings.Repeat("x", max(1, size))}}
	return &auth.Secret{Name: "own", Type: &auth.Secret_GenericSecret{GenericSecret: &auth.GenericSecret{Secret: text}}}
}

func snapshot(sizes map[string]int, version string, filter types.Resource) *cache.Snapshot {
	return must(cache.NewSnapshot(version, map[resource.Type][]types.Resource{
		resource.ClusterType:         {&cluster.Cluster{Name: "next", Metadata: metadata(sizes["cds"])}},
		resource.EndpointType:        {&endpoint.ClusterLoadAssignment{ClusterName: "next", Endpoints: []*endpoint.LocalityLbEndpoints{{Locality: &core.Locality{Zone: strings.Repeat("x", sizes["eds"])}}}}},
		resource.ListenerType:        {&listener.Listener{Name: "in", Metadata: metadata(sizes["lds"])}},
		resource.RouteType:           {&route.RouteConfiguration{Name: "routes", Metadata: metadata(sizes["rds"])}},
		resource.SecretType:          {secret(sizes["sds"])},
		resource.ExtensionConfigType: {filter},
	}))
}

func main() {
	count, directory := must(strconv.Atoi(os.Args[2])), os.Args[3]
	sizes := map[string]int{}
	if err := json.Unmarshal([]byte(os.Args[4]), &sizes); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	snapshots := cache.NewSnapshotCache(true, cache.IDHash{}, nil)
	put := func(version string) {
		filter := filterOf(sizes["ecds"], version)
		for number := range count {
			if err := snapshots.SetSnapshot(ctx, fmt.Sprintf("w%d", number), snapshot(sizes, version, filter)); err != nil {
				log.Fatal(err)
			}
		}
	}
	put("0")
	pair := must(tls.LoadX509KeyPair(filepath.Join(directory, "ca/server/tls.crt"), filepath.Join(directory, "ca/server/tls.key")))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(filepath.Join(directory, "bundle.pem"))))
	secure := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert})
	serving := grpc.NewServer(grpc.Creds(secure))
	discovery.RegisterAggregatedDiscoveryServiceServer(serving, server.NewServer(ctx, snapshots, nil))
	door := must(net.Listen("tcp", "127.0.0.1:"+os.Args[1]))
	go func() { log.Fatal(serving.Serve(door)) }()
	fmt.Println("serving")
	lines := bufio.NewScanner(os.Stdin)
	for number := 1; lines.Scan(); number++ {
		began := time.Now()
		put(strconv.Itoa(number))
		fmt.Printf("%.6f\n", float64(began.UnixMicro())/1e6)
	}
}
