package commands

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// clock is the time at which the tables are printed.
var clock = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

// samples are the objects that the tables show.
type samples struct {
	keys   []v1alpha1.ApiKey
	roles  []v1alpha1.ApiRole
	events []corev1.Event
}

func readSamples(t *testing.T) (all samples) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "tables", "objects.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	codecs := serializer.NewCodecFactory(keys.Scheme(), serializer.EnableStrict)
	list := &corev1.List{}
	if err := runtime.DecodeInto(codecs.UniversalDeserializer(), text, list); err != nil {
		t.Fatal(err)
	}
	for _, item := range list.Items {
		object, _, err := codecs.UniversalDeserializer().Decode(item.Raw, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch object := object.(type) {
		case *v1alpha1.ApiKey:
			all.keys = append(all.keys, *object)
		case *v1alpha1.ApiRole:
			all.roles = append(all.roles, *object)
		case *corev1.Event:
			all.events = append(all.events, *object)
		default:
			t.Fatalf("the samples have a %T", object)
		}
	}
	return all
}

// TestTables compares what verbs print with files. Run `go test ./internal/cli/commands -update` after a change, and look at the difference.
func TestTables(t *testing.T) {
	all := readSamples(t)
	for name, show := range map[string]func(*session) error{
		"list":                func(s *session) error { return list(s, all.keys[:2], false, false, "") },
		"list-all-namespaces": func(s *session) error { return list(s, all.keys, true, false, "expires") },
		"list-wide":           func(s *session) error { return list(s, all.keys, true, true, "") },
		"describe": func(s *session) error {
			return printDescription(s.Out, &keys.Description{
				Key: &all.keys[0], Roles: keys.Lines(all.keys[0].Spec.Roles, all.roles), Events: all.events,
			}, clock)
		},
		"describe-pending": func(s *session) error {
			return printDescription(s.Out, &keys.Description{Key: &all.keys[1], Roles: keys.Lines(all.keys[1].Spec.Roles, all.roles), DeclaredBy: "Flux"}, clock)
		},
		"describe-suspended": func(s *session) error {
			return printDescription(s.Out, &keys.Description{Key: &all.keys[2], Roles: keys.Lines(all.keys[2].Spec.Roles, nil), NoCatalogue: true}, clock)
		},
		"describe-with-few-rights": func(s *session) error {
			return printDescription(s.Out, &keys.Description{
				Key: &all.keys[3], Roles: keys.Lines(all.keys[3].Spec.Roles, nil), Unread: []string{"apiroles", "events"},
			}, clock)
		},
		"find": func(s *session) error {
			return s.printMatches([]keys.Match{{Key: all.keys[0], Kind: keys.Retiring}}, keys.Search{}, "", clock)
		},
		"find-wide": func(s *session) error {
			return s.printMatches([]keys.Match{{Key: all.keys[2], Kind: keys.Current}}, keys.Search{}, formatWide, clock)
		},
		"find-nothing": func(s *session) error {
			for _, search := range []keys.Search{{}, {Namespace: "shop"}, {Namespace: "shop", Narrowed: true}} {
				if err := s.printMatches(nil, search, "", clock); !errors.Is(err, errNo.err) {
					return fmt.Errorf("the exit code is not that of no: %w", err)
				}
			}
			return nil
		},
		"roles":  func(s *session) error { return s.printRoles(all.roles, nil, "") },
		"revoke": func(s *session) error { return consequences(s, all.keys) },
		"scan":   func(s *session) error { return scanned(s, all.keys) },
		"check":  func(s *session) error { return checked(s, all) },
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := show(&session{IOStreams: genericiooptions.IOStreams{Out: &out, ErrOut: &out}}); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "tables", name+".txt")
			if flag.Lookup("update").Value.String() == "true" { // package reference defines it
				if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path) //nolint:gosec // a file of this test
			if err != nil || string(want) != out.String() {
				t.Errorf("%s differs (%v): run `go test ./internal/cli/commands -update`, and look at the change. It is now\n%s", path, err, out.String())
			}
		})
	}
}

