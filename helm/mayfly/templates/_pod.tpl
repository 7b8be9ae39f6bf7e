{{- /* The pod of one role (288 is 0440: the group, which is the pod's own, may read): (dict "root" $ "role" "api" "of" .Values.api) */ -}}
{{- define "mayfly.pod" -}}
{{- $root := .root -}}
{{- $of := .of -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "mayfly.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
    {{- with $of.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "mayfly.config" $root | sha256sum }}
    checksum/bundle: {{ toJson $values.bundle | sha256sum }}
    {{- with $of.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "mayfly.serviceAccountName" $root }}
  # A token for Vault is projected for its own audience; nothing here speaks to the API server.
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $of.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ $values.drain.terminationGracePeriodSeconds }}
  containers:
    - name: mayfly
      image: {{ include "mayfly.image" $root }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [/nodejs/bin/node, /app/bin/mayfly.js]
      args: [start, --role, {{ .role }}, --config, /etc/mayfly/config/mayfly.yaml]
      env:
        - name: NODE_ENV
          value: production
        {{- if $values.redis.caConfigMap }}
        - name: NODE_EXTRA_CA_CERTS
          value: /run/mayfly/redis-ca/{{ $values.redis.caKey }}
        {{- end }}
        {{- if $values.spiffe.enabled }}
        - name: SPIFFE_ENDPOINT_SOCKET
          value: unix:///spiffe-workload-api/{{ $values.spiffe.socket }}
        {{- end }}
        {{- with $of.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- if eq .role "api" }}
        - name: http
          containerPort: 7117
          protocol: TCP
        {{- if $values.mtls.enabled }}
        - name: mtls
          containerPort: {{ $values.mtls.port }}
          protocol: TCP
        {{- end }}
        {{- end }}
        - name: ops
          containerPort: {{ $values.ops.port }}
          protocol: TCP
      # A store that is not there yet is waited for: five minutes.
      startupProbe:
        httpGet: { path: /startupz, port: ops }
        periodSeconds: 5
        timeoutSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: { path: /livez, port: ops }
        periodSeconds: 10
        timeoutSeconds: 2
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: ops }
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      resources:
        {{- toYaml $of.resources | nindent 8 }}
      securityContext:
        {{- toYaml $values.securityContext | nindent 8 }}
      volumeMounts:
        - { name: config, mountPath: /etc/mayfly/config, readOnly: true }
        {{- range $folder := include "mayfly.bundleFolders" $root | fromJsonArray }}
        - { name: bundle-{{ $folder }}, mountPath: /etc/mayfly/bundle/{{ $folder }}, readOnly: true }
        {{- end }}
        - { name: root-key, mountPath: /run/mayfly/root-key, readOnly: true }
        - { name: data, mountPath: /var/lib/mayfly }
        {{- if $values.redis.existingSecret }}
        - { name: redis, mountPath: /run/mayfly/redis, readOnly: true }
        {{- end }}
        {{- if $values.redis.caConfigMap }}
        - { name: redis-ca, mountPath: /run/mayfly/redis-ca, readOnly: true }
        {{- end }}
        {{- if eq .role "api" }}
        {{- if $values.tls.existingSecret }}
        - { name: tls, mountPath: /run/mayfly/tls, readOnly: true }
        {{- end }}
        {{- if $values.mtls.enabled }}
        - { name: mtls, mountPath: /run/mayfly/mtls, readOnly: true }
        {{- end }}
        {{- end }}
        {{- range $name, $_ := $values.secretFiles }}
        - { name: secret-{{ $name }}, mountPath: /run/mayfly/secrets/{{ $name }}, readOnly: true }
        {{- end }}
        {{- if $values.vault.serviceAccountToken }}
        - { name: vault, mountPath: /run/mayfly/vault, readOnly: true }
        {{- end }}
        {{- if $values.vault.caConfigMap }}
        - { name: vault-ca, mountPath: /run/mayfly/vault-ca, readOnly: true }
        {{- end }}
        {{- if $values.spiffe.enabled }}
        - { name: spiffe, mountPath: /spiffe-workload-api, readOnly: true }
        {{- end }}
        {{- with $of.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: { name: {{ include "mayfly.fullname" $root }} }
    {{- range $folder := include "mayfly.bundleFolders" $root | fromJsonArray }}
    - name: bundle-{{ $folder }}
      {{- if hasKey $values.bundle.configMaps $folder }}
      configMap: { name: {{ get $values.bundle.configMaps $folder }} }
      {{- else }}
      configMap:
        name: {{ include "mayfly.fullname" $root }}-bundle
        items:
          {{- range $path, $_ := $values.bundle.files }}
          {{- if eq (dir $path) $folder }}
          - { key: {{ include "mayfly.bundleKey" $path | quote }}, path: {{ base $path | quote }} }
          {{- end }}
          {{- end }}
      {{- end }}
    {{- end }}
    - name: root-key
      secret: { secretName: {{ $values.rootKey.existingSecret }}, defaultMode: 288 }
    {{- if not .persistent }}
    - name: data
      emptyDir: { sizeLimit: 2Gi }
    {{- end }}
    {{- with $values.redis.existingSecret }}
    - name: redis
      secret: { secretName: {{ . }}, defaultMode: 288 }
    {{- end }}
    {{- with $values.redis.caConfigMap }}
    - name: redis-ca
      configMap: { name: {{ . }} }
    {{- end }}
    {{- if eq .role "api" }}
    {{- with $values.tls.existingSecret }}
    - name: tls
      secret: { secretName: {{ . }}, defaultMode: 288 }
    {{- end }}
    {{- if $values.mtls.enabled }}
    - name: mtls
      secret: { secretName: {{ $values.mtls.existingSecret }}, defaultMode: 288 }
    {{- end }}
    {{- end }}
    {{- range $name, $secret := $values.secretFiles }}
    - name: secret-{{ $name }}
      secret: { secretName: {{ $secret.existingSecret }}, defaultMode: 288 }
    {{- end }}
    {{- if $values.vault.serviceAccountToken }}
    - name: vault
      projected:
        sources:
          - serviceAccountToken: { path: token, audience: {{ $values.vault.audience | quote }}, expirationSeconds: 3600 }
    {{- end }}
    {{- with $values.vault.caConfigMap }}
    - name: vault-ca
      configMap: { name: {{ . }} }
    {{- end }}
    {{- if $values.spiffe.enabled }}
    - name: spiffe
      csi: { driver: {{ $values.spiffe.csiDriver }}, readOnly: true }
    {{- end }}
    {{- with $of.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $of.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $of.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $of.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if $of.topologySpreadConstraints }}
    {{- toYaml $of.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "mayfly.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ .role }}
    {{- end }}
{{- end -}}
