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
	"google.golang.org/grpc/resolver"
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
	counts := &counts{cc: cc, leases: map[string]int{}}
	return base.NewBalancerBuilder(policy, counts, base.Config{HealthCheck: true}).Build(cc, opts)
}

// counts counts the leases by the address of the back end.
type counts struct {
	cc     balancer.ClientConn
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

// Pick takes the back end with the fewest leases that has not refused.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	refused, _ := info.Ctx.Value(refusalsKey{}).(*refusals)
	if refused == nil { // it is no lease
		refused = &refusals{}
	}
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	var best *target
	for i := range p.ready {
		t := &p.ready[i]
		if !refused.has(t.address) && (best == nil || p.counts.leases[t.address] < p.counts.leases[best.address]) {
			best = t
		}
	}
	if best == nil {
		p.counts.cc.ResolveNow(resolver.ResolveNowOptions{}) // there may be more by now
		return balancer.PickResult{}, status.Error(codes.ResourceExhausted, "all back ends have refused")
	}
	refused.asks(best.address)
	p.counts.leases[best.address]++
	return balancer.PickResult{SubConn: best.conn, Done: func(balancer.DoneInfo) {
		p.counts.mu.Lock()
		defer p.counts.mu.Unlock()
		if p.counts.leases[best.address]--; p.counts.leases[best.address] == 0 {
			delete(p.counts.leases, best.address)
		}
	}}, nil
}

// refusalsKey is the context's key of a *refusals.
type refusalsKey struct{}

// refusals has the back ends that have refused a start, and why.
type refusals struct {
	mu    sync.Mutex // guards the fields below
	asked string     // the address of the one that is asked now
	why   map[string]*status.Status
}

// asks notes which back end is asked.
func (r *refusals) asks(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = address
}

// add notes why the one that was asked has refused. It returns false if none was asked, because none is left.
func (r *refusals) add(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == "" {
		return false
	}
	if r.why == nil {
		r.why = map[string]*status.Status{}
	}
	r.why[r.asked], r.asked = plainStatus(err), ""
	return true
}

func (r *refusals) has(address string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why[address] != nil
}

// count returns how many have refused.
func (r *refusals) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.why)
}

// full reports whether all have refused for want of room. It is false if none was asked.
func (r *refusals) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, why := range r.why {
		if why.Code() != codes.ResourceExhausted {
			return false
		}
	}
	return len(r.why) > 0
}

// String says why each has refused.
func (r *refusals) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for address, why := range r.why {
		what := "has failed"
		if why.Code() == codes.ResourceExhausted {
			what = "has no room"
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s", address, what, why.Message()))
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
