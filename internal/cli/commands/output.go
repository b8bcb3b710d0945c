package commands

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// Formats of -o.
const (
	formatJSON = "json"
	formatYAML = "yaml"
	formatName = "name"
	formatWide = "wide"
)

// addOutput adds the flag -o with the formats that a verb has besides its own.
func addOutput(cmd *cobra.Command, format *string, formats ...string) {
	cmd.Flags().StringVarP(format, "output", "o", "", "format of the output: "+strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	check := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		for _, known := range append(formats, "") {
			if *format == known {
				if check != nil {
					return check(cmd, args)
				}
				return nil
			}
		}
		return wrong("--output=%s: must be %s", *format, strings.Join(formats, ", "))
	}
}

// printObject prints an object in a format other than a table.
func printObject(w io.Writer, format string, object client.Object) error {
	switch format {
	case formatName:
		_, err := fmt.Fprintln(w, nameOf(object))
		return err
	case formatJSON:
		text, err := json.MarshalIndent(shown(object), "", "    ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", text)
		return err
	default:
		text, err := yaml.Marshal(shown(object))
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
}

// nameOf returns the name of an object as kubectl prints it, such as apikey.apikey-operator.io/shopper.
func nameOf(object client.Object) string {
	return strings.ToLower(object.GetObjectKind().GroupVersionKind().Kind) + "." + v1alpha1.GroupVersion.Group + "/" + object.GetName()
}

// shown returns an object without what nobody reads, as kubectl prints it. For a key that does not exist yet, that includes the status.
func shown(object client.Object) any {
	object.SetManagedFields(nil)
	key, ok := object.(*v1alpha1.ApiKey)
	if !ok || key.UID != "" {
		return object
	}
	key.Status = v1alpha1.ApiKeyStatus{}
	return key
}

// objects prints any number of objects in a format other than a table, each as soon as it comes. A list with -o json or yaml is a List, as
// kubectl prints it.
type objects struct {
	w       io.Writer
	format  string
	started bool
}

func (o *objects) add(object client.Object) error {
	if o.format == formatName {
		return printObject(o.w, o.format, object)
	}
	first := !o.started
	o.started = true
	if o.format == formatJSON {
		text, err := json.MarshalIndent(shown(object), "        ", "    ")
		if err != nil {
			return err
		}
		before := ",\n"
		if first {
			before = "{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n"
		}
		_, err = fmt.Fprintf(o.w, "%s        %s", before, text)
		return err
	}
	text, err := yaml.Marshal(shown(object))
	if err != nil {
		return err
	}
	before := ""
	if first {
		before = "apiVersion: v1\nitems:\n"
	}
	indented := strings.ReplaceAll(strings.TrimSuffix(string(text), "\n"), "\n", "\n  ")
	_, err = fmt.Fprintf(o.w, "%s- %s\n", before, indented)
	return err
}

func (o *objects) end() error {
	var text string
	switch {
	case o.format == formatName:
	case o.format == formatJSON && o.started:
		text = "\n    ],\n    \"kind\": \"List\",\n    \"metadata\": {}\n}\n"
	case o.format == formatJSON:
		text = "{\n    \"apiVersion\": \"v1\",\n    \"items\": [],\n    \"kind\": \"List\",\n    \"metadata\": {}\n}\n"
	case o.started:
		text = "kind: List\nmetadata: {}\n"
	default:
		text = "apiVersion: v1\nitems: []\nkind: List\nmetadata: {}\n"
	}
	_, err := io.WriteString(o.w, text)
	return err
}
