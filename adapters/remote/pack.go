package remote

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/snakepit-go/snakepit/core"
)

// maxArchive bounds the program's files, unpacked. Ray itself takes no larger archive than 500 MiB.
const maxArchive = 250 << 20

// caches are the names of directories that are no part of a program.
var caches = []string{"__pycache__", "node_modules", "venv"}

// pack returns a zip archive of a program's files and of what runs it. The same files give the same archive.
func pack(source *core.Source) ([]byte, error) {
	var b bytes.Buffer
	p := &packer{zip: zip.NewWriter(&b), left: maxArchive, tops: map[string]bool{}}
	err := p.add(source.Support)
	if err == nil {
		err = p.add(source.Files)
	}
	if err == nil {
		err = p.zip.Close()
	}
	switch {
	case errors.Is(err, errTooLarge):
		return nil, &core.RemedyError{
			Err: fmt.Errorf("the program's files, which are those beside %s, have more than %d MiB", source.Script,
				maxArchive>>20),
			Remedy: "put the program into a directory of its own, or name its files by Program.FS",
		}
	case err != nil:
		return nil, fmt.Errorf("the program's files: %w", err)
	}
	return b.Bytes(), nil
}

var errTooLarge = errors.New("the files are too large")

type packer struct {
	zip  *zip.Writer
	left int64
	tops map[string]bool // the directories at the top that are complete
}

// add adds all files of fsys. It leaves out those below a directory at the top that has been added already.
func (p *packer) add(fsys fs.FS) error {
	if fsys == nil {
		return nil
	}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		base := path.Base(name)
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case entry.IsDir():
			_, notVenv := fs.Stat(fsys, path.Join(name, "pyvenv.cfg"))
			if p.tops[name] {
				return fs.SkipDir
			}
			if strings.HasPrefix(base, ".") || slices.Contains(caches, base) || notVenv == nil {
				return fs.SkipDir
			}
			return nil
		case strings.HasPrefix(base, "."):
			return nil
		}
		info, err := fs.Stat(fsys, name) // of the file that a link leads to
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		if p.left -= info.Size(); p.left < 0 {
			return errTooLarge
		}
		header := &zip.FileHeader{Name: name, Method: zip.Deflate} // without times, which differ
		header.SetMode(0o644 | info.Mode()&0o111)
		w, err := p.zip.CreateHeader(header)
		if err != nil {
			return err
		}
		file, err := fsys.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, io.LimitReader(file, info.Size()))
		return errors.Join(err, file.Close())
	})
	if err != nil {
		return err
	}
	entries, err := fs.ReadDir(fsys, ".")
	for _, entry := range entries {
		if entry.IsDir() {
			p.tops[entry.Name()] = true
		}
	}
	return err
}
