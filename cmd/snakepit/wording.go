package main

import "strings"

// flagWords are names of Go in errors of the library, each followed by what the command has instead.
var flagWords = []string{
	"Options.CallTimeout; the call option Timeout changes it for one call", "--timeout",
	"Options.StreamTimeout; the call option Timeout changes it for one call", "--timeout",
	"the call option Timeout", "--timeout",
	"use ExecuteStream", "use snakepit stream",
	"raise Options.MaxFrame, or send it in smaller items", "send it in smaller items",
	"raise Options.StartTimeout", "raise --start-timeout",
	"set Options.Dir to", "set TMPDIR to",
	"a shorter Options.Dir", "a shorter TMPDIR",
	"set Program.Cache to", "set XDG_CACHE_HOME to",
	"option Watch is set, and the command does not say what its files are: ", "--watch knows no files of this worker: ",
	"set Command.Sources, or use a Python script that is a file of its own", "use a worker in a .py file",
	"Program.Interpreter", "--python",
}

var inFlags = strings.NewReplacer(flagWords...)
