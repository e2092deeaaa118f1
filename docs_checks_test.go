//go:build unix

package snakepit_test

import "testing"

var checks = map[string]func(t *testing.T, s *section){}

var symptoms = map[string]func(t *testing.T) string{}
