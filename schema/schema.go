// Package schema tells what a worker's commands take and return, in JSON Schema. The command "snakepit gen" makes typed
// Go code of it. The code checks by this package that a worker still has the commands that it was made for.
package schema

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/snakepit-go/snakepit/core"
)

// Command is the description of one command. docs/protocol.md explains the fields. What a worker does not know is zero.
type Command struct {
	Name    string  `json:"name"`
	Stream  bool    `json:"stream"` // it sends items
	Params  []Param `json:"params,omitempty"`
	Returns string  `json:"returns,omitempty"` // in the syntax of the worker's language, as are the types of parameters
	Doc     string  `json:"doc,omitempty"`
	Schema  *Values `json:"schema,omitempty"`
}

// Param is a parameter of a command.
type Param struct {
	Name     string `json:"name"` // with its stars
	Type     string `json:"type,omitempty"`
	Default  any    `json:"default"` // nil also if the parameter is required
	Required bool   `json:"required"`
}

// Values has the schemas of a command's values.
type Values struct {
	Arguments Schema            `json:"arguments"`
	Items     Schema            `json:"items,omitzero"` // nil if the command does not stream
	Result    Schema            `json:"result"`
	Defs      map[string]Schema `json:"$defs,omitempty"` // the others refer to these, as #/$defs/NAME
}

// Schema is a JSON Schema, draft 2020-12. The empty one accepts any value.
type Schema map[string]any

// describeCommand is the command that describes the others.
const describeCommand = "snakepit.describe"

// Describe asks a worker for the descriptions of its commands, without the protocol's own. The error is
// core.ErrUnknownCommand if the worker has none.
func Describe(ctx context.Context, target core.Target) ([]Command, error) {
	commands, err := core.Execute[[]Command](ctx, target, describeCommand, nil)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(commands, func(c Command) bool { return strings.HasPrefix(c.Name, "snakepit.") }), nil
}

// DriftError says that a worker's commands are not those that code was generated for.
type DriftError struct {
	Changes []string // as Diff has them
}

// maxChanges is how many changes the text of a DriftError has.
const maxChanges = 8

func (e *DriftError) Error() string {
	shown, more := e.Changes, ""
	if len(shown) > maxChanges {
		shown, more = shown[:maxChanges], fmt.Sprintf("; and %d more", len(shown)-maxChanges)
	}
	return "the worker's commands have changed since the code for them was generated: " + strings.Join(shown, "; ") +
		more + "; run go generate"
}

// Check compares a worker's commands with those in canonical, which Canonical has made. The error is a *DriftError if
// they differ. New commands and other names of definitions are no difference. Generated code calls it.
func Check(ctx context.Context, target core.Target, canonical string) error {
	old, err := Parse(canonical)
	if err != nil {
		return err
	}
	found, err := Describe(ctx, target)
	if errors.Is(err, core.ErrUnknownCommand) {
		return fmt.Errorf("the worker does not describe its commands, so the generated code cannot be checked: %w", err)
	}
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(c Command) bool { // the code calls none that are new
		return !slices.ContainsFunc(old, func(known Command) bool { return known.Name == c.Name })
	})
	found = aligned(old, found)
	if Hash(old) != Hash(found) {
		return &DriftError{Changes: Diff(old, found)}
	}
	return nil
}

// Parse returns the commands of a canonical form.
func Parse(canonical string) ([]Command, error) {
	var commands []Command
	in := json.NewDecoder(strings.NewReader(canonical))
	in.UseNumber()
	if err := in.Decode(&commands); err != nil {
		return nil, fmt.Errorf("this is not the canonical form of a worker's commands: %w", err)
	}
	return commands, nil
}
