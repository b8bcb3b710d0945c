// Package scanning proves the rules of config/scanning with the real gitleaks. It is a module of its own, because nothing else needs gitleaks.
package scanning

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/viper"
	"github.com/zricethezav/gitleaks/v8/config"
	"github.com/zricethezav/gitleaks/v8/detect"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/internal/cli/scan"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

const rule = "apikey-operator-token"

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "config", "scanning", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func detector(t *testing.T) *detect.Detector {
	t.Helper()
	v := viper.New()
	v.SetConfigType("toml")
	if err := v.ReadConfig(strings.NewReader(read(t, "gitleaks.toml"))); err != nil {
		t.Fatal(err)
	}
	var raw config.ViperConfig
	if err := v.Unmarshal(&raw); err != nil {
		t.Fatal(err)
	}
	rules, err := raw.Translate()
	if err != nil {
		t.Fatal(err)
	}
	return detect.NewDetector(rules)
}

// places are texts in which a token leaks, with %s for the token.
var places = []string{
	"%s", "key: %s\n", `{"key": "%s"}`, "Authorization: Bearer %s\r\n", "curl -H 'X-API-Key: %s' https://example.com", "export KEY=%s; run",
	"https://example.com/?key=%s&page=2", "a,%s,b", "<key>%s</key>", "`%s`", "//%s\n",
}

func TestGitleaksFindsEveryToken(t *testing.T) {
	d := detector(t)
	for i := range 500 {
		minted := token.Mint("ak").Reveal()
		found := 0
		for _, finding := range d.DetectString(fmt.Sprintf(places[i%len(places)], minted)) {
			if finding.RuleID == rule && finding.Secret == minted {
				found++
			}
		}
		if found != 1 {
			t.Fatalf("found %d tokens in the place %q, want 1", found, places[i%len(places)])
		}
	}
	two := token.Mint("ak").Reveal() + " " + token.Mint("ak").Reveal()
	n := 0
	for _, finding := range d.DetectString(two) {
		if finding.RuleID == rule {
			n++
		}
	}
	if n != 2 {
		t.Errorf("found %d of 2 tokens on a line", n)
	}
}

// Near misses, and what kubectl apikey scan finds beyond gitleaks.
func TestScanKnowsMoreThanTheForm(t *testing.T) {
	d := detector(t)
	minted := token.Mint("ak").Reveal()
	other := token.Mint("org1").Reveal()
	wrong := []byte(minted)
	for wrong[20] == minted[20] {
		wrong[20] = "0123456789"[(wrong[20]+1)%10]
	}
	for name, c := range map[string]struct {
		text           string
		gitleaks, ours bool
	}{
		"a token":                    {minted, true, true},
		"a token with a wrong digit": {string(wrong), true, false}, // the form is right, the checksum is not
		"a digit less":               {minted[:len(minted)-1], false, false},
		"a digit more":               {minted + "0", false, true},
		"within a word":              {"token" + minted, false, true},
		"before an underscore":       {minted + "_x", false, true},
		"another prefix":             {other, false, true},
		"in base64":                  {base64.StdEncoding.EncodeToString([]byte(minted)), false, true},
		"a hash":                     {"sha256:" + strings.Repeat("0123456789abcdef", 4), false, false},
		"the hint":                   {minted[:7] + "...", false, false},
	} {
		gitleaks := false
		for _, finding := range d.DetectString(c.text) {
			gitleaks = gitleaks || finding.RuleID == rule
		}
		ours := false
		if err := scan.Text(strings.NewReader(c.text), func(scan.Finding) { ours = true }); err != nil {
			t.Fatal(err)
		}
		if gitleaks != c.gitleaks || ours != c.ours {
			t.Errorf("%s: gitleaks %t, scan %t; want %t, %t", name, gitleaks, ours, c.gitleaks, c.ours)
		}
	}
}

// The rules of the other scanners can't be run here. They must have the expression that was proven.
func TestOtherRulesHaveTheSameExpression(t *testing.T) {
	expression := regexp.MustCompile(`(?m)^regex = '''(.*)'''$`)
	proven := expression.FindStringSubmatch(read(t, "gitleaks.toml"))
	if proven == nil {
		t.Fatal("gitleaks.toml has no expression")
	}
	if other := expression.FindStringSubmatch(read(t, "betterleaks.toml")); other == nil || other[1] != proven[1] {
		t.Errorf("betterleaks.toml has %q, want %q", other, proven[1])
	}
	var kingfisher struct {
		Rules []struct {
			Pattern  string   `json:"pattern"`
			Examples []string `json:"examples"`
			Misses   []string `json:"negative_examples"`
		} `json:"rules"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "kingfisher.yaml")), &kingfisher); err != nil || len(kingfisher.Rules) != 1 {
		t.Fatalf("kingfisher.yaml: %v", err)
	}
	r := kingfisher.Rules[0]
	pattern := regexp.MustCompile(r.Pattern)
	if r.Pattern != proven[1] || !pattern.MatchString(r.Examples[0]) || pattern.MatchString(r.Misses[0]) {
		t.Errorf("kingfisher.yaml has %q, want %q", r.Pattern, proven[1])
	}
}
