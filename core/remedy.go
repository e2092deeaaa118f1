package core

import "errors"

// UnavailableError says why a protocol is unavailable, and how to make it available. errors.Is reports that it is
// ErrUnavailable. Launcher.Launch makes one from a worker's report, and an adapter may make its own.
type UnavailableError struct {
	Reason string // such as "grpcio cannot be imported"
	Remedy string // what to do, such as "pip install grpcio"; "" if no remedy is known
	Full   bool   // the protocol works, but there is no room for another worker now; the error is ErrNoRoom too
}

func (e *UnavailableError) Error() string {
	text := ErrUnavailable.Error() + ": " + e.Reason
	if e.Full {
		text = ErrNoRoom.Error() + ": " + e.Reason
	}
	if e.Remedy != "" {
		text += "; to get it: " + e.Remedy
	}
	return text
}

// Is reports whether target is ErrUnavailable, or ErrNoRoom if that is so.
func (e *UnavailableError) Is(target error) bool {
	return target == ErrUnavailable || target == ErrNoRoom && e.Full
}

// RemedyError is an error with its remedy.
type RemedyError struct {
	Err    error
	Remedy string // an imperative sentence, lower case, without a full stop
}

func (e *RemedyError) Error() string { return e.Err.Error() + "; " + e.Remedy }

// Unwrap returns Err.
func (e *RemedyError) Unwrap() error { return e.Err }

// Explain returns the reason for err and the remedy, for programs that show them in different places. Both come from
// the *StartError in err's tree, else from the *UnavailableError, else from the *RemedyError. Without any of them,
// reason is err's whole text and remedy is "". Of a nil err both are "".
func Explain(err error) (reason, remedy string) {
	if err == nil {
		return "", ""
	}
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
