package grpc

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/snakepit-go/snakepit/core"
)

var loads = []struct{ inFlight, body int }{{1, 32}, {32, 32}, {256, 32}, {1, 1 << 20}, {1, 16 << 20}}

// BenchmarkEcho measures frames that go to a Python worker and come back, without a runner. The loads differ in the
// number of frames in flight and in their size.
func BenchmarkEcho(b *testing.B) {
	for _, load := range loads {
		b.Run(fmt.Sprintf("%d-in-flight/%dB", load.inFlight, load.body), func(b *testing.B) {
			c := start(b, Adapter{}, python(b, "testdata/echo.py")).Conn
			frame := core.Frame{
				Kind: core.KindCall, Flags: core.NoInput, Name: "compute", TTL: 30 * time.Second,
				Body: make([]byte, load.body),
			}
			free, begun := make(chan struct{}, load.inFlight), make(chan time.Time, load.inFlight)
			times := make([]time.Duration, 0, b.N)
			b.SetBytes(int64(load.body))
			b.ResetTimer()
			written := make(chan error, 1)
			go func() {
				var batch []core.Frame
				for sent := 0; sent < b.N; {
					free <- struct{}{}
					begun <- time.Now()
					batch = append(batch[:0], frame)
					for sent++; sent < b.N && len(free) < cap(free); sent++ {
						free <- struct{}{}
						begun <- time.Now()
						batch = append(batch, frame)
					}
					if err := c.Write(batch); err != nil {
						written <- err
						return
					}
				}
				written <- nil
			}()
			for len(times) < b.N {
				frames, err := c.Read()
				if err != nil {
					b.Fatal(err)
				}
				for range frames {
					times = append(times, time.Since(<-begun))
					<-free
				}
			}
			b.StopTimer()
			if err := <-written; err != nil {
				b.Fatal(err)
			}
			report(b, times)
		})
	}
}

// BenchmarkPlain is the baseline: unary RPCs of raw bytes to a bare grpcio server.
func BenchmarkPlain(b *testing.B) {
	for _, load := range loads {
		b.Run(fmt.Sprintf("%d-in-flight/%dB", load.inFlight, load.body), func(b *testing.B) {
			p, err := python(b, "testdata/plain.py").Launch(b.Context(), core.Spec{})
			if err != nil {
				b.Fatal(err)
			}
			cc, err := grpc.NewClient(p.Endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(math.MaxInt32)))
			if err != nil {
				b.Fatal(err)
			}
			defer cc.Close()
			times := make([]time.Duration, b.N)
			next := make(chan int)
			b.SetBytes(int64(load.body))
			b.ResetTimer()
			var callers sync.WaitGroup
			for range load.inFlight {
				callers.Go(func() {
					body := make([]byte, load.body)
					for i := range next {
						begun := time.Now()
						var out []byte
						err := cc.Invoke(b.Context(), "/plain/Echo", &body, &out)
						if err != nil || len(out) != len(body) {
							b.Error(len(out), err)
						}
						times[i] = time.Since(begun)
					}
				})
			}
			for i := range b.N {
				next <- i
			}
			close(next)
			callers.Wait()
			b.StopTimer()
			report(b, times)
		})
	}
}

func report(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "echoes/s")
}

// raw is a codec for bytes.
type raw struct{}

func (raw) Name() string { return "proto" }
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
