// A TLS client of the standard library alone: are our certificates what somebody else's code takes for X.509-SVIDs?
//
//	goclient -roots bundle.pem -id spiffe://… -connect host:port -chain own.crt -key own.key   mutual TLS
//	goclient -roots bundle.pem -id spiffe://… -chain other.crt -usage client                   a chain in a file
//
// It prints "ok" or "refused: why", and ends with 0 or 3.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func verify(certificates []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage, id string) error {
	if len(certificates) == 0 {
		return errors.New("no certificate")
	}
	leaf, intermediates := certificates[0], x509.NewCertPool()
	for _, certificate := range certificates[1:] {
		intermediates.AddCert(certificate)
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{usage}}
	if _, err := leaf.Verify(options); err != nil {
		return err
	}
	if leaf.IsCA || len(leaf.URIs) != 1 {
		return fmt.Errorf("not an SVID: CA %t, %d URIs", leaf.IsCA, len(leaf.URIs))
	}
	if leaf.URIs[0].String() != id {
		return fmt.Errorf("it is %s", leaf.URIs[0])
	}
	return nil
}

func parse(raw [][]byte) ([]*x509.Certificate, error) {
	var found []*x509.Certificate
	for _, der := range raw {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		found = append(found, certificate)
	}
	return found, nil
}

func run() error {
	rootsFile := flag.String("roots", "", "PEM bundle to trust")
	id := flag.String("id", "", "SPIFFE ID that is expected")
	connect := flag.String("connect", "", "host:port of a server; without it the chain itself is judged")
	chain := flag.String("chain", "", "PEM chain: our own, or the one to judge")
	key := flag.String("key", "", "PEM key of our own chain")
	usage := flag.String("usage", "server", "what a judged chain is for: server or client")
	flag.Parse()

	bundle, err := os.ReadFile(*rootsFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	if *connect == "" {
		text, err := os.ReadFile(*chain)
		if err != nil {
			return err
		}
		var raw [][]byte
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			raw = append(raw, block.Bytes)
		}
		certificates, err := parse(raw)
		if err != nil {
			return err
		}
		wanted := x509.ExtKeyUsageServerAuth
		if *usage == "client" {
			wanted = x509.ExtKeyUsageClientAuth
		}
		return verify(certificates, roots, wanted, *id)
	}

	pair, err := tls.LoadX509KeyPair(*chain, *key)
	if err != nil {
		return err
	}
	connection, err := tls.Dial("tcp", *connect, &tls.Config{
		Certificates:       []tls.Certificate{pair},
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // an SVID has no host name: the chain and the SPIFFE ID are verified below instead
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			certificates, err := parse(raw)
			if err != nil {
				return err
			}
			return verify(certificates, roots, x509.ExtKeyUsageServerAuth, *id)
		},
	})
	if err != nil {
		return err
	}
	defer connection.Close()
	answer, err := io.ReadAll(connection) // with TLS 1.3 a server refuses our certificate only now
	if err != nil {
		return err
	}
	if string(answer) != "welcome" {
		return fmt.Errorf("the server said %q", answer)
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Println("refused:", err)
		os.Exit(3)
	}
	fmt.Println("ok")
}
