package core

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// escapeControl escapes the characters that could mislead a terminal or a reader of logs: control characters, invalid
// UTF-8, line separators, and characters that change the direction of writing. Tabs stay; line feeds stay if lineFeeds
// is true.
func escapeControl(s string, lineFeeds bool) string {
	safe := func(r rune) bool {
		switch {
		case r == '\t', r == '\n' && lineFeeds:
			return true
		case unicode.IsControl(r), r == '\u2028', r == '\u2029',
			r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069':
			return false
		}
		return true
	}
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case safe(r):
			b.WriteString(s[i : i+n])
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		i += n
	}
	return b.String()
}

// brief returns what a worker has sent as a short text for an error.
func brief(v any) string { return escapeControl(truncate(fmt.Sprint(v), 200), false) }

// truncate shortens s to at most n bytes, at a character boundary, and appends how many bytes are missing.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return fmt.Sprintf("%s... (%d bytes more)", s[:n], len(s)-n)
}
