package gate

import (
	"fmt"
	"html/template"
	"os"
	"path/filepath"
)

// launcher posts the one-time token as soon as a browser opens it.
var launcher = template.Must(template.New("launcher").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>API keys</title>
<form method="post" action="{{.To}}"><input type="hidden" name="token" value="{{.Token}}"><button>Open your API keys</button></form>
<script>document.forms[0].submit()</script>
</html>
`))

// Launcher writes a file that opens the page in the browser that shows it, and returns its path. Only its owner can read it: a URL in the
// arguments of a browser would be readable by everybody on the machine. remove deletes the file.
func (g *Gate) Launcher() (path string, remove func(), err error) {
	folder, err := os.MkdirTemp("", "apikey-ui-")
	if err != nil {
		return "", nil, fmt.Errorf("create the file that opens the page: %w", err)
	}
	remove = func() { _ = os.RemoveAll(folder) }
	path = filepath.Join(folder, "open.html")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // in our new folder
	if err == nil {
		err = launcher.Execute(file, map[string]string{"To": g.Origin() + OpenPath, "Token": g.onceToken()})
		if closed := file.Close(); err == nil {
			err = closed
		}
	}
	if err != nil {
		remove()
		return "", nil, fmt.Errorf("create the file that opens the page: %w", err)
	}
	return path, remove, nil
}