// list prints keys as the verb does, in two pages.
func list(s *session, all []v1alpha1.ApiKey, namespaces, wide bool, order string) error {
	l := &lister{table: newTable(s.Out, namespaces, wide, clock), now: clock, order: keys.Orders[order]}
	for _, page := range [][]v1alpha1.ApiKey{all[:2], all[2:]} {
		if err := l.page(page); err != nil {
			return err
		}
	}
	_, err := l.end()
	return err
}

func consequences(s *session, all []v1alpha1.ApiKey) error {
	for i := range all {
		s.say("%s", consequence(&all[i], clock))
	}
	return nil
}

// scanned prints what is known of tokens that were found.
func scanned(s *session, all []v1alpha1.ApiKey) error {
	r := &scanRun{s: s, files: 3, places: map[token.Digest]string{}}
	found := map[token.Digest][]keys.Match{}
	for i, kind := range []keys.Kind{keys.Retiring, keys.Current, keys.Current, keys.Current} {
		digest := token.Mint("ak").Digest()
		r.findings++
		r.order = append(r.order, digest)
		r.places[digest] = fmt.Sprintf("deploy/values.yaml:%d:7", i+1)
		found[digest] = []keys.Match{{Key: all[i], Kind: kind}}
	}
	if err := r.report(found, keys.Search{}, clock); !errors.Is(err, errNo.err) {
		return fmt.Errorf("the exit code is not that of no: %w", err)
	}
	return nil
}

// checked prints the answers about a token of each key, on several routes.
func checked(s *session, all samples) error {
	text := token.Mint("ak")
	ask := func(what string, matches []keys.Match, search keys.Search, unread bool, roles, namespaces []string, from string) error {
		q := keys.Question{Token: text, Route: verify.NewRoute(roles, namespaces)}
		if from != "" {
			q.From = netip.MustParseAddr(from)
		}
		catalogue := keys.Catalogue{Roles: all.roles, Unread: unread}
		if unread {
			catalogue.Roles = nil
		}
		s.say("# %s", what)
		err := s.printAnswer(keys.AnswerOf(q, matches, search, catalogue, clock), q)
		var exit *exitError
		if err != nil && !errors.As(err, &exit) {
			return err
		}
		s.say("")
		return nil
	}
	with := func(i int) []keys.Match {
		key := all.keys[i].DeepCopy()
		key.Status.Hash = text.Digest().String()
		return []keys.Match{{Key: *key, Kind: keys.Current}}
	}
	read, create := []string{"org.permission.order.read"}, []string{"org.permission.customer.create"}
	return errors.Join(
		ask("allowed", with(0), keys.Search{}, false, read, nil, "10.20.1.7"),
		ask("allowed by an included role", with(0), keys.Search{}, false, create, []string{"shop"}, "10.20.1.7"),
		ask("from nowhere", with(0), keys.Search{}, false, read, nil, ""),
		ask("from outside", with(0), keys.Search{}, false, read, nil, "192.0.2.1"),
		ask("without the role", with(0), keys.Search{}, false, []string{"org.admin.setting.write"}, nil, "10.20.1.7"),
		ask("with an unknown catalogue", with(0), keys.Search{}, true, create, nil, "10.20.1.7"),
		ask("on a route of another namespace", with(0), keys.Search{}, false, read, []string{"billing"}, "10.20.1.7"),
		ask("suspended", with(2), keys.Search{}, false, read, nil, ""),
		ask("expired", with(3), keys.Search{}, false, read, nil, ""),
		ask("without a route", with(0), keys.Search{}, false, nil, nil, "10.20.1.7"),
		ask("unknown", nil, keys.Search{}, false, read, nil, ""),
		ask("unknown here", nil, keys.Search{Namespace: "shop", Narrowed: true}, false, read, nil, ""),
		ask("two keys", append(with(0), with(2)...), keys.Search{}, false, read, nil, ""),
	)
}
