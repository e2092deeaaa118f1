//go:build !unix

package debugpage

import "io/fs"

// isOwn reports whether a directory belongs to this user. Here the temporary directory is the user's own.
func isOwn(fs.FileInfo) bool { return true }

// isRefused reports whether nobody listens at a socket. Here it is unknown, and the socket stays.
func isRefused(error) bool { return false }
