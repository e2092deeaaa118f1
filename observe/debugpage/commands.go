package debugpage

import (
	"cmp"
	"math/bits"
	"slices"
	"time"
)

// Command is how the calls of one command went in the last five minutes. A stream counts as one call, from its begin to
// its end.
type Command struct {
	Name   string  `json:"name"`
	Calls  int64   `json:"calls"`
	Failed int64   `json:"failed"`
	Median float64 `json:"median_seconds"` // with the time in the queue, as all times here; at most a quarter too large
	P95    float64 `json:"p95_seconds"`
	Max    float64 `json:"max_seconds"`
	Waited float64 `json:"waited_seconds"` // in the queue, on average
	Before float64 `json:"before_seconds"` // the 95th percentile of the first half of that time; 0 without calls
	Total  int64   `json:"total"`          // calls since the page began to watch
}

// Interval is ten seconds of the pool's calls.
type Interval struct {
	Begin  time.Time `json:"begin"`
	Calls  int64     `json:"calls"`
	Failed int64     `json:"failed"`
	P95    float64   `json:"p95_seconds"`
}

const (
	intervals    = 30 // that are kept
	intervalTime = 10 * time.Second
	mostCommands = 200 // others are counted together
	otherName    = "(others)"
)

// times are the durations of calls in a histogram with four classes for each power of two, from one microsecond on.
type times struct {
	count  [4 * 40]uint32
	calls  int64
	failed int64
	max    time.Duration
	waited time.Duration
}

// class returns the class of a duration.
func class(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 1))
	power := bits.Len64(us) - 1
	quarter := int(us>>max(power-2, 0)) & 3
	if power < 2 {
		quarter = int(us<<(2-power)) & 3
	}
	return min(4*power+quarter, 4*40-1)
}

// upper returns the upper end of a class.
func upper(class int) time.Duration {
	power, quarter := class/4, class%4
	return time.Duration(float64(uint64(1)<<power)*(1+float64(quarter+1)/4)) * time.Microsecond
}

func (t *times) add(took, waited time.Duration, failed bool) {
	t.count[class(took)]++
	t.calls++
	if failed {
		t.failed++
	}
	t.max = max(t.max, took)
	t.waited += waited
}

func (t *times) merge(other *times) {
	for i, n := range other.count {
		t.count[i] += n
	}
	t.calls += other.calls
	t.failed += other.failed
	t.max = max(t.max, other.max)
	t.waited += other.waited
}

// percentile returns the duration that a share of the calls did not exceed, in seconds.
func (t *times) percentile(share float64) float64 {
	left := int64(share*float64(t.calls-1)) + 1
	for i, n := range t.count {
		if left -= int64(n); n > 0 && left <= 0 {
			return min(upper(i), t.max).Seconds()
		}
	}
	return 0
}

// commandTimes are the times of one command.
type commandTimes struct {
	total int64
	slots [intervals]*times // by the interval's number modulo intervals; nil without calls
	begun [intervals]int64  // the interval's number
}

// at returns the times of an interval.
func (c *commandTimes) at(number int64) *times {
	i := number % intervals
	if c.slots[i] == nil || c.begun[i] != number {
		c.slots[i], c.begun[i] = &times{}, number
	}
	return c.slots[i]
}

// commands are the times of all commands.
type commands struct{ byName map[string]*commandTimes }

func numberOf(now time.Time) int64 { return now.Unix() / int64(intervalTime/time.Second) }

func (c *commands) add(name string, took, waited time.Duration, failed bool, now time.Time) {
	one := c.byName[name]
	if one == nil {
		if len(c.byName) >= mostCommands {
			name = otherName
		}
		if one = c.byName[name]; one == nil {
			one = &commandTimes{}
			c.byName[name] = one
		}
	}
	one.total++
	one.at(numberOf(now)).add(took, waited, failed)
}

// list returns the commands and the series of the last five minutes.
func (c *commands) list(now time.Time) ([]Command, []Interval) {
	last := numberOf(now)
	first := last - intervals + 1
	var all [intervals]times
	list := []Command{}
	for name, one := range c.byName {
		var sum, before times
		for i, t := range one.slots {
			number := one.begun[i]
			if t == nil || number < first {
				one.slots[i] = nil
				continue
			}
			sum.merge(t)
			if number < first+intervals/2 {
				before.merge(t)
			}
			all[number-first].merge(t)
		}
		cmd := Command{Name: name, Total: one.total, Calls: sum.calls, Failed: sum.failed}
		if sum.calls > 0 {
			cmd.Median, cmd.P95, cmd.Max = sum.percentile(0.5), sum.percentile(0.95), sum.max.Seconds()
			cmd.Waited, cmd.Before = sum.waited.Seconds()/float64(sum.calls), before.percentile(0.95)
		}
		list = append(list, cmd)
	}
	slices.SortFunc(list, func(a, b Command) int {
		return cmp.Or(cmp.Compare(b.P95, a.P95), cmp.Compare(a.Name, b.Name))
	})
	series := make([]Interval, intervals)
	for i := range all {
		series[i] = Interval{
			Begin: time.Unix((first+int64(i))*int64(intervalTime/time.Second), 0), Calls: all[i].calls,
			Failed: all[i].failed, P95: all[i].percentile(0.95),
		}
	}
	return list, series
}
