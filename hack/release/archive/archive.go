// Package archive writes files to archives. The same files always result in the same bytes. Don't run commands here, and don't read a clock.
package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// File is a file in an archive or in an image. Its parent folders are created.
type File struct {
	// Path must be absolute.
	Path string
	Mode fs.FileMode
	Data []byte
}

// WriteTar writes files and their parent folders as a tar archive. They are sorted, belong to root and have the time modified.
func WriteTar(w io.Writer, modified time.Time, files ...File) error {
	entries, err := byName(files)
	if err != nil {
		return err
	}
	for _, file := range files {
		for folder := path.Dir(path.Clean(file.Path)); folder != "/"; folder = path.Dir(folder) {
			entries[folder[1:]+"/"] = File{Mode: 0o755}
		}
	}
	archive := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		file := entries[name]
		header := &tar.Header{
			Name: name, Mode: int64(file.Mode.Perm()), Size: int64(len(file.Data)),
			Typeflag: tar.TypeReg, ModTime: modified, Format: tar.FormatUSTAR,
		}
		if strings.HasSuffix(name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(file.Data); err != nil {
			return err
		}
	}
	return archive.Close()
}

// TarGz returns files as a compressed tar archive.
func TarGz(modified time.Time, files ...File) ([]byte, error) {
	var out bytes.Buffer
	compressed, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if err := WriteTar(compressed, modified, files...); err != nil {
		return nil, err
	}
	if err := compressed.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Zip returns files as a zip archive, which Windows can open.
func Zip(modified time.Time, files ...File) ([]byte, error) {
	entries, err := byName(files)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: modified.UTC()}
		header.SetMode(entries[name].Mode.Perm())
		entry, err := archive.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := entry.Write(entries[name].Data); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// byName returns files by their name in an archive, which has no slash at its start.
func byName(files []File) (map[string]File, error) {
	entries := map[string]File{}
	for _, file := range files {
		name := path.Clean(file.Path)
		if !path.IsAbs(name) || name == "/" {
			return nil, fmt.Errorf("invalid path %q: must be the absolute path of a file", file.Path)
		}
		entries[name[1:]] = file
	}
	return entries, nil
}
