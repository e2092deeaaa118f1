package remote

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// policy is the name of the load balancing policy of gRPC that gives each lease to the back end with the fewest.
const policy = "snakepit_fewest_leases"

const serviceConfig = `{"loadBalancingConfig": [{"` + policy + `": {}}], "healthCheckConfig": {"serviceName": ""}}`

// gRPC knows policies only by their names in a registry, which may be filled only while programs start.
func init() { balancer.Register(builder{}) }

type builder struct{}

func (builder) Name() string { return policy }

// Build makes the balancer of one connection, which has its own count of leases.
func (builder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	counts := &counts{leases: map[string]int{}}
	return base.NewBalancerBuilder(policy, counts, base.Config{HealthCheck: true}).Build(cc, opts)
}

// counts counts the leases by the address of the back end.
type counts struct {
	mu     sync.Mutex // guards leases
	leases map[string]int
}

// Build makes a picker for the back ends that are ready.
func (c *counts) Build(info base.PickerBuildInfo) balancer.Picker {
	p := &picker{counts: c}
	for conn, about := range info.ReadySCs {
		p.ready = append(p.ready, target{conn, about.Address.Addr})
	}
	if len(p.ready) == 0 {
		return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	}
	slices.SortFunc(p.ready, func(a, b target) int { return strings.Compare(a.address, b.address) })
	return p
}

type target struct {
	conn    balancer.SubConn
	address string
}

type picker struct {
	counts *counts
	ready  []target // sorted by address
}

// Pick takes the back end with the fewest leases that is not known to be full.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	known, _ := info.Ctx.Value(fullKey{}).(*full)
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	var best *target
	for i := range p.ready {
		t := &p.ready[i]
		if !known.has(t.address) && (best == nil || p.counts.leases[t.address] < p.counts.leases[best.address]) {
			best = t
		}
	}
	if best == nil {
		return balancer.PickResult{}, status.Error(codes.ResourceExhausted, known.reason())
	}
	known.asks(best.address)
	p.counts.leases[best.address]++
	return balancer.PickResult{SubConn: best.conn, Done: func(balancer.DoneInfo) {
		p.counts.mu.Lock()
		defer p.counts.mu.Unlock()
		if p.counts.leases[best.address]--; p.counts.leases[best.address] == 0 {
			delete(p.counts.leases, best.address)
		}
	}}, nil
}

// fullKey is the context's key of a *full.
type fullKey struct{}

// full has the back ends that have refused a start for want of room. A nil one has none.
type full struct {
	mu    sync.Mutex // guards the fields below
	asked string     // the address of the one that is asked now
	why   map[string]string
}

// asks notes which back end is asked.
func (f *full) asks(address string) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = address
}

// add notes that the one that was asked is full. It returns false if none was asked, because all are full.
func (f *full) add(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == "" {
		return false
	}
	if f.why == nil {
		f.why = map[string]string{}
	}
	f.why[f.asked], f.asked = status.Convert(err).Message(), ""
	return true
}

func (f *full) has(address string) bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, known := f.why[address]
	return known
}

// reason says why there is no room.
func (f *full) reason() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for address, why := range f.why {
		lines = append(lines, fmt.Sprintf("%s has no room: %s", address, why))
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

// connectParams has gRPC give up an address after the timeout, and try it again after at most 10 s.
func connectParams(timeout time.Duration) grpc.ConnectParams {
	again := backoff.DefaultConfig
	again.MaxDelay = 10 * time.Second
	return grpc.ConnectParams{Backoff: again, MinConnectTimeout: timeout}
}
