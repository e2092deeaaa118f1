//go:build !unix

package debugpage

// isRefused reports whether nobody listens at a socket. Here it is unknown, and the socket stays.
func isRefused(error) bool { return false }
