{{/*
Templates for the pods of your own chart. Each takes the root context (`.`), of this chart or, as a
subchart named `kordon`, of yours: values are then under `.Values.kordon`.
*/}}

{{- define "kordon.values" -}}
{{- if eq .Chart.Name "kordon" -}}
{{- toYaml .Values -}}
{{- else -}}
{{- toYaml .Values.kordon -}}
{{- end -}}
{{- end -}}

{{- define "kordon.name" -}}
{{- printf "%s-kordon" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "kordon.labels" -}}
app.kubernetes.io/name: kordon
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* kordon.yaml: what the values say, with the paths and ports that this chart makes. */}}
{{- define "kordon.config" -}}
{{- $values := include "kordon.values" . | fromYaml -}}
{{- $config := deepCopy $values.config -}}
{{- if $values.policies -}}
{{- $_ := set $config "policies" "/etc/kordon/policies" -}}
{{- end -}}
{{- if $values.schemas -}}
{{- $_ := set $config "schemas" (dict "directory" "/etc/kordon/schemas") -}}
{{- end -}}
{{- $_ := set $config "admin" (dict "bind" (printf "0.0.0.0:%d" (int $values.admin.port))) -}}
{{- if ne (toString $values.audit) "none" -}}
{{- $_ := set $config "audit" $values.audit -}}
{{- end -}}
{{- if $values.shadow -}}
{{- $authorization := deepCopy ($config.authorization | default dict) -}}
{{- $_ := set $authorization "shadow" "/etc/kordon/shadow" -}}
{{- $_ := set $config "authorization" $authorization -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/*
Changes with kordon.yaml. As an annotation of the pod it restarts it, which is how such a change
comes into force; policies and schemas are taken over by the running process.
*/}}
{{- define "kordon.checksum" -}}
{{- include "kordon.config" . | sha256sum -}}
{{- end -}}

{{/*
The container, as one element of `initContainers`: with `restartPolicy: Always` it is a sidecar
that starts before the app, ends after it and does not keep a Job from ending (Kubernetes 1.29;
before that, put it under `containers` and take `restartPolicy` out).
*/}}
{{- define "kordon.container" -}}
{{- $values := include "kordon.values" . | fromYaml -}}
- name: kordon
  image: {{ printf "%s:%s" $values.image.repository ($values.image.tag | default "0.1.0") | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy | default "IfNotPresent" }}
  restartPolicy: Always
  args: ["run", "-c", "/etc/kordon/config/kordon.yaml"]
  env:
    - name: KORDON_LOG
      value: {{ $values.log | default "info" | quote }}
    {{- with $values.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: kordon-admin
      containerPort: {{ int $values.admin.port }}
  # The app starts once the brokers are known.
  startupProbe:
    httpGet: {path: /readyz, port: kordon-admin}
    periodSeconds: 1
    failureThreshold: 60
  readinessProbe:
    httpGet: {path: /readyz, port: kordon-admin}
    periodSeconds: 5
  livenessProbe:
    httpGet: {path: /livez, port: kordon-admin}
    periodSeconds: 10
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
  {{- with $values.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - {name: kordon-config, mountPath: /etc/kordon/config, readOnly: true}
    {{- if $values.policies }}
    - {name: kordon-policies, mountPath: /etc/kordon/policies, readOnly: true}
    {{- end }}
    {{- if $values.shadow }}
    - {name: kordon-shadow, mountPath: /etc/kordon/shadow, readOnly: true}
    {{- end }}
    {{- if $values.schemas }}
    - {name: kordon-schemas, mountPath: /etc/kordon/schemas, readOnly: true}
    {{- end }}
    {{- with $values.data }}
    - {name: kordon-data, mountPath: /var/lib/kordon}
    {{- end }}
    {{- range $values.secrets }}
    - {name: {{ printf "kordon-%s" .name }}, mountPath: {{ printf "/etc/kordon/%s" .name }}, readOnly: true}
    {{- end }}
{{- end -}}

{{/* The volumes of that container, as elements of `volumes`. */}}
{{- define "kordon.volumes" -}}
{{- $values := include "kordon.values" . | fromYaml -}}
{{- $name := include "kordon.name" . -}}
- name: kordon-config
  configMap: {name: {{ $name }}-config}
{{- if $values.policies }}
- name: kordon-policies
  configMap: {name: {{ $name }}-policies}
{{- end }}
{{- if $values.shadow }}
- name: kordon-shadow
  configMap: {name: {{ $name }}-shadow}
{{- end }}
{{- if $values.schemas }}
- name: kordon-schemas
  configMap: {name: {{ $name }}-schemas}
{{- end }}
{{- with $values.data }}
- name: kordon-data
  emptyDir: {sizeLimit: {{ .sizeLimit | quote }}}
{{- end }}
{{- range $values.secrets }}
- name: kordon-{{ .name }}
  secret: {secretName: {{ .secretName | quote }}}
{{- end }}
{{- end -}}
