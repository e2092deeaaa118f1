package python

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/snakepit-go/snakepit/core"
)

// unpack writes fsys to dir, a directory that only this user can write to. cache is the directory that holds dir and
// its like. dir's name has the content's hash: versions lie side by side, and many processes share one copy. An
// existing copy is compared with fsys and replaced if it differs: a process may have died while it wrote, or the disk
// may have been full.
func (p Program) unpack(name string, fsys fs.FS) (cache, dir string, err error) {
	hash := sha256.New()
	err = walk(fsys, func(path string, info fs.FileInfo, content []byte) error {
		fmt.Fprintf(hash, "%q %t %d\n", path, info.IsDir(), len(content))
		hash.Write(content)
		return nil
	})
	if err != nil {
		return "", "", fmt.Errorf("reading the embedded files: %w", err)
	}
	name = fmt.Sprintf("%s-%x", name, hash.Sum(nil)[:8])

	var tried error
	for _, place := range p.places() {
		if cache, err = place.private(); err == nil {
			if dir, err = unpackTo(filepath.Join(cache, name), fsys); err == nil {
				return cache, dir, nil
			}
		}
		if tried != nil {
			err = fmt.Errorf("%w, %w", tried, err)
		}
		tried = err
	}
	remedy := "set Program.Cache to a directory that can be written to"
	if p.Cache == "" {
		remedy = "set TMPDIR to a directory that can be written to"
	}
	return "", "", &core.RemedyError{
		Err: fmt.Errorf("no directory to unpack the embedded files to: %w", tried), Remedy: remedy,
	}
}

// place is a directory to write to, and the name of Snakepit's own directory in it.
type place struct{ root, name string }

func (p Program) places() []place {
	if p.Cache != "" {
		return []place{{p.Cache, "snakepit"}}
	}
	// All users share the directory for temporary files, so the name has the user's number.
	places := []place{{os.TempDir(), "snakepit-" + strconv.Itoa(os.Geteuid())}}
	cache, err := os.UserCacheDir()
	if err == nil && filepath.IsAbs(cache) { // with a relative HOME it would be in the working directory
		places = append([]place{{cache, "snakepit"}}, places...)
	}
	return places
}

// private returns a directory that no other user can write to: the one of that name or, if others can write to that, a
// new one.
func (p place) private() (string, error) {
	root, err := filepath.Abs(p.root)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, p.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() || !ours(info) {
		return os.MkdirTemp(root, "snakepit-")
	}
	return dir, nil
}

// unpackTo makes dir a copy of fsys and returns dir. Other processes see the copy appear in one step.
func unpackTo(dir string, fsys fs.FS) (string, error) {
	if compare(dir, fsys) == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	fresh := filepath.Join(work, "fresh")
	err = walk(fsys, func(path string, info fs.FileInfo, content []byte) error {
		path = filepath.Join(fresh, filepath.FromSlash(path))
		if info.IsDir() {
			return os.Mkdir(path, 0o700)
		}
		return os.WriteFile(path, content, 0o600|info.Mode()&0o100)
	})
	if err != nil {
		return "", err
	}
	// If dir exists, it is a good copy of another process, or a damaged copy. A damaged copy is moved aside. Other
	// processes may do the same at once.
	for i := range 10 {
		if err = os.Rename(fresh, dir); err == nil || compare(dir, fsys) == nil {
			return dir, nil
		}
		_ = os.Rename(dir, filepath.Join(work, "damaged"+strconv.Itoa(i)))
	}
	return "", err
}

// compare returns an error unless dir holds all of fsys and no other user can write to it. Further files in dir, such
// as compiled ones, do not matter.
func compare(dir string, fsys fs.FS) error {
	return walk(fsys, func(path string, want fs.FileInfo, content []byte) error {
		path = filepath.Join(dir, filepath.FromSlash(path))
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if !ours(info) || info.Mode().Type() != want.Mode().Type() {
			return fmt.Errorf("%s is not a file of ours", path)
		}
		if info.IsDir() {
			return nil
		}
		found, err := os.ReadFile(path)
		if err == nil && !bytes.Equal(found, content) {
			err = fmt.Errorf("%s has been changed", path)
		}
		return err
	})
}

// walk calls f for each directory and file of fsys, a directory before its content, in the order of their names.
// Compiled files are left out.
func walk(fsys fs.FS, f func(path string, info fs.FileInfo, content []byte) error) error {
	return fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "__pycache__" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			return f(path, info, nil)
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a directory", path)
		}
		content, err := fs.ReadFile(fsys, path)
		if err != nil {
			return err
		}
		return f(path, info, content)
	})
}
