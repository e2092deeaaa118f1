// Package core is the pool: it starts workers, hands out their slots, and runs many calls over one connection to each. It knows calls and
// no protocol; an Adapter carries frames and knows no calls. Users write Open, Execute, ExecuteStream and Session; the author of an
// adapter reads adapter.go and frame.go.
package core
