{{- define "gpuquota.name" -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "gpuquota.selector" -}}
app.kubernetes.io/name: gpuquota
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gpuquota.labels" -}}
{{ include "gpuquota.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "gpuquota.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* Whether the CRI socket is mounted. */}}
{{- define "gpuquota.cri" -}}
{{- if or .Values.cri.enabled (and .Values.nri.enabled (eq .Values.nri.unprotected "stop")) }}yes{{ end -}}
{{- end -}}

{{/* Where an engine has its files on the node. */}}
{{- define "gpuquota.engineDir" -}}
{{- if eq .Values.engine "vgpu-manager" }}/etc/vgpu-manager{{ else if eq .Values.engine "standalone" }}/usr/local/lib/gpuquota{{ else }}/usr/local/vgpu{{ end -}}
{{- end -}}
