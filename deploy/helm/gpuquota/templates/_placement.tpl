{{/* What the two containers of placement have in common. */}}
{{- define "gpuquota.placement.flags" -}}
- --library={{ include "gpuquota.engineDir" . }}/libgpuquota.so
- --root={{ first .Values.regions }}
- --kubelet={{ .Values.kubeletDir }}
- --visible={{ .Values.placement.visible }}
{{- range .Values.placement.whole }}
- --whole={{ . }}
{{- end }}
{{- if .Values.placement.besideOthers }}
- --beside-others
{{- end }}
{{- end -}}

{{- define "gpuquota.placement.environment" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
# NVIDIA's toolkit gives the container NVML, and no program a GPU.
- name: NVIDIA_VISIBLE_DEVICES
  value: all
- name: NVIDIA_DRIVER_CAPABILITIES
  value: utility
{{- end -}}

{{- define "gpuquota.placement.rights" -}}
runAsUser: 0
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  # Regions belong to the users of containers.
  add: [DAC_OVERRIDE]
{{- end -}}

{{- define "gpuquota.placement.mounts" -}}
- name: regions-0
  mountPath: {{ first .Values.regions }}
- name: engine
  mountPath: {{ include "gpuquota.engineDir" . }}
  readOnly: true
- name: device-plugins
  mountPath: {{ .Values.kubeletDir }}/device-plugins
- name: plugins-registry
  mountPath: {{ .Values.kubeletDir }}/plugins_registry
{{- end -}}

{{- define "gpuquota.placement.containers" -}}
{{- if .Values.dra.enabled }}
- name: dra
  image: {{ include "gpuquota.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - dra
    - --node-name=$(NODE_NAME)
    - --memory-step={{ .Values.dra.memoryStep }}
    - --default-memory={{ .Values.dra.defaultMemory }}
    - --default-cores={{ .Values.dra.defaultCores }}
    - --cores-step={{ .Values.dra.coresStep }}
    - --cdi={{ .Values.dra.cdiDir }}
    {{- include "gpuquota.placement.flags" . | nindent 4 }}
  env:
    {{- include "gpuquota.placement.environment" . | nindent 4 }}
  securityContext:
    {{- include "gpuquota.placement.rights" . | nindent 4 }}
  resources:
    {{- toYaml .Values.placement.resources | nindent 4 }}
  volumeMounts:
    {{- include "gpuquota.placement.mounts" . | nindent 4 }}
    - name: plugin
      mountPath: {{ .Values.kubeletDir }}/plugins/gpuquota.dev
    - name: cdi
      mountPath: {{ .Values.dra.cdiDir }}
    - name: account
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
{{- end }}
{{- if .Values.devicePlugin.enabled }}
- name: device-plugin
  image: {{ include "gpuquota.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - device-plugin
    - --placement={{ .Values.devicePlugin.placement }}
    {{- if .Values.devicePlugin.hamiNames }}
    - --hami-names
    - --hami-memory-factor={{ .Values.devicePlugin.hamiMemoryFactor }}
    - --hami-split={{ .Values.devicePlugin.hamiSplit }}
    {{- else }}
    - --unit={{ .Values.devicePlugin.unit }}
    {{- end }}
    {{- include "gpuquota.placement.flags" . | nindent 4 }}
  env:
    {{- include "gpuquota.placement.environment" . | nindent 4 }}
  securityContext:
    {{- include "gpuquota.placement.rights" . | nindent 4 }}
  resources:
    {{- toYaml .Values.placement.resources | nindent 4 }}
  volumeMounts:
    {{- include "gpuquota.placement.mounts" . | nindent 4 }}
    - name: pod-resources
      mountPath: {{ .Values.kubeletDir }}/pod-resources
      readOnly: true
{{- end }}
{{- end -}}

{{- define "gpuquota.placement.volumes" -}}
{{- if or .Values.dra.enabled .Values.devicePlugin.enabled }}
- name: device-plugins
  hostPath: { path: {{ .Values.kubeletDir }}/device-plugins, type: DirectoryOrCreate }
- name: plugins-registry
  hostPath: { path: {{ .Values.kubeletDir }}/plugins_registry, type: DirectoryOrCreate }
{{- end }}
{{- if .Values.dra.enabled }}
- name: plugin
  hostPath: { path: {{ .Values.kubeletDir }}/plugins/gpuquota.dev, type: DirectoryOrCreate }
- name: cdi
  hostPath: { path: {{ .Values.dra.cdiDir }}, type: DirectoryOrCreate }
# The token for the API server, for this container alone.
- name: account
  projected:
    sources:
      - serviceAccountToken: { path: token, expirationSeconds: 3607 }
      - configMap: { name: kube-root-ca.crt, items: [{ key: ca.crt, path: ca.crt }] }
{{- end }}
{{- if .Values.devicePlugin.enabled }}
- name: pod-resources
  hostPath: { path: {{ .Values.kubeletDir }}/pod-resources, type: DirectoryOrCreate }
{{- end }}
{{- end -}}
