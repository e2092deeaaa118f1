package codec

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// floatText formats a float so that it reads as a float: 5 as 5.0.
func floatText(tok Token) string {
	text := strconv.FormatFloat(math.Float64frombits(tok.Num), 'g', -1, 64)
	if strings.Trim(text, "-0123456789") == "" {
		text += ".0"
	}
	return text
}

// misfit is the error for a number of the right kind that the type can't hold.
func misfit(p *plan, tok Token) error {
	switch tok.Kind {
	case Int:
		return fmt.Errorf("%d doesn't fit into %s", int64(tok.Num), p.typ)
	case Uint:
		return fmt.Errorf("%d doesn't fit into %s", tok.Num, p.typ)
	case Big:
		return fmt.Errorf("%s doesn't fit into %s", bigText(tok.Big), p.typ)
	}
	return fmt.Errorf("%v doesn't fit into %s", math.Float64frombits(tok.Num), p.typ)
}

func (d *decoder) float(p *plan, v reflect.Value, tok Token) error {
	switch tok.Kind {
	case Float:
		f := math.Float64frombits(tok.Num)
		if v.OverflowFloat(f) {
			return misfit(p, tok)
		}
		v.SetFloat(f)
	case Int, Uint:
		abs, f := tok.Num, float64(tok.Num)
		if tok.Kind == Int && int64(tok.Num) < 0 {
			abs, f = -tok.Num, float64(int64(tok.Num))
		}
		mantissa := 53
		if v.Kind() == reflect.Float32 {
			mantissa = 24
		}
		if bits.Len64(abs)-bits.TrailingZeros64(abs) > mantissa && abs != 0 {
			return fmt.Errorf("%w exactly", misfit(p, tok))
		}
		v.SetFloat(f)
	case Big:
		f, _ := new(big.Float).SetInt(tok.Big).Float64()
		if math.IsInf(f, 0) || v.OverflowFloat(f) {
			return misfit(p, tok)
		}
		v.SetFloat(f)
		if exact, _ := big.NewFloat(v.Float()).Int(nil); exact.Cmp(tok.Big) != 0 {
			return fmt.Errorf("%w exactly", misfit(p, tok))
		}
	default:
		return mismatch(p, tok)
	}
	return nil
}

func timeOf(tok Token) (time.Time, error) {
	t := time.Unix(int64(tok.Num), int64(tok.N)).UTC()
	if seconds := int64(tok.Num); seconds < -1<<40 || seconds > 1<<40 { // time.Time would wrap around
		return time.Time{}, errors.New("timestamp outside the years 1 to 9999")
	}
	return t, checkTime(t)
}

// setTime stores ISO text in a time.Time. Text without a zone is UTC.
func setTime(v reflect.Value, text []byte) error {
	for _, layout := range [...]string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly} { // all take fractions
		if t, err := time.Parse(layout, string(text)); err == nil {
			*v.Addr().Interface().(*time.Time) = t
			return nil
		}
	}
	return fmt.Errorf("%q can't go into time.Time; a time is ISO text such as 2026-01-02T03:04:05Z", cut(string(text)))
}

// setBig stores an integer in a big.Int. It reports whether the token is one.
func setBig(n *big.Int, tok Token) bool {
	switch tok.Kind {
	case Int:
		n.SetInt64(int64(tok.Num))
	case Uint:
		n.SetUint64(tok.Num)
	case Big:
		n.Set(tok.Big)
	default:
		return false
	}
	return true
}

// bigText formats an integer for an error message. A very large one has too many digits.
func bigText(n *big.Int) string {
	if n.BitLen() > 128 {
		return fmt.Sprintf("an integer of %d bits", n.BitLen())
	}
	return n.String()
}
