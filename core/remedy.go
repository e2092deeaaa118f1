package core

import "errors"

// UnavailableError says why a protocol is unavailable and how to get it. errors.Is reports that it is ErrUnavailable. A
// Launcher makes one of a worker's report, and an adapter may make its own.
type UnavailableError struct {
	Reason string // such as "grpcio cannot be imported"
	Remedy string // what to do, such as "pip install grpcio"; "" if nothing is known to help
}

func (e *UnavailableError) Error() string {
	text := ErrUnavailable.Error() + ": " + e.Reason
	if e.Remedy != "" {
		text += "; to get it: " + e.Remedy
	}
	return text
}

// Is reports whether target is ErrUnavailable.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// RemedyError is an error together with what to do about it.
type RemedyError struct {
	Err    error
	Remedy string // an imperative sentence, lower case, without a full stop
}

func (e *RemedyError) Error() string { return e.Err.Error() + "; " + e.Remedy }

// Unwrap returns Err.
func (e *RemedyError) Unwrap() error { return e.Err }

// Explain returns why err happened and what to do about it, for programs that show the two in different places. Both
// come from the first *UnavailableError, *RemedyError or *StartError in err's tree; else reason is the whole text.
func Explain(err error) (reason, remedy string) {
	var start *StartError
	var unavailable *UnavailableError
	var remedied *RemedyError
	switch {
	case errors.As(err, &start):
		if reason, remedy = Explain(start.Err); remedy == "" {
			remedy = start.Remedy
		}
		return reason, remedy
	case errors.As(err, &unavailable):
		return unavailable.Reason, unavailable.Remedy
	case errors.As(err, &remedied):
		return remedied.Err.Error(), remedied.Remedy
	}
	return err.Error(), ""
}
