package main

import (
	"fmt"
	"strings"
	"unicode"
)

// initialisms are words that Go writes in capitals.
var initialisms = map[string]bool{
	"acl": true, "api": true, "ascii": true, "cpu": true, "css": true, "csv": true, "db": true, "dns": true,
	"eof": true, "gpu": true, "grpc": true, "guid": true, "html": true, "http": true, "https": true, "id": true,
	"ip": true, "json": true, "lhs": true, "qps": true, "ram": true, "rhs": true, "rpc": true, "sla": true,
	"smtp": true, "sql": true, "ssh": true, "tcp": true, "tls": true, "ttl": true, "udp": true, "ui": true,
	"uid": true, "uri": true, "url": true, "utf8": true, "uuid": true, "vm": true, "xml": true, "yaml": true,
}

// goName makes an exported Go name of a name of Python: of train_model, model.predict, HTTPError and user-id.
func goName(text string) string {
	name := camelCase(text)
	if name == "" || !unicode.IsUpper([]rune(name)[0]) { // a digit, or a letter of a script without capitals
		name = "X" + name
	}
	return name
}

func camelCase(text string) string {
	var b strings.Builder
	for _, word := range goWords(text) {
		if initialisms[strings.ToLower(word)] {
			b.WriteString(strings.ToUpper(word))
			continue
		}
		if strings.ToUpper(word) == word { // RED
			word = strings.ToLower(word)
		}
		runes := []rune(word)
		b.WriteRune(unicode.ToUpper(runes[0]))
		b.WriteString(string(runes[1:]))
	}
	return b.String()
}

// goWords splits a name at what is no letter or digit, and before a capital that follows a small letter.
func goWords(text string) []string {
	var words []string
	var word []rune
	end := func() {
		if len(word) > 0 {
			words = append(words, string(word))
		}
		word = nil
	}
	for _, r := range text {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			end()
			continue
		}
		if unicode.IsUpper(r) && len(word) > 0 && unicode.IsLower(word[len(word)-1]) {
			end()
		}
		word = append(word, r)
	}
	end()
	return words
}

// scope gives out names. If a name is taken, the next one gets a number.
type scope map[string]bool

func (s scope) take(name string) string {
	unique := name
	for n := 2; s[unique]; n++ {
		unique = fmt.Sprintf("%s%d", name, n)
	}
	s[unique] = true
	return unique
}
