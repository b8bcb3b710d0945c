package commands

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

func rolesCommand(s *session) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "roles [ROLE...]",
		Short: "List the roles that keys can have, and what they include",
		Long: `Lists the role catalogue: what each role allows, in words, and all roles that it includes, directly or through others.

It needs the right to list apiroles.`,
		Example: `  kubectl apikey roles
  kubectl apikey roles org.user.customer.write`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: s.completeRoles,
		RunE: func(cmd *cobra.Command, names []string) error {
			cluster, err := s.cluster()
			if err != nil {
				return err
			}
			roles, err := cluster.Roles(cmd.Context())
			if err != nil {
				return err
			}
			return s.printRoles(roles, names, output)
		},
	}
	addOutput(cmd, &output, formatJSON, formatYAML, formatName)
	return cmd
}

func (s *session) printRoles(roles []v1alpha1.ApiRole, names []string, output string) error {
	for _, name := range names {
		if !slices.ContainsFunc(roles, func(role v1alpha1.ApiRole) bool { return role.Name == name }) {
			return wrong("the catalogue has no ApiRole %q; kubectl apikey roles lists all", name)
		}
	}
	wanted := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	if output != "" {
		all := &objects{w: s.Out, format: output}
		for i := range roles {
			if !wanted(roles[i].Name) {
				continue
			}
			roles[i].SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ApiRole"))
			if err := all.add(&roles[i]); err != nil {
				return err
			}
		}
		return all.end()
	}
	if len(roles) == 0 {
		s.say("The role catalogue is empty. Keys may have any roles then, unless the operator runs with --require-catalogue.")
		return nil
	}
	w := printers.GetNewTabWriter(s.Out)
	if _, err := fmt.Fprintln(w, "ROLE\tALLOWS\tINCLUDES"); err != nil {
		return err
	}
	for _, line := range keys.CatalogueLines(roles) {
		if !wanted(line.Name) {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s\t%s\t%s\n", line.Name, clean(line.Description), orUnknown(strings.Join(line.Includes, ","))); err != nil {
			return err
		}
	}
	return w.Flush()
}
