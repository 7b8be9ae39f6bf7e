# One image for every role; which one it is, its command says. Nothing in it is made by an install script, and it holds no shell.
FROM node:24-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY scripts ./scripts
COPY src ./src
RUN node scripts/build.mjs

FROM node:24-bookworm-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM gcr.io/distroless/nodejs24-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Mayfly" \
      org.opencontainers.image.description="Just-in-time credentials for AI agents, one task each" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY package.json LICENSE ./
COPY bin ./bin
ENV NODE_ENV=production
# By number: Kubernetes has to see that it is not root.
USER 65532:65532
# Tokens, X.509-SVIDs, operators.
EXPOSE 7117 7118 9464
ENTRYPOINT ["/nodejs/bin/node", "/app/bin/mayfly.js"]
CMD ["start", "--config", "/etc/mayfly/config/mayfly.yaml"]
