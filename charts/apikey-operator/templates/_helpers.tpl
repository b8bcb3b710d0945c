{{/* Named templates are global in Helm, so the prefix avoids conflicts with a parent chart. */}}

{{/* The operator's name, with which the names of its objects begin. */}}
{{- define "apikey-operator.operator.name" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains "apikey-operator" .Release.Name -}}
{{ .Release.Name }}
{{- else -}}
{{ .Release.Name | trunc 37 | trimSuffix "-" }}-apikey-operator
{{- end -}}
{{- end -}}

{{/* The verifier's name, with which the names of its objects begin. */}}
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

{{/* The selector labels of the pods of a component. */}}
{{- define "apikey-operator.selector" -}}
app.kubernetes.io/name: apikey-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "apikey-operator.image" -}}
{{- $image := (get .root.Values .component).image -}}
{{- with .root.Values.image.registry }}{{ . | trimSuffix "/" }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end -}}

{{/* Names of the Secrets with certificates: those in the values, or those that cert-manager creates. */}}
{{- define "apikey-operator.verifier.tlsSecret" -}}
{{ .Values.verifier.tls.secretName | default (printf "%s-tls" (include "apikey-operator.verifier.name" .)) }}
{{- end -}}
{{- define "apikey-operator.metrics.tlsSecret" -}}
{{ .Values.metrics.tls.secretName | default (printf "%s-metrics-tls" (include "apikey-operator.operator.name" .)) }}
{{- end -}}

{{/* Pod fields that both components share: dict "root" $ "component" ... */}}
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
{{- with and (gt (int .replicas) 1) .topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
{{- $own := dict "labelSelector" (dict "matchLabels" $selector) }}
- {{ toYaml (hasKey . "labelSelector" | ternary . (merge $own .)) | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Checks of the values that values.schema.json can't express. */}}
{{- define "apikey-operator.check" -}}
{{- if not (or .Values.image.registry .Values.image.preloaded) }}
{{- fail "image.registry is empty: set it to the registry and path of the images, such as registry.example/team; or set image.preloaded=true where the images are loaded into the nodes, as on kind" }}
{{- end }}
{{- if and .Values.verifier.enabled .Values.verifier.tls.enabled (not .Values.verifier.tls.secretName) (not .Values.certManager.issuerRef.name) }}
{{- fail "verifier.tls.enabled=true: there is no certificate; set verifier.tls.secretName to a Secret, or certManager.issuerRef.name to an issuer" }}
{{- end }}
{{- if and .Values.metrics.tls.enabled (not .Values.metrics.tls.secretName) (not .Values.certManager.issuerRef.name) }}
{{- fail "metrics.tls.enabled=true: there is no certificate; set metrics.tls.secretName to a Secret, or certManager.issuerRef.name to an issuer" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled .Values.verifier.enabled (not .Values.networkPolicy.gateways) }}
{{- fail "networkPolicy.gateways=[]: nothing could reach the verifier; name the pods or networks of your gateways, or set verifier.enabled=false" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled .Values.metrics.serviceMonitor.enabled (not .Values.networkPolicy.scrapers) }}
{{- fail "networkPolicy.scrapers=[]: Prometheus could not reach the metrics, but metrics.serviceMonitor.enabled is true; name its pods or networks" }}
{{- end }}
{{- with .Values.metrics.serviceMonitor.reader }}
{{- if ne (empty .serviceAccount) (empty .namespace) }}
{{- fail (printf "metrics.serviceMonitor.reader: want both the name and the namespace of Prometheus' service account, or neither; have serviceAccount=%q, namespace=%q" .serviceAccount .namespace) }}
{{- end }}
{{- end }}
{{- if and .Values.verifier.enabled (not (has .Values.operator.tokenPrefix .Values.verifier.tokenPrefixes)) }}
{{- fail (printf "verifier.tokenPrefixes=%s: must include operator.tokenPrefix (%s), or the verifier would refuse new tokens" .Values.verifier.tokenPrefixes .Values.operator.tokenPrefix) }}
{{- end }}
{{- if .Values.fullnameOverride }}
{{- if contains "apikey-verifier" .Values.fullnameOverride }}
{{- fail (printf "fullnameOverride=%s: names the operator, and must not contain apikey-verifier, because the verifier's name is derived from it" .Values.fullnameOverride) }}
{{- end }}
{{- end }}
{{- end -}}
