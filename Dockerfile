# Builds an image with Docker, Podman or BuildKit. `make image` builds the same binary without them. The entrypoint is /entrypoint.
#
#   docker build --build-arg BINARY=apikey-verifier --build-arg VERSION=v1.0.0 --build-arg REVISION=$(git rev-parse HEAD) -t apikey-verifier:v1.0.0 .
ARG GO_VERSION=1.26.8
# The digest pins the image, whatever the tag refers to. For a newer Go, replace the digest, too. This prints it:
#
#   docker buildx imagetools inspect docker.io/library/golang:1.26.8
FROM --platform=$BUILDPLATFORM docker.io/library/golang:${GO_VERSION}@sha256:6c2a5538f964f1c82f97ad14988bf05de100d922d159d0e398b54c7b0ca0c6c9 AS build
ARG GO_VERSION
RUN [ "$(go env GOVERSION)" = "go$GO_VERSION" ]
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG BINARY=apikey-operator
ARG VERSION=devel
ARG REVISION
ARG TARGETOS=linux
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -o /out/binary \
    -ldflags="-s -w -X github.com/apikey-operator/apikey-operator/internal/version.version=$VERSION -X github.com/apikey-operator/apikey-operator/internal/version.revision=$REVISION" \
    ./cmd/$BINARY
RUN printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >/out/passwd && \
    printf 'root:x:0:\nnonroot:x:65532:\n' >/out/group

FROM scratch
ARG BINARY=apikey-operator
ARG VERSION=devel
ARG REVISION
LABEL org.opencontainers.image.title=$BINARY \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=https://github.com/apikey-operator/apikey-operator \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /out/passwd /out/group /etc/
COPY LICENSE /licenses/LICENSE
COPY --from=build /out/binary /entrypoint
USER 65532:65532
ENTRYPOINT ["/entrypoint"]
