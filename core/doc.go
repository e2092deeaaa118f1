// Package core is the pool: it starts workers, gives each call a slot, and runs many calls over one connection to each
// worker. Core knows calls but no protocol; an Adapter carries frames but knows no calls. Users call Open, Execute,
// ExecuteStream and Session. The author of an adapter reads adapter.go and frame.go.
package core
