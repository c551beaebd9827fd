package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// tokens are had with client credentials, and shared by every client of this process.
var tokens oauth2.TokenSource

// security is how the client proves who it is, as the environment says; its own stock settings.
func security() []kgo.Opt {
	kind := os.Getenv("CLIENT_SECURITY")
	if kind == "" || kind == "plaintext" {
		return nil
	}
	authority, err := os.ReadFile(os.Getenv("CLIENT_CA"))
	if err != nil {
		panic(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(authority)
	if kind == "mtls" {
		shown, err := tls.LoadX509KeyPair(os.Getenv("CLIENT_CERT"), os.Getenv("CLIENT_KEY"))
		if err != nil {
			panic(err)
		}
		config.Certificates = []tls.Certificate{shown}
		return []kgo.Opt{kgo.DialTLSConfig(config)}
	}
	if tokens == nil {
		credentials := clientcredentials.Config{
			ClientID: os.Getenv("CLIENT_ID"), ClientSecret: os.Getenv("CLIENT_SECRET"),
			TokenURL: os.Getenv("CLIENT_TOKEN_URL"), Scopes: []string{os.Getenv("CLIENT_SCOPE")},
		}
		tokens = credentials.TokenSource(context.Background())
	}
	bearer := oauth.Oauth(func(context.Context) (oauth.Auth, error) {
		token, err := tokens.Token()
		if err != nil {
			return oauth.Auth{}, err
		}
		return oauth.Auth{Token: token.AccessToken}, nil
	})
	return []kgo.Opt{kgo.DialTLSConfig(config), kgo.SASL(bearer)}
}
