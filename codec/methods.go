package codec

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"runtime"
)

func unmarshalText(v reflect.Value, text []byte) error {
	return unmarshal(v, text, textUnmarshalerType, func() error {
		return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText(text)
	})
}

// json stores a value in a type with UnmarshalJSON.
func (d *decoder) json(v reflect.Value, tok Token) error {
	value, err := d.any(tok)
	if err != nil {
		return err
	}
	if err := d.spendAllRows(value); err != nil {
		return err
	}
	text, err := json.Marshal(withPoints(value))
	if err != nil {
		return fmt.Errorf("%s can't go into %s: %w", tok.Kind, v.Type(), err)
	}
	return unmarshal(v, text, jsonUnmarshalerType, func() error {
		return v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(text)
	})
}

// withPoints returns v with its finite floats in the form of floatText, so that JSON keeps them floats.
func withPoints(v any) any {
	switch v := v.(type) {
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return json.Number(floatText(Token{Num: math.Float64bits(v)}))
		}
	case []any:
		for i := range v {
			v[i] = withPoints(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = withPoints(v[k])
		}
	}
	return v
}

// unmarshal calls a method of the target that reads text into v.
func unmarshal(v reflect.Value, text []byte, method reflect.Type, call func() error) error {
	err := caught(method, call)
	if p, ok := err.(*methodError); ok && p.runtime() && fillEmbedded(v, method, maxEmbedded) {
		err = caught(method, call) // the method was promoted from a nil embedded pointer
	}
	if err != nil {
		return fmt.Errorf("%q can't go into %s: %w", cut(string(text)), v.Type(), err)
	}
	return nil
}

// caught calls a method of the target and returns its error, or its panic as a *methodError.
func caught(method reflect.Type, call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &methodError{method.Method(0).Name, p}
		}
	}()
	return call()
}

type methodError struct {
	method string
	value  any
}

func (e *methodError) runtime() bool {
	_, ok := e.value.(runtime.Error)
	return ok
}

func (e *methodError) Error() string { return fmt.Sprintf("%s panicked: %v", e.method, e.value) }

// fillEmbedded allocates the nil embedded pointers of a struct whose types have the methods. It reports whether there
// were any.
func fillEmbedded(v reflect.Value, methods reflect.Type, levels int) bool {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || levels == 0 {
		return false
	}
	filled := false
	for i := range v.NumField() {
		if !v.Type().Field(i).Anonymous {
			continue
		}
		switch f := v.Field(i); {
		case f.Kind() == reflect.Pointer && f.IsNil():
			if !f.CanSet() || !f.Type().Implements(methods) {
				continue
			}
			f.Set(reflect.New(f.Type().Elem()))
			filled = true
		case f.Kind() == reflect.Pointer, f.Kind() == reflect.Struct:
			filled = fillEmbedded(f, methods, levels-1) || filled
		}
	}
	return filled
}
