# The server's image: docker build -t pyramidkv-server .
#   docker run --read-only -p 50051:50051 -p 8000:8000 -p 9464:9464 -v FOLDER:/models:ro pyramidkv-server --set model.path=/models/FILE.gguf
# CUDA=1 adds the backend for GPUs (never run on one yet; without a GPU the same image computes on the CPU). It needs bases with nvcc
# of CUDA 12.8 or later, which knows sm_100, and with cuBLAS; the driver's part comes from the machine:
#   docker build --build-arg CUDA=1 --build-arg BUILD_BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04 \
#     --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 -t pyramidkv-server:0.1.0-cuda .
# Both bases have to be the same distribution, Debian 12 or Ubuntu 24.04. scripts/image_check builds and runs it without a daemon.
ARG BASE=debian:bookworm-slim
ARG BUILD_BASE=debian:bookworm-slim

FROM ${BUILD_BASE} AS build
WORKDIR /source
# What changes least comes first, so that a change of the sources does not install the packages again.
COPY scripts/common.sh scripts/install_packages scripts/
RUN scripts/install_packages --build-only
COPY . .
ARG CUDA=0
# The compiler's cache stays on the building machine between builds, and never gets into the image.
RUN --mount=type=cache,target=/root/.cache/ccache \
    preset="$(if [ "${CUDA}" = 1 ]; then echo cuda; else echo release; fi)" \
    && cmake --preset "${preset}" -DPKV_TESTS=OFF \
    && cmake --build "build/${preset}" \
    && for component in programs docs; do \
         DESTDIR=/image cmake --install "build/${preset}" --prefix /usr/local --strip --component "${component}" || exit 1; \
       done \
    && mkdir /image/models \
    && scripts/runtime_packages /image/usr/local/bin/* >/runtime_packages

FROM ${BASE}
# Just the shared libraries that the programs are linked to.
RUN --mount=type=bind,from=build,source=/runtime_packages,target=/runtime_packages \
    apt-get update \
    && DEBIAN_FRONTEND=noninteractive xargs apt-get install --yes --no-install-recommends </runtime_packages \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=build /image/ /
COPY deploy/docker/server.yaml /etc/pyramidkv/server.yaml

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
ARG LICENSES=unknown
LABEL org.opencontainers.image.title="PyramidKV Server" \
      org.opencontainers.image.description="gRPC server for language models, every request with a key/value-cache budget of its own" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="${LICENSES}"

# --config goes before it.
ENV PYRAMIDKV_CONFIG=/etc/pyramidkv/server.yaml
# A number, so that Kubernetes can see that it is not root. Nothing is ever written: the root may be read-only.
USER 10001:10001
EXPOSE 50051 8000 9464
STOPSIGNAL SIGTERM
# Asks at server.health_listen of deploy/docker/server.yaml, which stays plain where server.tls is set.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
  CMD ["pyramidkv", "health", "--timeout", "3", "--server", "127.0.0.1:50052"]
ENTRYPOINT ["pyramidkv-server"]
