{{- define "fpga.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "fpga.labels" -}}
app.kubernetes.io/name: fpga
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "fpga.selector" -}}
app.kubernetes.io/name: fpga
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "fpga.hosts" -}}
{{- $web := printf "%s-web" (include "fpga.name" .) -}}
{{- $there := printf "%s.%s" $web .Release.Namespace -}}
{{- $names := list $web $there (printf "%s.svc" $there) (printf "%s.svc.cluster.local" $there) -}}
{{- if .Values.api.ingress.enabled }}{{ $names = append $names .Values.api.ingress.host }}{{ end -}}
{{- join "," (concat $names .Values.api.allowedHosts) -}}
{{- end -}}

{{- define "fpga.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "fpga.name" .) -}}
{{- end -}}

{{- /* What every pod of ours is: nobody, without a token, without the variables that Kubernetes makes of Services
       (one called fpga-api would set FPGA_API_PORT=tcp://...), read-only but for its scratch. */ -}}
{{- define "fpga.pod" -}}
serviceAccountName: {{ include "fpga.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "fpga.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - configMapRef: {name: {{ include "fpga.name" . }}-env}
  - secretRef: {name: {{ .Values.existingSecret }}}
volumeMounts:
  - {name: scratch, mountPath: /var/lib/fpga}
  - {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "fpga.volumes" -}}
- name: scratch
  emptyDir: {sizeLimit: {{ .scratch }}}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
{{- end -}}
