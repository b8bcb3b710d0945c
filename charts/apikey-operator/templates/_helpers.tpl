{{/* Named templates are global in Helm, and a chart that this one is part of may have its own: hence their prefix. */}}

{{/* The operator's name, which begins those of its objects. */}}
{{- define "apikey-operator.operator.name" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains "apikey-operator" .Release.Name -}}
{{ .Release.Name }}
{{- else -}}
{{ .Release.Name | trunc 37 | trimSuffix "-" }}-apikey-operator
{{- end -}}
{{- end -}}

{{/* The verifier's name, which begins those of its objects. */}}
{{- define "apikey-operator.verifier.name" -}}
{{- $name := include "apikey-operator.operator.name" . -}}
{{- if contains "apikey-operator" $name -}}
{{ $name | replace "apikey-operator" "apikey-verifier" }}
{{- else -}}
{{ $name }}-verifier
{{- end -}}
{{- end -}}

{{/* Labels of an object: dict "root" $ "component" "operator" or "verifier". */}}
{{- define "apikey-operator.labels" -}}
{{ include "apikey-operator.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* What the pods of a component are known by. */}}
{{- define "apikey-operator.selector" -}}
app.kubernetes.io/name: apikey-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "apikey-operator.image" -}}
{{- $image := (get .root.Values .component).image -}}
{{- with .root.Values.image.registry }}{{ . | trimSuffix "/" }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end -}}

{{/* Names of the Secrets with certificates: given, or cert-manager's. */}}
{{- define "apikey-operator.verifier.tlsSecret" -}}
{{ .Values.verifier.tls.secretName | default (printf "%s-tls" (include "apikey-operator.verifier.name" .)) }}
{{- end -}}
{{- define "apikey-operator.metrics.tlsSecret" -}}
{{ .Values.metrics.tls.secretName | default (printf "%s-metrics-tls" (include "apikey-operator.operator.name" .)) }}
{{- end -}}

{{/* Fields of a pod that both have in common: dict "root" $ "component" ... */}}
{{- define "apikey-operator.pod.placement" -}}
{{- $root := .root -}}
{{- $selector := fromYaml (include "apikey-operator.selector" .) -}}
{{- with get .root.Values .component }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 0 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 0 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
{{- $own := dict "labelSelector" (dict "matchLabels" $selector) }}
- {{ toYaml (hasKey . "labelSelector" | ternary . (merge $own .)) | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What is wrong with the values, beyond what values.schema.json can say. */}}
{{- define "apikey-operator.check" -}}
{{- if and .Values.verifier.enabled .Values.verifier.tls.enabled (not .Values.verifier.tls.secretName) (not .Values.certManager.issuerRef.name) }}
{{- fail "verifier.tls.enabled=true: there is no certificate; set verifier.tls.secretName to a Secret, or certManager.issuerRef.name to an issuer" }}
{{- end }}
{{- if and .Values.metrics.tls.enabled (not .Values.metrics.tls.secretName) (not .Values.certManager.issuerRef.name) }}
{{- fail "metrics.tls.enabled=true: there is no certificate; set metrics.tls.secretName to a Secret, or certManager.issuerRef.name to an issuer" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled .Values.verifier.enabled (not .Values.networkPolicy.gateways) }}
{{- fail "networkPolicy.gateways=[]: nothing could ask the verifier; name the gateways' pods or networks, or set verifier.enabled=false" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled .Values.metrics.serviceMonitor.enabled (not .Values.networkPolicy.scrapers) }}
{{- fail "networkPolicy.scrapers=[]: metrics.serviceMonitor.enabled has Prometheus scrape what it could not reach; name its pods or networks" }}
{{- end }}
{{- if and .Values.verifier.enabled (not (has .Values.operator.tokenPrefix .Values.verifier.tokenPrefixes)) }}
{{- fail (printf "verifier.tokenPrefixes=%s: operator.tokenPrefix, %s, is not among them; its tokens would be refused" .Values.verifier.tokenPrefixes .Values.operator.tokenPrefix) }}
{{- end }}
{{- if .Values.fullnameOverride }}
{{- if contains "apikey-verifier" .Values.fullnameOverride }}
{{- fail (printf "fullnameOverride=%s: it names the operator; the verifier's name is made from it" .Values.fullnameOverride) }}
{{- end }}
{{- end }}
{{- end -}}
