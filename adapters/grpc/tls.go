package grpc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// NewCertificate makes a new key, and a certificate for localhost and the loopback addresses that the key itself signs.
// The key is in memory only. The certificate may be published. It does not expire: without the key it is of no use.
func NewCertificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "snakepit"},
		NotBefore:   time.Unix(0, 0), // a clock that is set back must not make it invalid
		NotAfter:    time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// keys is what a worker on a TCP port reads from its standard input, as JSON. The fields are in PEM.
type keys struct {
	Key         string `json:"key"`
	Certificate string `json:"certificate"`      // the worker's, followed by its chain
	Client      string `json:"client,omitempty"` // the only certificate of a client; "": clients need none
}

// secure returns the host's side of TLS with one worker, and the worker's side as its standard input.
func (a Adapter) secure() (*tls.Config, []byte, error) {
	worker, err := a.Certificate, error(nil)
	if worker == nil {
		if worker, err = NewCertificate(); err != nil {
			return nil, nil, fmt.Errorf("grpc: making the worker's certificate: %w", err)
		}
	}
	if len(worker.Certificate) == 0 {
		return nil, nil, errors.New("grpc: Certificate is empty: make one with NewCertificate or tls.LoadX509KeyPair")
	}
	private, err := x509.MarshalPKCS8PrivateKey(worker.PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("grpc: the key of Certificate cannot be handed to a worker: %w", err)
	}
	theirs := keys{Key: encodePEM("PRIVATE KEY", private), Certificate: encodePEM("CERTIFICATE", worker.Certificate...)}
	ours := Pinned(worker.Certificate[0], nil)
	if a.ClientToken == "" { // nobody else is to connect, so the worker can demand the host's certificate
		host, err := NewCertificate()
		if err != nil {
			return nil, nil, fmt.Errorf("grpc: making the host's certificate: %w", err)
		}
		ours.Certificates = []tls.Certificate{*host}
		theirs.Client = encodePEM("CERTIFICATE", host.Certificate...)
	}
	input, err := json.Marshal(theirs)
	return ours, input, err
}

// Pinned returns the client's side of TLS 1.3 with a server that has exactly this certificate, in DER. The client shows
// own, or nothing if that is nil.
func Pinned(certificate []byte, own *tls.Certificate) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: "localhost",
		// No authority and no name make a worker trustworthy, only its certificate, which is compared as a whole. The
		// handshake proves that it has the key.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, certificate) {
				return errImpostor
			}
			return nil
		},
	}
	if own != nil {
		c.Certificates = []tls.Certificate{*own}
	}
	return c
}

func encodePEM(kind string, blocks ...[]byte) string {
	var text []byte
	for _, b := range blocks {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})...)
	}
	return string(text)
}

var errImpostor = errors.New("it does not have the worker's certificate")

// handshakeError is the error of a TLS handshake.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string {
	return fmt.Sprintf("TLS with what listens there has failed: %v", e.err)
}
func (e *handshakeError) Unwrap() error { return e.err }

// handshake is TLS that keeps the error of a failed handshake. gRPC makes text of it.
type handshake struct {
	credentials.TransportCredentials
	failed *atomic.Pointer[error]
}

func newHandshake(c *tls.Config) *handshake {
	return &handshake{credentials.NewTLS(c), new(atomic.Pointer[error])}
}

// Clone returns a copy that keeps errors in the same place.
func (h *handshake) Clone() credentials.TransportCredentials {
	return &handshake{h.TransportCredentials.Clone(), h.failed}
}

func (h *handshake) ClientHandshake(ctx context.Context, authority string, c net.Conn) (
	net.Conn, credentials.AuthInfo, error) {
	secured, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, c)
	if err != nil {
		h.failed.CompareAndSwap(nil, &err)
	}
	return secured, info, err
}
