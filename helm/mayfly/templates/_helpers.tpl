{{- define "mayfly.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "mayfly.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "mayfly.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "mayfly.selector" -}}
app.kubernetes.io/name: {{ include "mayfly.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mayfly.labels" -}}
{{ include "mayfly.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "mayfly.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mayfly.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "mayfly.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* The configuration: what the operator wrote, and what this chart knows better. */ -}}
{{- define "mayfly.config" -}}
{{- $listen := dict "host" "0.0.0.0" "port" 7117 -}}
{{- if .Values.tls.existingSecret -}}
{{- $_ := set $listen "tls" (dict "cert_file" "/run/mayfly/tls/tls.crt" "key_file" "/run/mayfly/tls/tls.key") -}}
{{- end -}}
{{- $redis := dict -}}
{{- if .Values.redis.existingSecret -}}
{{- $_ := set $redis (ternary "cluster_file" "url_file" .Values.redis.cluster) (printf "/run/mayfly/redis/%s" .Values.redis.key) -}}
{{- else -}}
{{- $_ := set $redis "url" .Values.redis.url -}}
{{- end -}}
{{- $own := dict
  "data_dir" "/var/lib/mayfly"
  "root_key_file" (printf "/run/mayfly/root-key/%s" .Values.rootKey.key)
  "listen" $listen
  "ops" (dict "host" "0.0.0.0" "port" (int .Values.ops.port) "leaving_seconds" (int .Values.drain.leavingSeconds))
  "redis" (mergeOverwrite (deepCopy (default dict .Values.config.redis)) $redis)
  "bundle" (dict "dir" "/etc/mayfly/bundle")
-}}
{{- if .Values.mtls.enabled -}}
{{- $mtls := dict "host" "0.0.0.0" "port" (int .Values.mtls.port) "cert_file" "/run/mayfly/mtls/tls.crt" "key_file" "/run/mayfly/mtls/tls.key" -}}
{{- if .Values.mtls.issuer -}}{{- $_ := set $mtls "issuer" .Values.mtls.issuer -}}{{- end -}}
{{- $_ := set $own "mtls" $mtls -}}
{{- end -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.config) $own) -}}
{{- end -}}

{{- /* A key of a ConfigMap holds no slash. */ -}}
{{- define "mayfly.bundleKey" -}}
{{- . | replace "/" "__" -}}
{{- end -}}

{{- /* Each folder is a mount of its own: none can be made inside another one that is read-only. */ -}}
{{- define "mayfly.bundleFolders" -}}
{{- $folders := keys .Values.bundle.configMaps -}}
{{- range $path, $_ := .Values.bundle.files -}}{{- $folders = append $folders (dir $path) -}}{{- end -}}
{{- $folders | uniq | sortAlpha | toJson -}}
{{- end -}}

{{- define "mayfly.mustHave" -}}
{{- if and (empty .Values.bundle.files) (empty .Values.bundle.configMaps) -}}
{{- fail "bundle: nobody could have anything; give its files (bundle.files), or the ConfigMaps that hold them (bundle.configMaps)" -}}
{{- end -}}
{{- if not .Values.image.repository -}}{{- fail "image.repository: where is the image?" -}}{{- end -}}
{{- if not .Values.rootKey.existingSecret -}}
{{- fail "rootKey.existingSecret: make one first: kubectl create secret generic mayfly-root-key --from-literal=root.key=\"$(openssl rand -base64 32)\"" -}}
{{- end -}}
{{- if not .Values.config.issuer -}}{{- fail "config.issuer: the https address that clients use" -}}{{- end -}}
{{- if not .Values.config.identity -}}{{- fail "config.identity: nobody could be identified; name a trust domain or an issuer" -}}{{- end -}}
{{- if eq (empty .Values.redis.url) (empty .Values.redis.existingSecret) -}}
{{- fail "redis: give exactly one of redis.url and redis.existingSecret" -}}
{{- end -}}
{{- if and .Values.redis.url (regexMatch "://[^/@]*:[^/@]+@" .Values.redis.url) -}}
{{- fail "redis.url: a password is visible here; put the whole address into a Secret and name it in redis.existingSecret" -}}
{{- end -}}
{{- if and .Values.redis.cluster (not .Values.redis.existingSecret) -}}
{{- fail "redis.cluster: the nodes' addresses are read from redis.existingSecret" -}}
{{- end -}}
{{- if and .Values.mtls.enabled (not .Values.mtls.existingSecret) -}}
{{- fail "mtls.existingSecret: the listener for X.509-SVIDs needs a certificate" -}}
{{- end -}}
{{- if and (not .Values.tls.existingSecret) (not (hasPrefix "https:" .Values.config.issuer)) -}}
{{- fail "config.issuer: plain http pods need an https issuer and a proxy that ends TLS" -}}
{{- end -}}
{{- $least := add .Values.drain.leavingSeconds 15 -}}
{{- if lt (int .Values.drain.terminationGracePeriodSeconds) (int $least) -}}
{{- fail (printf "drain.terminationGracePeriodSeconds: at least drain.leavingSeconds and 15 s, so %d" (int $least)) -}}
{{- end -}}
{{- range $path, $_ := .Values.bundle.files -}}
{{- if not (regexMatch "^(agents|orchestrators|tasks|resources|secrets|policies)/[A-Za-z0-9._-]+$" $path) -}}
{{- fail (printf "bundle.files: %s: a bundle's file is agents/, orchestrators/, tasks/, resources/, secrets/ or policies/ and a name" $path) -}}
{{- end -}}
{{- if hasKey $.Values.bundle.configMaps (dir $path) -}}
{{- fail (printf "bundle.files: %s: bundle.configMaps has that folder already" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
