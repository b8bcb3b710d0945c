{{- define "gvList" -}}
# API reference

Every field, with what the API server holds it against; `kubectl explain` shows the same. What the kinds are for is on the pages of
[ApiKey](../apikey.md), [ApiRole](../apirole.md) and [ApiKeyPolicy](../apikeypolicy.md). This page is generated from `api/`.

Generated, too: the [flags](flags.md) of both binaries, the chart's [values](values.md), all [metrics](metrics.md), and the verifier's
[results](results.md).
{{ range . }}
{{- $group := . }}
{{- range .SortedKinds }}{{ template "type" $group.TypeForKind . }}{{ end }}
{{- range .SortedTypes }}{{ if not .GVK }}{{ template "type" . }}{{ end }}{{ end }}
{{- end }}
{{- end }}

{{- define "type" }}
{{- if markdownShouldRenderType . }}
## {{ .Name }}

{{ .Doc }}
{{ if .GVK }}
`apiVersion: {{ .GVK.Group }}/{{ .GVK.Version }}`, `kind: {{ .GVK.Kind }}`
{{ end }}
{{- if .IsAlias }}
A {{ markdownRenderType .UnderlyingType }}; {{ template "limits" .Validation }}.
{{ end }}
{{- if .References }}
Part of {{ range $i, $type := .SortedReferences }}{{ if $i }}, {{ end }}{{ markdownRenderTypeLink $type }}{{ end }}.
{{ end }}
{{- if .Members }}
| field | type | meaning | limits |
|---|---|---|---|
{{- range .Members }}
| `{{ .Name }}` | {{ markdownRenderType .Type }} | {{ if eq .Name "metadata" }}The standard object's metadata.{{ else }}{{ markdownRenderFieldDoc .Doc | replace "<br />" " " }}{{ end }} | {{ template "limits" .Validation }} |
{{- end }}
{{ end }}
{{- if .EnumValues }}
| value | meaning |
|---|---|
{{- range .EnumValues }}
| `{{ .Name }}` | {{ markdownRenderFieldDoc .Doc | replace "<br />" " " }} |
{{- end }}
{{ end }}
{{- end }}
{{- end }}

{{- /* Leaves out CEL rules, which the text of the field explains better, and markers of optional fields. */}}
{{- define "limits" }}
{{- $comma := "" }}
{{- range . }}
{{- if and (not (contains "XValidation" .)) (not (hasPrefix "Optional" .)) }}{{ $comma }}{{ if hasPrefix "Required" . }}required{{ else }}{{ markdownRenderFieldDoc . }}{{ end }}{{ $comma = ", " }}{{ end }}
{{- end }}
{{- end }}
