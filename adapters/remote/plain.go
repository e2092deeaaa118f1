package remote

import (
	"strings"
	"unicode"

	"google.golang.org/grpc/status"
)

// plain returns a text from elsewhere without the characters that could mislead a terminal or a reader of logs.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// plainStatus returns the status of gRPC in an error, with a plain message.
func plainStatus(err error) *status.Status {
	s := status.Convert(err)
	return status.New(s.Code(), plain(s.Message()))
}
