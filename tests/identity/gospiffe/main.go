// An application as others write it, with go-spiffe and nothing of ours: gets its identity by the SPIFFE Workload API,
// judges tokens and peers by it, fetches a bundle from an endpoint, and serves one.
//
// Each command prints what it found, one fact a line, and exits with 0; what is refused goes to standard error.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func run(ctx context.Context, command string, arguments []string) error {
	switch command {
	case "identity":
		return identity(ctx, arguments[0])
	case "token":
		return token(ctx, arguments[0], arguments[1])
	case "renewed":
		return renewed(ctx, arguments[0])
	case "fetch-web":
		return fetch(ctx, arguments[0], arguments[1], func() (federation.FetchOption, error) {
			pem, err := os.ReadFile(arguments[2])
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(pem)
			return federation.WithWebPKIRoots(pool), err
		})
	case "fetch-spiffe":
		return fetch(ctx, arguments[0], arguments[1], func() (federation.FetchOption, error) {
			id, err := spiffeid.FromString(arguments[2])
			if err != nil {
				return nil, err
			}
			bundle, err := spiffebundle.Load(id.TrustDomain(), arguments[3])
			return federation.WithSPIFFEAuth(bundle, id), err
		})
	case "serve":
		return serve(arguments[0])
	}
	return fmt.Errorf("unknown command %q", command)
}

// identity: who am I, whom do I trust, and does mutual TLS with myself work?
func identity(ctx context.Context, socket string) error {
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(socket)))
	if err != nil {
		return err
	}
	defer source.Close()
	svid, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	fmt.Println("svid", svid.ID)
	bundles, err := workloadapi.FetchX509Bundles(ctx, workloadapi.WithAddr(socket))
	if err != nil {
		return err
	}
	for _, bundle := range bundles.Bundles() {
		fmt.Println("bundle", bundle.TrustDomain(), len(bundle.X509Authorities()))
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(svid.ID)))
	if err != nil {
		return err
	}
	defer listener.Close()
	go func() {
		if connection, err := listener.Accept(); err == nil {
			_, _ = io.WriteString(connection, "hello")
			connection.Close()
		}
	}()
	connection, err := tls.Dial("tcp", listener.Addr().String(), tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(svid.ID)))
	if err != nil {
		return err
	}
	said, err := io.ReadAll(connection)
	fmt.Println("mtls", string(said))
	return err
}

// token: a JWT-SVID for the audience, validated by the Workload API and by its bundles.
func token(ctx context.Context, socket, audience string) error {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(socket))
	if err != nil {
		return err
	}
	defer client.Close()
	svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	validated, err := client.ValidateJWTSVID(ctx, svid.Marshal(), audience)
	if err != nil {
		return err
	}
	fmt.Println("validated", validated.ID)
	bundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	parsed, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, []string{audience})
	if err != nil {
		return err
	}
	fmt.Println("parsed", parsed.ID)
	if _, err := client.ValidateJWTSVID(ctx, svid.Marshal(), "somebody-else"); err != nil {
		fmt.Println("refused", err)
	}
	return nil
}

// renewed: waits for another certificate than the first one.
func renewed(ctx context.Context, socket string) error {
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(socket)))
	if err != nil {
		return err
	}
	defer source.Close()
	first, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	fmt.Println("first", first.ID)
	for {
		if err := source.WaitUntilUpdated(ctx); err != nil {
			return err
		}
		if next, err := source.GetX509SVID(); err != nil || next.Certificates[0].SerialNumber.Cmp(first.Certificates[0].SerialNumber) != 0 {
			fmt.Println("renewed", next.ID)
			return err
		}
	}
}

func fetch(ctx context.Context, domain, url string, option func() (federation.FetchOption, error)) error {
	trustDomain, err := spiffeid.TrustDomainFromString(domain)
	if err != nil {
		return err
	}
	how, err := option()
	if err != nil {
		return err
	}
	bundle, err := federation.FetchBundle(ctx, trustDomain, url, how)
	if err != nil {
		return err
	}
	hint, _ := bundle.RefreshHint()
	_, numbered := bundle.SequenceNumber()
	fmt.Println("bundle", bundle.TrustDomain(), len(bundle.X509Authorities()), len(bundle.JWTAuthorities()), hint, numbered)
	return nil
}

// serve: an https_spiffe bundle endpoint, by the identity that the Workload API gives, until standard input ends.
func serve(socket string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := workloadapi.WithClientOptions(workloadapi.WithAddr(socket))
	svids, err := workloadapi.NewX509Source(ctx, client)
	if err != nil {
		return err
	}
	defer svids.Close()
	bundles, err := workloadapi.NewBundleSource(ctx, client)
	if err != nil {
		return err
	}
	defer bundles.Close()
	svid, err := svids.GetX509SVID()
	if err != nil {
		return err
	}
	handler, err := federation.NewHandler(svid.ID.TrustDomain(), bundles)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().String())
	server := &http.Server{Handler: handler, TLSConfig: tlsconfig.TLSServerConfig(svids)}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return server.Close()
}
