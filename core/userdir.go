package core

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// UserDir is the directory where programs of this user find each other by sockets: snakepit in XDG_RUNTIME_DIR, else
// snakepit-UID in os.TempDir. See MakeUserDir.
func UserDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "snakepit")
	}
	return filepath.Join(os.TempDir(), "snakepit-"+strconv.Itoa(os.Getuid()))
}

// MakeUserDir makes UserDir, unless it exists, and returns its path. It is an error if another user owns it or may
// enter it.
func MakeUserDir() (string, error) {
	dir := UserDir()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() || !isOwn(info) {
		return "", fmt.Errorf("%s is not a directory of this user alone; remove it", dir)
	}
	return dir, nil
}
