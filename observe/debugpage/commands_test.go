package debugpage

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A percentile is at most a quarter above the true one, and never below it.
func TestPercentiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var all []time.Duration
		var h times
		for range 1 + random.IntN(300) {
			d := time.Duration(1+random.Int64N(1<<random.IntN(30))) * time.Microsecond
			all = append(all, d)
			h.add(d, 0, false)
		}
		slices.Sort(all)
		for _, share := range []float64{0, 0.5, 0.95, 1} {
			want := all[int(share*float64(len(all)-1))].Seconds()
			if got := h.percentile(share); got < want*0.999 || got > want*1.251+1e-6 {
				t.Errorf("%v of %d calls: %v, and it is %v", share, len(all), got, want)
			}
		}
	}
	if (&times{}).percentile(0.5) != 0 {
		t.Error("no calls have a median")
	}
}

// Old intervals leave the list, and the total stays.
func TestCommandsForget(t *testing.T) {
	c := commands{byName: map[string]*commandTimes{}}
	now := time.Unix(1_000_000, 0)
	for i := range 90 { // fifteen minutes
		c.add("a", time.Millisecond<<(i/30), time.Microsecond, i%3 == 0, now)
		now = now.Add(intervalTime)
	}
	list, series := c.list(now.Add(-intervalTime))
	if one := list[0]; one.Calls != intervals || one.Failed != 10 || one.Total != 90 || one.Max != 0.004 ||
		one.Before != 0.004 || one.Waited != 1e-6 {
		t.Errorf("%+v", one)
	}
	for _, i := range series {
		if i.Calls != 1 {
			t.Errorf("%+v", i)
		}
	}
	list, _ = c.list(now.Add(time.Hour))
	if one := list[0]; one.Calls != 0 || one.P95 != 0 || one.Total != 90 {
		t.Errorf("%+v", one)
	}
}

func TestCommandsAreBounded(t *testing.T) {
	c := commands{byName: map[string]*commandTimes{}}
	for i := range 1000 {
		c.add(string(rune('a'+i)), 1, 0, false, time.Now())
	}
	if n := len(c.byName); n != mostCommands+1 || c.byName[otherName].total != 1000-mostCommands {
		t.Error(n)
	}
}

func TestFlame(t *testing.T) {
	f := parseFolded([]byte("main (a.py:1);b (a.py:2) 3\nmain (a.py:1);c (a.py:3) 5\n\nnonsense\nother 1\n"))
	main := f.Children[0]
	if f.Samples != 9 || main.Name != "main (a.py:1)" || main.Samples != 8 || len(f.Children) != 2 ||
		main.Children[0].Name != "c (a.py:3)" || main.Children[0].Samples != 5 {
		t.Errorf("%+v", f)
	}
}
