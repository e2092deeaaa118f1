package remote

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/snakepit-go/snakepit/core"
)

// maxArchive bounds the program's files, packed and unpacked. Ray's dashboard takes no request above 100 MiB.
const maxArchive = 100 << 20

// filesDir is the directory of the program's own files in the archive. What runs it lies beside that directory, where
// Python looks first. So no file of the program can take the place of a module of it.
const filesDir = "program"

// caches are the names of directories that are no part of a program.
var caches = []string{"__pycache__", "node_modules", "venv"}

// pack returns a zip archive of a program's files and of what runs it. The same files give the same archive.
func pack(ctx context.Context, source *core.Source) ([]byte, error) {
	var b bytes.Buffer
	p := &packer{ctx: ctx, zip: zip.NewWriter(&b), left: maxArchive}
	err := p.add(source.Support, "")
	if err == nil {
		err = p.add(source.Files, filesDir)
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
	ctx  context.Context // of the one call
	zip  *zip.Writer
	left int64
}

// add adds all files of fsys, below a directory of the archive. It leaves keys out, and links that lead nowhere.
func (p *packer) add(fsys fs.FS, dir string) error {
	if fsys == nil {
		return nil
	}
	return fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		base := path.Base(name)
		switch {
		case err != nil:
			return err
		case p.ctx.Err() != nil:
			return context.Cause(p.ctx)
		case name == ".":
			return nil
		case entry.IsDir():
			_, notVenv := fs.Stat(fsys, path.Join(name, "pyvenv.cfg"))
			if strings.HasPrefix(base, ".") || slices.Contains(caches, base) || notVenv == nil {
				return fs.SkipDir
			}
			return nil
		case strings.HasPrefix(base, "."), strings.HasSuffix(base, ".key"):
			return nil
		}
		info, err := fs.Stat(fsys, name) // of the file that a link leads to
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		if p.left -= info.Size(); p.left < 0 {
			return errTooLarge
		}
		header := &zip.FileHeader{Name: path.Join(dir, name), Method: zip.Deflate} // without times, which differ
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
}
