package remote

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// The files that WriteCertificates makes. All are in PEM.
const (
	AuthorityFile   = "authority.pem" // what both sides verify the other one by
	BackEndFile     = "backend.pem"   // the certificate of the back ends
	BackEndKeyFile  = "backend.key"   // its key
	ProgramFile     = "program.pem"   // the certificate of the programs that use them
	ProgramKeyFile  = "program.key"   // its key
	certificateMode = fs.FileMode(0o644)
	keyMode         = fs.FileMode(0o600)
)

// WriteCertificates makes an authority, and the certificates with their keys that back ends and programs need to trust
// each other. It writes them to a directory, which it makes if there is none, and overwrites nothing. hosts are the
// names and addresses of the back ends; localhost and the loopback addresses are always among them. The authority's key
// is kept nowhere, so nobody can make another certificate. To replace them, make all of them anew. They are valid for
// the given time.
func WriteCertificates(dir string, hosts []string, valid time.Duration) error {
	if valid <= 0 {
		return fmt.Errorf("certificates that are valid for %s: use a positive time", valid)
	}
	authority, err := newIssuer(valid)
	if err != nil {
		return err
	}
	files := map[string][]byte{AuthorityFile: encode("CERTIFICATE", authority.certificate.Raw)}
	for _, leaf := range []struct {
		certificate, key string
		use              x509.ExtKeyUsage
		hosts            []string
	}{
		{
			BackEndFile, BackEndKeyFile, x509.ExtKeyUsageServerAuth,
			append([]string{"localhost", "127.0.0.1", "::1"}, hosts...),
		},
		{ProgramFile, ProgramKeyFile, x509.ExtKeyUsageClientAuth, nil},
	} {
		if files[leaf.certificate], files[leaf.key], err = authority.issue(leaf.use, leaf.hosts, valid); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name := range files { // all or none
		if path := filepath.Join(dir, name); exists(path) {
			return &core.RemedyError{
				Err: fmt.Errorf("%s is there already", path), Remedy: "remove it, or choose another directory",
			}
		}
	}
	for name, text := range files {
		mode := certificateMode
		if filepath.Ext(name) == ".key" {
			mode = keyMode
		}
		if err := writeNew(filepath.Join(dir, name), text, mode); err != nil {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// writeNew writes a file that must not exist yet.
func writeNew(path string, text []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return &core.RemedyError{
			Err: fmt.Errorf("%s is there already", path), Remedy: "remove it, or choose another directory",
		}
	}
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}

// LoadTLS returns an Adapter.TLS from files in PEM: the authorities that have signed the certificates of the back ends,
// and this program's certificate and key.
func LoadTLS(authorities, certificate, key string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("the certificate of this program: %w", err)
	}
	text, err := os.ReadFile(authorities)
	if err != nil {
		return nil, fmt.Errorf("the authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("the authorities: %s has no certificate in PEM", authorities)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}

// LoadCertificates is LoadTLS of the files of a program in a directory that WriteCertificates has filled.
func LoadCertificates(dir string) (*tls.Config, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	config, err := LoadTLS(in(AuthorityFile), in(ProgramFile), in(ProgramKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &core.RemedyError{
			Err: err,
			Remedy: fmt.Sprintf("bring %s, %s and %s here; `snakepit certificates DIR --host HOST` makes them",
				AuthorityFile, ProgramFile, ProgramKeyFile),
		}
	}
	return config, err
}

// issuer is an authority that signs certificates.
type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newIssuer(valid time.Duration) (*issuer, error) {
	template, err := newTemplate("Snakepit authority", valid)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	a := &issuer{certificate: template}
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	a.certificate, err = x509.ParseCertificate(der)
	return a, err
}

// issue makes a key and a certificate for it, in PEM.
func (a *issuer) issue(use x509.ExtKeyUsage, hosts []string, valid time.Duration) (certificate, key []byte, err error) {
	template, err := newTemplate("snakepit", valid)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{use}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	inPKCS8, err := x509.MarshalPKCS8PrivateKey(private)
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", inPKCS8), err
}

func newTemplate(name string, valid time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(valid), // the clocks of two machines differ
		BasicConstraintsValid: true,
	}, err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
